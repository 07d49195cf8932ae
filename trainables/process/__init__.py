"""This process: threads, random seeds, memory, energy, versions, streams."""
