"""Comparison of a learned adapter with controls. The controls soften the teacher without learning the softening.

PESF-KD makes the teacher softer, and the softening follows the student. Each control keeps a part of this. All methods
learn from one teacher's stored outputs, with the same loss weights. The temperature of each method is tuned equally
long.

- `kd` softens all predictions alike, by the tuned temperature.
- `dtkd` softens each prediction by both models' sharpness, without parameters. The two loss parts have the released 3:1
  ratio, and together the weight of `kd`.
- `pesf_kd+frozen` perturbs the teacher by an adapter with fixed random initial weights.
- `pesf_kd+first` has a frozen adapter, trained before with another student. The labels are as soft as in PESF-KD, but
  do not follow this student.
- `pesf_kd+average-of-4` averages four adapters, trained with the student.
"""

from typing import Final

from search_spaces.comparison import MethodComparison, TunedParameter
from search_spaces.space import Value

# Same weights as in the other spaces, see `search_spaces.baseline`. A default init gives every adapter the same start
# as the frozen one.
_WEIGHTS: Final[dict[str, Value]] = {"ce_weight": 1.0, "kd_weight": 0.9}
_ADAPTER: Final[dict[str, Value]] = {"method": "pesf_kd", **_WEIGHTS, "adapter_init": "default"}

COMPARISON = MethodComparison(
    name="adapter_why",
    question="Does learning the adapter help the student, or only the softening of the teacher?",
    arms={
        "kd": {"method": "kd", **_WEIGHTS},
        "dtkd": {"method": "dtkd", **_WEIGHTS, "dtkd_alpha": 0.75, "dtkd_beta": 0.25},
        "pesf_kd": _ADAPTER,
        "pesf_kd+frozen": {**_ADAPTER, "adapter_training": "frozen"},
        "pesf_kd+first": {**_ADAPTER, "adapter_training": "first"},
        "pesf_kd+average-of-4": {**_ADAPTER, "adapter_count": 4},
    },
    tuned=(
        TunedParameter(
            name="temperature",
            kind="float",
            low=1.0,
            high=16.0,
            why="the temperature is the softening that needs no adapter, so every arm has its own best one; as in the "
            "space `temperature`, on a log scale",
        ),
    ),
)
