"""`python -m tests.sleeping`: a command that waits for a signal."""

import time

if __name__ == "__main__":
    print("asleep", flush=True)
    time.sleep(1000)
