"""Checks for every distillation method: this package's methods in the tests, user methods by `study.check`."""
