"""Files that are whole or refused, on disk or in object storage."""
