"""Datasets of the user's own: files of arrays or tables, the Hugging Face hub, and code."""
