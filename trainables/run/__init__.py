"""One trial: modules that are trained, an epoch, evaluation, checkpoint, workers."""
