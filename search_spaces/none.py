"""Search space without searched fields: all searched fields come from `--search`, and the others have the baseline."""

from search_spaces.baseline import BASELINE
from search_spaces.space import SearchSpace

SPACE = SearchSpace(
    name="none",
    question="Which values of the fields given by --search make the best student?",
    parameters=BASELINE,
    needs_bounds=True,
)
