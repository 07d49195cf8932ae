"""Read the trials of one or several studies from their records."""
