"""Names of everything that a trial measures, once, for every reader and writer.

An epoch reports the measures that its method has: one without an adapter leaves out the adapter's, and its
gaps and agreement are with what its student is taught by, the frozen teacher. `ce` is taught by nobody; it is
measured against the study's frozen teacher, so that its gap stands beside the others', and leaves out the
teacher's measures only where there is no teacher at all. A teacher that learns itself, in an adapter's place, is the
adapted one. A network that learns beside the student is its peer; where no teacher was trained before it, it stands for
the teacher, and nothing is measured against a frozen one. Accuracies are fractions, entropies are in nats, times in
seconds; `train/loss` is the weighted total, its parts are before their weights, but for the peer's, which is all that
the peer learns by. `cost/teacher_training_seconds` is what the training of a trial's teacher took, once for all trials
that share it, where the method is taught by one that was trained here.
"""

from typing import Final

ACCURACY: Final = "val/accuracy"
SHARPNESS_GAP: Final = "val/sharpness_gap"

VALIDATION_MEASURES: Final = (
    ACCURACY,
    "val/loss",
    "val/accuracy_teacher",
    "val/accuracy_adapted",
    "val/accuracy_peer",
    "val/sharpness_student",
    "val/sharpness_teacher",
    "val/sharpness_adapted",
    SHARPNESS_GAP,
    "val/sharpness_gap_frozen",
    "val/sharpness_gap_tempered",
    "val/sharpness_gap_centred",
    "val/entropy_student",
    "val/entropy_adapted",
    "val/ece_student",
    "val/ece_adapted",
    "val/agreement",
)
TRAINING_MEASURES: Final = ("train/loss", "train/loss_ce", "train/loss_kd", "train/loss_adapter", "train/loss_peer")
COST_MEASURES: Final = (
    "cost/seconds",
    "cost/examples_per_second",
    "cost/teacher_forwards",
    "cost/teacher_training_seconds",
    "cost/trainable_parameters",
    "cost/adapter_parameters",
    "cost/peak_memory_bytes",
)
TEST_MEASURES: Final = ("test/accuracy",)

MEASURES: Final = VALIDATION_MEASURES + TRAINING_MEASURES + COST_MEASURES + TEST_MEASURES
