"""Study results: tables, figures, report."""
