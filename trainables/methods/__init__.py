"""Distillation methods, one module each."""

from trainables.methods.registry import METHODS as METHODS
