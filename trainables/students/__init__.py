"""Trained students as files and as exported programs."""
