"""Config proposals and early stopping."""
