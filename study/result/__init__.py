"""Results of a study: tables, figures, report."""
