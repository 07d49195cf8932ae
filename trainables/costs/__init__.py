"""Costs of a trial and of an epoch, measured from outside the training code."""
