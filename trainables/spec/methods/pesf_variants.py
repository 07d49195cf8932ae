"""Variants of PESF-KD: the paper's objective, and the two objectives released by the authors.

Notation: z_s are the student's logits, z_t the frozen teacher's, z_a the adapted teacher's, y the labels, T the
temperature, and p(z) = softmax(z). KL(p || q) is the mean over the batch of Σ p log(p / q). The symbol [z] marks a
constant, without gradient. swap(z) exchanges, in each row, the largest logit and the logit of the true class.

The authors' code is github.com/1170300319/PESF-KD at commit d3f6aa8. A variant fixes the objective (the setting
`pesf_variant`), and `settings` are the released values of other fields. The objective is in
`trainables.methods.pesf_kd`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

PesfVariant = Literal["paper", "released-vision", "released-language"]


@dataclass(frozen=True)
class Variant:
    """One variant.

    Args:
        objective: the minimised loss.
        source: origin of the objective and the settings.
        deviations: differences between this project and the source.
        settings: values of config fields. Missing fields keep their defaults.
    """

    objective: str
    source: str
    deviations: tuple[str, ...] = ()
    settings: Mapping[str, float | str | bool] = field(default_factory=dict)


_VISION: Final[dict[str, float | str | bool]] = {
    "temperature": 6.0,
    "ce_weight": 1.0,
    "kd_weight": 1.0,
    "adapter_ce_weight": 1.0,
    "adapter_width": 32,
    "adapter_init": "default",
    "adapter_learning_rate": 2e-5,
    "adapter_schedule": "released",
}
_LANGUAGE: Final[dict[str, float | str | bool]] = {
    "temperature": 5.0,
    "ce_weight": 0.3,
    "kd_weight": 0.7,
    "adapter_ce_weight": 0.3,
    "distance": "mse",
    "adapter_kind": "parallel",
    "adapter_width": 64,
    "adapter_init": "normal",
    "adapter_dropout": 0.1,
    "adapter_learning_rate": 1e-5,
    "adapter_schedule": "linear",
    "adapter_weight_decay": 0.0,
    "adapter_clip": False,
}

PESF_VARIANTS: Final[dict[PesfVariant, Variant]] = {
    "paper": Variant(
        objective=(
            "ce_weight · CE(z_s, y) + kd_weight · T² KL(p(z_a / T) || p(z_s / T)) + adapter_ce_weight · CE(z_a, y); "
            "the divergence trains student and adapter"
        ),
        source="Rao et al., 'Parameter-Efficient and Student-Friendly Knowledge Distillation' (2022), the formulas",
        deviations=(
            "rate, schedule and init of the adapter are ours (0.005, cosine, zero), with which the adapter learns: see "
            "`train/adapter_shift`",
            "the weights of the two cross-entropies are separate settings",
        ),
    ),
    "released-vision": Variant(
        objective=(
            "ce_weight · CE(z_s, y) + kd_weight · T² (KL(p([swap(z_t)] / T) || p(z_s / T)) + KL(p(z_a / T) || "
            "p([swap(z_s)] / T))) + adapter_ce_weight · CE(z_a, y); the student never sees the adapter"
        ),
        source="cv/helper/loops.py, cv/train_student_DDP.py, cv/models/adapter.py; weights of the README's `-a 1`",
        deviations=(
            "the released code subtracts the adapter's output in training and adds it in validation. Here the output "
            "is always added: its init is symmetric about zero, so training has the same distribution, and the adapted "
            "teacher is evaluated as it was trained",
            "the released code adds up the gradients of four batches of 11, which equals one batch of 44 at four times "
            "the rates and a quarter of the weight decays: student_learning_rate 0.2, adapter_learning_rate 8e-5, both "
            "weight decays 1.25e-4. These are not set, because a comparison keeps the student's training equal. Batch "
            "normalisation sees 11 samples in the released code",
            "the released code leaves the teacher in train mode, so its batch normalisation uses batches of 11 and "
            "moves. Here the teacher is in eval mode, because its outputs are stored",
            "the student keeps the study's own schedule. The adapter's rate is 2e-5 for 62.5% of the epochs, then "
            "student_learning_rate divided by 10, 100 and 1,000, as 150, 180 and 210 of 240 epochs",
        ),
        settings=_VISION,
    ),
    "released-language": Variant(
        objective=(
            "ce_weight · CE(z_s, y) + kd_weight · T² mean((p(z_a / T) - p(z_s / T))²) + adapter_ce_weight · CE(z_a, y)"
        ),
        source="nlp/run_glue_distillation.py, nlp/distillation_meta.py, nlp/utils_glue.py; the README's α = 0.7",
        deviations=(
            "the released objective adds β · PKD with β = 100. That term compares hidden states, which stored outputs "
            "lack: `pkd` with an adapter and distance mse is the released objective with this term, and pesf_kd is the "
            "one with β = 0",
            "a misspelt `required_grad` trains the whole teacher in the released code, together with the adapter. Here "
            "the teacher is frozen, as the paper states. `full_teacher` trains it",
            "the released teacher runs with dropout in training, and the adapter's input is dropped out too. Here the "
            "teacher is in eval mode, and only the adapter's own dropout remains",
            "student_learning_rate 5e-5, batch_size 8, student_weight_decay 0 and rate_warmup 0 are the released "
            "values of the student's training. They are not set, because a comparison keeps that training equal",
        ),
        settings=_LANGUAGE,
    ),
}
assert set(PESF_VARIANTS) == set(get_args(PesfVariant))

# The paper's objective with the released schedule, scaled to the epochs of a study.
AS_PUBLISHED: Final[Mapping[str, float | str | bool]] = {"pesf_variant": "paper", **_VISION}
# The same for an adapter in addition to another method, with the README's `--distill crd -a 1`.
TERM_AS_PUBLISHED: Final[Mapping[str, float | str | bool]] = {
    "pesf_variant": "paper",
    "adapter_kd_weight": 1.0,
    **{name: value for name, value in _VISION.items() if name not in ("ce_weight", "kd_weight")},
}
# The same on text. Rate and schedule of the adapter are the defaults on text. These are the released values, except for
# the warm-up, which is common to all text trials.
AS_PUBLISHED_ON_TEXT: Final[Mapping[str, float | str | bool]] = {
    "pesf_variant": "paper",
    **{
        name: value
        for name, value in _LANGUAGE.items()
        if name in ("temperature", "ce_weight", "kd_weight", "adapter_ce_weight", "distance", "adapter_init")
    },
}
