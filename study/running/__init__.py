"""Running trials: resources, storage, watchdog."""
