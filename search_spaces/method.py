"""Which method is best as published."""

from search_spaces.comparison import MethodComparison

COMPARISON = MethodComparison(
    name="method",
    question="Which distillation method makes the best student, each at its published settings?",
)
