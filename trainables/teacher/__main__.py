"""Entry point of `python -m trainables.teacher`."""

from trainables.teacher.command import main

if __name__ == "__main__":
    main()
