"""What a study found, read from its records: estimates with their uncertainty, figures, reports."""
