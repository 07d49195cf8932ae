"""Several trials trained as one."""
