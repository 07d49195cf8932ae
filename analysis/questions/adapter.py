"""Warn about adapters that training hardly changed.

A trial with an adapter records `train/adapter_shift`: the change by training, in nats, in the sharpness of the adapted
teacher's predictions (see `trainables.spec.measures`). Below `LEAST_SHIFT`, the student distilled from an almost
constant target: the frozen teacher, or the frozen teacher with the random correction by the initial adapter. Records
from earlier versions lack the measure; there is then no warning.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.reading.trials import method_names, numbers, select
from trainables.display.numbers import counted
from trainables.spec.measures import ADAPTER_SHIFT

# In nats. On digits with the defaults (15 epochs, seeds 0 and 1), the shift was 0.009 and 0.007 at a rate of 2e-5 with
# a cosine schedule. Earlier versions took these values for the published settings. It was 0.34 and 0.29 with the
# released schedule, and 1.18 and 0.88 at the default rate of 0.005.
LEAST_SHIFT: Final = 0.01
_LEARNS: Final = "joint"


def adapter_warnings(trials: pa.Table) -> list[str]:
    """Return one warning per method with adapters that hardly changed; empty if there are none.

    Deliberately frozen adapters are left out.

    Args:
        trials: trials of one study.
    """
    finished = select(trials, statuses=["finished"])
    if ADAPTER_SHIFT not in finished.column_names or not finished.num_rows:
        return []
    if "adapter_training" in finished.column_names:
        frozen = pc.fill_null(pc.not_equal(finished["adapter_training"], _LEARNS), False)
        finished = finished.filter(pc.invert(frozen))
    shifts, names = numbers(finished, ADAPTER_SHIFT), np.array(method_names(finished), dtype=object)
    found = []
    for name in dict.fromkeys(names.tolist()):
        own = shifts[(names == name) & np.isfinite(shifts)]
        still = own[own < LEAST_SHIFT]
        if len(still):
            found.append(
                f"The adapter did not move in {len(still)} of {counted(len(own), 'trial')} of {name}: training changed "
                f"the sharpness of the adapted teacher by {still.max():.2g} nats or less (less than {LEAST_SHIFT:g}). "
                "There the student learned from a constant target. A higher adapter_learning_rate moves the adapter."
            )
    return found
