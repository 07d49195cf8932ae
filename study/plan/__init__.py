"""What was asked of a study: its plan, and the checks before any work."""
