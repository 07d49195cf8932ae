"""Command line: options, requests, previews and progress."""
