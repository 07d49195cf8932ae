"""Study plan and plan checks before any work starts."""
