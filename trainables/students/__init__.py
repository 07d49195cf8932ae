"""A trained student as a file or as a program."""
