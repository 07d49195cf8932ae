"""Proposal of configs and early stopping of trials."""
