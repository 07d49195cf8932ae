"""Settings and state of this process: threads, random seeds, memory, versions, streams."""
