"""Comparison of methods at published settings."""

from search_spaces.comparison import MethodComparison

COMPARISON = MethodComparison(
    name="method",
    question="Which distillation method makes the best student, each at its published settings?",
)
