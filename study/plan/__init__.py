"""Study plan, and the checks of a plan before any work starts."""
