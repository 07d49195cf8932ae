"""The input of a training step."""
