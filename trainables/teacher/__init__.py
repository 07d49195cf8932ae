"""Teachers: trained by a recipe (`python -m trainables.teacher`) or read from a checkpoint."""
