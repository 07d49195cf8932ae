"""What happened in a study: its journal, its trials, its records."""
