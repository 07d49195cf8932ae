"""Checks that every distillation method passes: those of this package in its tests, the user's by `study.check`."""
