"""What a trial is, without torch: config, methods, datasets, architectures, recipes, measures."""
