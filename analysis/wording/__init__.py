"""Conversion of results to words."""
