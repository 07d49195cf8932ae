"""Batches: the input of a training step."""
