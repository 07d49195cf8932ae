"""Names of all measures reported by a trial.

The reported measures depend on the method's networks:

- Without an adapter, the adapted teacher's measures are absent. The gaps and the agreement then compare the
  student with the frozen teacher.
- `ce` trains without a teacher. The student is still compared with the study's frozen teacher, so gaps are comparable
  across methods. The teacher's measures are absent only in a study without a teacher.
- If the method trains the teacher itself, the trained teacher is reported as the adapted one.
- A network trained together with the student is the peer. If the method has no pretrained teacher, the peer is
  reported in place of the teacher, and comparisons with a frozen teacher are absent.

Accuracies are fractions, entropies are in nats, and times are in seconds. `train/loss` is the weighted total. The other
training losses are unweighted parts of the total, except `train/loss_peer`, which is the peer's complete training loss.

`train/adapter_shift` is the effect of training on an adapter, in nats: the mean over the validation split of the
absolute change in the adapted teacher's sharpness, compared with the same adapter at the initial weights. The shift is
0 if and only if training has changed no prediction's sharpness; changes of opposite sign do not cancel. The random
initial correction does not count. A study warns if the shift stays below 0.01 nats, see `analysis.questions.adapter`.

If the teacher is an ensemble, `val/sharpness_gap_teacher_1` and so on are the members' gaps, in checkpoint order. Their
mean is `val/sharpness_gap_frozen`.

Costs are reported in two ways. `COST_MEASURES` are measured in every epoch. `COST_FACTS` are known before the first
step and recorded once.

- FLOPs are per example of the train split. One multiply-add counts as two (see `trainables.costs.ledger`). `forward`
  and `backward` are split by network: student, adapter, teacher, method and peer.
- The teacher's FLOPs cover a full pass for each step if the teacher is live or trained. If teacher features are stored,
  they cover the head alone. The method's FLOPs cover the method's losses and modules.
- A trial with `adapter_training="first"` trains another trial before the first epoch, to adapt the teacher. The first
  epoch's time includes this other trial. The other trial's FLOPs are not counted.
- Energy is measured for the entire machine during the epoch (see `trainables.costs.energy`). Energy is absent on
  machines without readable counters.
- `cost/workers` is the number of processes training the epoch together. Times and memory are those of the first
  process.
- `cost/teacher_training_seconds` is the teacher's training time, reported if the method uses a teacher trained
  here. All trials with the same teacher share this cost.

`DATA_FACTS` describe a trial's splits and are recorded once: the number of samples and the best score of a constant
predictor. The score uses the dataset's objective; for accuracy, it is the largest class's share. Only confirming trials
record facts about the test split. Trials from earlier versions have no such facts.

`DEPLOY_FACTS` describe the student where it runs, and are recorded by studies with `--latency` or several objectives:
parameters, forward FLOPs, size of the ONNX program, and the program's latency for batches of 1 and 32 images (median,
10th and 90th percentile, number of runs, number of threads; see `trainables.students.deployment`).

A finished trial also reports `CALIBRATION` once, by split and network. Confidences are binned into 15 bins of equal
width. Each bin has the prediction count (`count`), the sum of confidences (`confidence`), and the count of correct
predictions (`correct`). The teacher and the adapted teacher are defined as above. On the test split, only a confirming
trial's student is reported, since no other network is evaluated there.

A search maximises the dataset's objective (`objective_of`). Comparisons of configs and early stopping use the same
measure. The objective is accuracy, except for text tasks with very unequal classes, which conventionally use another
measure. Trials on such tasks report accuracy and the objective, and confirming trials report both on the test split as
well.
"""

from typing import Final

from trainables.spec.architectures import MOST_TEACHERS
from trainables.spec.glue import GLUE_PREFIX, GLUE_TASKS

ACCURACY: Final = "val/accuracy"
ADAPTER_SHIFT: Final = "train/adapter_shift"
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
# For a teacher ensemble, one for each teacher.
TEACHER_GAPS: Final = tuple(f"val/sharpness_gap_teacher_{number}" for number in range(1, MOST_TEACHERS + 1))
# Measures of tasks with more measures than accuracy.
TASK_MEASURES: Final = ("val/matthews", "val/f1", "test/matthews", "test/f1")
TRAINING_MEASURES: Final = (
    "train/loss",
    "train/loss_ce",
    "train/loss_kd",
    "train/loss_adapter",
    "train/loss_peer",
    "train/loss_gap",
    "train/loss_adapter_kd",
    ADAPTER_SHIFT,
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
# Of the student where it runs, the same for all trials with one student.
DEPLOY_BATCHES: Final = (1, 32)
DEPLOY_PARAMETERS: Final = "deploy/student_parameters"
DEPLOY_FLOPS: Final = "deploy/forward_flops"
DEPLOY_SIZE: Final = "deploy/size_bytes"
DEPLOY_THREADS: Final = "deploy/threads"
DEPLOY_LATENCY: Final = "deploy/latency_1_seconds"
DEPLOY_FACTS: Final = (
    DEPLOY_PARAMETERS,
    DEPLOY_FLOPS,
    DEPLOY_SIZE,
    *(
        f"deploy/latency_{batch}_{part}"
        for batch in DEPLOY_BATCHES
        for part in ("seconds", "low_seconds", "high_seconds", "runs")
    ),
    DEPLOY_THREADS,
)
DATA_FACTS: Final = ("data/val_samples", "data/val_constant_score", "data/test_samples", "data/test_constant_score")
TEST_MEASURES: Final = ("test/accuracy",)
CALIBRATION: Final = (
    "calibration/val_student",
    "calibration/val_teacher",
    "calibration/val_adapted",
    "calibration/test_student",
)
# Of a confirmed trial: one bit per test sample, in split order, and sums per class. `samples/test_correct` is a bitmap,
# with the first sample in the highest bit of the first byte.
CORRECT: Final = "samples/test_correct"
CLASSES: Final = "classes/test"

MEASURES: Final = VALIDATION_MEASURES + TRAINING_MEASURES + COST_MEASURES + TEST_MEASURES + TASK_MEASURES + TEACHER_GAPS
OBJECTIVES: Final = (ACCURACY, *TASK_MEASURES[:2])
OBJECTIVE_WORDS: Final = {"accuracy": "accuracy", "matthews": "Matthews correlation", "f1": "F1"}

_UNITS: Final = {
    "_flops_to_ce": "1, relative to cross-entropy on the same student",
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
    "_runs": "runs",
    "/threads": "threads",
    **{f"_{part}": "FLOP/example" for part in COST_PARTS},
}


def objective_of(dataset: str, split: str = "val") -> str:
    """Return the name of the measure to maximise on a dataset.

    Args:
        dataset: canonical name. An unknown dataset uses accuracy, as images do.
        split: `val` or `test`.
    """
    task = GLUE_TASKS.get(dataset.removeprefix(GLUE_PREFIX)) if dataset.startswith(GLUE_PREFIX) else None
    return f"{split}/{task.objective if task is not None else 'accuracy'}"


def objective_in_words(dataset: str) -> str:
    """Return a dataset's objective for display: accuracy, F1 or Matthews correlation."""
    return OBJECTIVE_WORDS[objective_of(dataset).removeprefix("val/")]


def unit_of(name: str) -> str | None:
    """Return the unit of a cost or deployment measure by the name's ending, or None for other measures.

    Args:
        name: measure or fact name.
    """
    if not name.startswith(("cost/", "deploy/")):
        return None
    return next(unit for ending, unit in _UNITS.items() if name.endswith(ending))
