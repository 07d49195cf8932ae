"""Analysis of recorded studies: estimates with uncertainty, figures and reports."""
