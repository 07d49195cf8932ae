"""What a study found: tables, figures, report."""
