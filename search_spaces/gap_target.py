"""Search space: effect of an imposed, not only measured, sharpness gap on the student.

If the gap is only measured, a small gap and a good student may have a common cause. In this space, a penalty moves the
adapted teacher's gap to a target, through the adapter alone. Three arms are compared on one scale:

- `centred` imposes the gap after subtracting each row's mean logit. Only different soft labels can meet this target, so
  this arm answers the question.
- `paper` imposes the gap as measured in the paper. An adapter can meet this target by adding a constant to all logits,
  which does not affect any student.
- `placebo` adds only this constant: the paper's gap moves, the student does not. Compare accuracy over the paper's gap
  in both arms. If the curve is flat in `placebo` and not in `paper`, the labels' softness caused the effect, not the
  gap.

`none` is unmodified PESF-KD, where the target has no effect.
"""

from search_spaces.baseline import baseline_without
from search_spaces.space import Parameter, SearchSpace

_VARIED = (
    Parameter(
        name="gap_control",
        kind="categorical",
        role="scientific",
        value="none",
        choices=("none", "paper", "centred", "placebo"),
        why="how the gap is controlled: not at all, imposed as the paper measures it, imposed without the effect "
        "of a constant added to all logits, or changed by that constant alone",
    ),
    Parameter(
        name="gap_target",
        kind="float",
        role="scientific",
        value=0.0,
        low=0.0,
        high=2.0,
        why="in nats, from no gap to the gap of the frozen teacher: under plain distillation 1.5 on digits and 0 "
        "on Fashion-MNIST, where students of adapters of any width reach up to 1.3 (28 trials)",
    ),
    Parameter(
        name="adapter_learning_rate",
        kind="float",
        role="nuisance",
        value=0.005,
        low=0.001,
        high=0.01,
        log=True,
        why="the penalty adds a gradient to the adapter, so a rate that reaches one target may not reach "
        "another; on digits, 0.0005 did not change the centred gap, and with 0.02 or more, 6 of 8 trials "
        "ended with infinite values, because a squared penalty that starts at about ten nats has large "
        "gradients",
    ),
)
_HELD = (
    Parameter(
        name="gap_weight",
        kind="float",
        role="fixed",
        value=1.0,
        why="similar to the adapter's cross-entropy weight: missing the target by half a nat costs as much as a "
        "quarter of a nat of cross-entropy; `val/sharpness_gap` and `train/loss_gap` show whether a target "
        "was met",
    ),
)

SPACE = SearchSpace(
    name="gap_target",
    question="Does a student improve when the sharpness gap of the teacher is made smaller, or only when the "
    "labels are softer?",
    parameters=(*_VARIED, *_HELD, *baseline_without(_VARIED)),
)
