"""Analyses of study trials, one question per module."""
