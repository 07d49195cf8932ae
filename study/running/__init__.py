"""How trials run: resources, storage, watchdog."""
