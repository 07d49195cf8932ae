"""Trial specifications without torch: config, methods, datasets, architectures, recipes and measures."""
