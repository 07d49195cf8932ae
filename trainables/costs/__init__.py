"""The costs of a run and of an epoch, measured from outside."""
