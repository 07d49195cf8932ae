"""The trials of one study or of many, read from their records."""
