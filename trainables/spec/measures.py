"""Names of everything that a trial measures, once, for every reader and writer.

An epoch reports the measures that its method has: one without an adapter leaves out the adapter's, and its
gaps and agreement are with what its student is taught by, the frozen teacher. `ce` is taught by nobody; it is
measured against the study's frozen teacher, so that its gap stands beside the others', and leaves out the
teacher's measures only where there is no teacher at all. A teacher that learns itself, in an adapter's place, is the
adapted one. A network that learns beside the student is its peer; where no teacher was trained before it, it stands for
the teacher, and nothing is measured against a frozen one. Accuracies are fractions, entropies are in nats, times in
seconds; `train/loss` is the weighted total, its parts are before their weights, but for the peer's, which is all that
the peer learns by.

What a trial costs comes in two kinds. `COST_MEASURES` are measured anew in every epoch; `COST_FACTS` are what the trial
is, known before its first step and recorded once. FLOPs are per example of the train split, a multiplication and an
addition counting as two (see `trainables.costs.ledger`), `forward` and `backward` by whose they are: the student's, the
adapter's, the teacher's (a whole pass a step where it is live or learns itself, the head alone where its feature is
stored), the method's own (its losses and what belongs to it), and a peer's that learns beside the student. Energy is
the machine's while the epoch ran (see `trainables.costs.energy`), absent where it does not tell. `cost/workers` is
how many processes trained the epoch together; the time and memory of the first are told.
`cost/teacher_training_seconds` is what the training of a trial's teacher took, once for all trials that share it, where
the method is taught by one that was trained here.

`DATA_FACTS` are what the trial's splits are, recorded once: samples, and the best score of a network that gives every
sample the same class, by the dataset's objective (for accuracy, the share of the largest class). Those of the test
split are of trials that confirm; a trial of an earlier version has none.

Beside its measures a trial that finishes tells, once, how well calibrated each network is (`CALIBRATION`, by split and
network): in each of 15 bins of equal width over the confidence how many predictions there are (`count`), the sum of
their confidences (`confidence`), and how many of them are right (`correct`). Who stands for the teacher, and who is the
adapted one, is as for the measures. On the test split it is the student's alone, of a trial that confirms: nothing else
has been through that split.

What a search maximises, what configs are compared by and what early stopping looks at is the dataset's objective
(`objective_of`): accuracy, but for tasks of text whose classes are so unequal that another measure is usual. Such a
trial reports both, and both again on the test split where it confirms.
"""

from typing import Final

from trainables.spec.glue import GLUE_PREFIX, GLUE_TASKS

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
    "val/ece_teacher",
    "val/ece_adapted",
    "val/agreement",
)
# Of tasks that are measured by more than accuracy.
TASK_MEASURES: Final = ("val/matthews", "val/f1", "test/matthews", "test/f1")
TRAINING_MEASURES: Final = (
    "train/loss",
    "train/loss_ce",
    "train/loss_kd",
    "train/loss_adapter",
    "train/loss_peer",
    "train/loss_gap",
)
CPU_ENERGY: Final = "cost/cpu_energy_joules"
GPU_ENERGY: Final = "cost/gpu_energy_joules"
ENERGY_MEASURES: Final = (CPU_ENERGY, GPU_ENERGY)
COST_MEASURES: Final = (
    "cost/seconds",
    "cost/seconds_per_step",
    "cost/examples_per_second",
    "cost/teacher_forwards",
    "cost/teacher_training_seconds",
    "cost/trainable_parameters",
    "cost/adapter_parameters",
    "cost/peak_memory_bytes",
    "cost/workers",
    *ENERGY_MEASURES,
)
# What two equal trials need not have in common.
TIMED_MEASURES: Final = (
    "cost/seconds",
    "cost/seconds_per_step",
    "cost/examples_per_second",
    "cost/peak_memory_bytes",
    *ENERGY_MEASURES,
)
COST_PARTS: Final = ("student", "adapter", "teacher", "method", "peer")
COST_FACTS: Final = (
    "cost/train_examples",
    "cost/student_parameters",
    "cost/other_parameters",
    *(f"cost/{way}_flops_{part}" for part in COST_PARTS for way in ("forward", "backward")),
    "cost/step_flops",
    "cost/step_flops_to_ce",
    "cost/teacher_pass_flops",
    "cost/stored_bytes",
    "cost/stored_passes",
)
DATA_FACTS: Final = ("data/val_samples", "data/val_constant_score", "data/test_samples", "data/test_constant_score")
TEST_MEASURES: Final = ("test/accuracy",)
CALIBRATION: Final = (
    "calibration/val_student",
    "calibration/val_teacher",
    "calibration/val_adapted",
    "calibration/test_student",
)

MEASURES: Final = VALIDATION_MEASURES + TRAINING_MEASURES + COST_MEASURES + TEST_MEASURES + TASK_MEASURES
OBJECTIVES: Final = (ACCURACY, *TASK_MEASURES[:2])
OBJECTIVE_WORDS: Final = {"accuracy": "accuracy", "matthews": "Matthews correlation", "f1": "F1"}

_UNITS: Final = {
    "_flops_to_ce": "1, of what cross-entropy on the same student takes",
    "_per_second": "examples/s",
    "_per_step": "s",
    "_flops": "FLOP/example",
    "_parameters": "numbers",
    "_bytes": "B",
    "_joules": "J",
    "_seconds": "s",
    "/seconds": "s",
    "_examples": "examples",
    "_forwards": "examples",
    "_passes": "passes of the teacher over the train split",
    "/workers": "processes",
    **{f"_{part}": "FLOP/example" for part in COST_PARTS},
}


def objective_of(dataset: str, split: str = "val") -> str:
    """The measure that decides on a dataset.

    Args:
        dataset: canonical name; one that is not known is measured by accuracy, as images are.
        split: `val` or `test`.
    """
    task = GLUE_TASKS.get(dataset.removeprefix(GLUE_PREFIX)) if dataset.startswith(GLUE_PREFIX) else None
    return f"{split}/{task.objective if task is not None else 'accuracy'}"


def objective_in_words(dataset: str) -> str:
    """What a person reads of it: accuracy, F1 or Matthews correlation."""
    return OBJECTIVE_WORDS[objective_of(dataset).removeprefix("val/")]


def unit_of(name: str) -> str | None:
    """The unit of something that costs, which its name ends with; None for other measures.

    Args:
        name: of a measure or a fact.
    """
    if not name.startswith("cost/"):
        return None
    return next(unit for ending, unit in _UNITS.items() if name.endswith(ending))
