"""One question about the trials of a study in each module."""
