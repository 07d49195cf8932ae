"""Display of results and progress: numbers in words and counted bars, shared by all packages."""
