"""One training step: objective, adapter, optimiser."""
