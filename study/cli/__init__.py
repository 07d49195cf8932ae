"""The command line: options, requests, previews, progress."""
