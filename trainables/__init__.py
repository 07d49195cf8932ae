"""Distillation trials; only `trainables.tune` needs Ray."""
