"""One trial: trainable modules, training epochs, evaluation, checkpoints and workers."""
