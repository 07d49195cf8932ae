"""Teachers: trained by a recipe (`python -m trainables.teacher`) or taken from a checkpoint."""
