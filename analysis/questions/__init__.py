"""Analyses of the trials of a study, one question per module."""
