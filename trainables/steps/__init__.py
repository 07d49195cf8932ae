"""Parts of a training step: objective, adapter and optimiser."""
