"""Read trials from the records of one or several studies."""
