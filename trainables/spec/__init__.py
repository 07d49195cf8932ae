"""Specifications of trials without torch: config, methods, datasets, architectures, recipes and measures."""
