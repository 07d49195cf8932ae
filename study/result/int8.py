"""Export of a confirmed student as an int8 program, compared with the float program over all confirmed seeds.

All seeds of the exported config are quantised in the same way. For each seed, the accuracy of the float program and of
the int8 program is computed on the test split, already read by the confirmation. The exported program is the first
seed's, as for a float export. No quantisation setting is chosen by these accuracies. Nevertheless, they are further
readings of the test split. Each reading is written to `test_readings.jsonl` in the study folder beforehand, and
`study.plan.siblings` counts it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analysis.reading.trials import within_possible, within_reach
from analysis.statistics.estimates import Estimate, mean_interval
from study.plan.siblings import record_reading
from trainables.display.markdown import markdown_rows
from trainables.display.numbers import counted, format_difference, format_estimate, format_latency, listed
from trainables.process.cores import check_threads
from trainables.process.errors import StudyError, UsageError
from trainables.spec.modality import is_text

if TYPE_CHECKING:
    from study.ledger.entry import TrialEntry
    from study.ledger.ledger import StudyLedger
    from study.plan.plan import StudyPlan
    from trainables.data.dataset import Dataset
    from trainables.students.deployment import Latency
    from trainables.students.file import KeptStudent

WHAT: Final = "export --int8"
_ACCURACY: Final = "test/accuracy"


@dataclass(frozen=True)
class Program:
    """One of the exported student's two programs.

    Args:
        size_bytes: file size in bytes.
        accuracy: test accuracy over the seeds.
        latencies: latency by batch size.
    """

    size_bytes: int
    accuracy: Estimate
    latencies: "list[Latency]"

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON."""
        facts = {key.removeprefix("deploy/"): value for each in self.latencies for key, value in each.facts.items()}
        return {"size_bytes": self.size_bytes, "test_accuracy": self.accuracy.as_json(), **facts}


@dataclass(frozen=True)
class Int8Result:
    """Comparison of the int8 program with the float program.

    Args:
        content: content of the exported student's int8 program, with facts.
        floating: the float program.
        integer: the int8 program.
        drop: paired loss in test accuracy by quantisation, float minus int8.
        seeds: test accuracies of float and int8 program, by trial.
        calibration_images: number of training images for calibration.
        calibration_seed: random seed for drawing these images.
        operators: number of convolutions and matrix products in int8.
        threads: number of threads for latency.
    """

    content: bytes
    floating: Program
    integer: Program
    drop: Estimate
    seeds: dict[str, tuple[float, float]]
    calibration_images: int
    calibration_seed: int
    operators: int
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return {
            "float": self.floating.as_dict(),
            "int8": self.integer.as_dict(),
            "drop": self.drop.as_json(),
            "seeds": [{"trial_id": name, "float": a, "int8": b} for name, (a, b) in self.seeds.items()],
            "calibration_images": self.calibration_images,
            "calibration_seed": self.calibration_seed,
            "int8_operators": self.operators,
            "latency_threads": self.threads,
        }

    @property
    def lines(self) -> list[str]:
        """Lines of a Markdown table: accuracy, size and latency for both programs."""
        batches = [each.batch for each in self.floating.latencies]
        heads = ["program", "test accuracy", "size (bytes)", *(f"latency, batch {each}" for each in batches)]
        rows = []
        for name, program in (("float32", self.floating), ("int8", self.integer)):
            times = (
                format_latency(each.median_seconds, each.low_seconds, each.high_seconds) for each in program.latencies
            )
            rows.append([name, format_estimate(program.accuracy), f"{program.size_bytes:,}", *times])
        return markdown_rows(heads, rows)

    @property
    def notes(self) -> list[str]:
        """Sentences below the table."""
        pairs = list(zip(self.floating.latencies, self.integer.latencies, strict=True))
        slower = [f"batch {a.batch}" for a, b in pairs if b.median_seconds >= a.median_seconds]
        larger = ["size"] * (self.integer.size_bytes >= self.floating.size_bytes)
        runs = min(each.runs for program in (self.floating, self.integer) for each in program.latencies)
        return [
            f"Loss of test accuracy by quantisation: {format_difference(self.drop)}, n = {self.drop.n} seeds "
            f"({self.drop.method}, paired by seed).",
            f"Calibrated on {self.calibration_images} training images (seed {self.calibration_seed}); {self.operators} "
            "convolutions and matrix products in int8, with a scale per output channel.",
            f"Latency is the median of at least {runs} runs in ONNX Runtime on {counted(self.threads, 'CPU thread')} "
            "of this machine, with the 10th and 90th percentile.",
            *(
                [
                    f"No gain from int8 here in {listed([*larger, *(f'latency of {each}' for each in slower)])}: small "
                    "networks, and CPUs without fast 8-bit products, gain little."
                ]
                if larger or slower
                else []
            ),
        ]


def check_int8(plan: "StudyPlan", *, is_onnx: bool, max_drop: float | None, threads: int | None) -> None:
    """Check that an int8 program can be requested.

    Raises:
        UsageError: an int8 program is not possible with these options.
    """
    if not is_onnx:
        raise UsageError("--int8 is made by ONNX Runtime: leave out --format torch-export")
    if is_text(plan.base.dataset):
        raise UsageError(
            f"--int8 is for students of images, and {plan.base.dataset} has text: leave it out. The accuracy of a "
            "language model suffers from one scale for all activations, which this quantisation uses"
        )
    if max_drop is not None and not 0 <= max_drop < 1:
        raise UsageError(f"--max-drop {max_drop:g}: give a loss of accuracy from 0 to below 1, such as 0.01")
    if threads is not None:
        check_threads("--threads", threads)


def make_int8(
    plan: "StudyPlan",
    ledger: "StudyLedger",
    entry: "TrialEntry",
    kept: "KeptStudent",
    *,
    facts: dict[str, str],
    max_drop: float | None,
    threads: int,
) -> Int8Result:
    """Quantise the students from all confirmed seeds, and compare them with the float programs.

    Args:
        plan: the study.
        ledger: the study's trials.
        entry: the exported student's trial.
        kept: the exported student.
        facts: metadata of the exported program.
        max_drop: largest allowed mean loss in accuracy, or None.
        threads: number of threads for latency.

    Raises:
        StudyError: the data have changed, or the loss is larger than `max_drop`.
        UsageError: files of the dataset are missing.
        ExportError: a student cannot be exported or quantised.
    """
    from study.ledger.students import choice_named, confirmed_students
    from trainables.students.deployment import as_function, measure_latency, open_program
    from trainables.students.export import CHECKED_BATCHES, largest_difference, program_of
    from trainables.students.file import load_kept
    from trainables.students.int8 import (
        CALIBRATION_SEED,
        accuracy_of,
        calibration_indices,
        check_program,
        integer_operators,
        quantised,
        with_facts,
    )

    students = confirmed_students(ledger, choice_named(ledger, trial=entry.trial_id))
    datasets: dict[tuple[int, int], Dataset] = {}
    seeds: dict[str, tuple[float, float]] = {}
    programs: dict[str, tuple[bytes, bytes]] = {}
    calibrated = 0
    for trial, path in students:
        own = kept if trial.trial_id == entry.trial_id else load_kept(path)
        split = trial.config.split_seed, trial.config.split_number
        if split not in datasets:
            datasets[split] = _dataset(plan, trial)
        dataset = datasets[split]
        if own.student.info.data_digest != dataset.digest:
            raise StudyError(
                f"the files of {trial.config.dataset} have changed since {trial.trial_id} was trained: restore them, "
                "or export without --int8"
            )
        images = _images_at(dataset, calibration_indices(len(dataset.train)))
        calibrated = len(images)
        floating = program_of(own, "onnx", facts)
        largest_difference(as_function(open_program(floating, threads=1)), own)
        programs[trial.trial_id] = floating, quantised(floating, images)
    record_reading(plan, WHAT, list(programs))
    test = next(iter(datasets.values())).test  # the same for all splits into train and validation
    for trial_id, pair in programs.items():
        floating_share, integer_share = (
            accuracy_of(content, test.images, test.labels, threads=threads) for content in pair
        )
        seeds[trial_id] = floating_share, integer_share
    floats, integers = ([pair[place] for pair in seeds.values()] for place in (0, 1))
    drop = within_reach(mean_interval([a - b for a, b in seeds.values()]), _ACCURACY)
    if max_drop is not None and drop.value > max_drop:
        raise StudyError(
            f"quantisation to int8 loses {format_difference(drop)} of test accuracy (float32 "
            f"{format_estimate(_accuracy(floats))}, int8 {format_estimate(_accuracy(integers))}, n = {drop.n} "
            f"seeds), which is more than --max-drop {max_drop:g}: nothing was written"
        )
    floating, integer = programs[entry.trial_id]
    integer = with_facts(integer, {"int8": _fact(drop, _accuracy(integers), calibrated)})
    shape = tuple(kept.images.shape[1:])
    check_program(integer, shape, kept.student.info.num_classes, CHECKED_BATCHES)
    image_shape = (shape[0], shape[1], shape[2])
    return Int8Result(
        content=integer,
        floating=Program(len(floating), _accuracy(floats), measure_latency(floating, image_shape, threads=threads)),
        integer=Program(len(integer), _accuracy(integers), measure_latency(integer, image_shape, threads=threads)),
        drop=drop,
        seeds=seeds,
        calibration_images=calibrated,
        calibration_seed=CALIBRATION_SEED,
        operators=integer_operators(integer),
        threads=threads,
    )


def _accuracy(shares: Sequence[float]) -> Estimate:
    """Return the mean accuracy over seeds, with the interval limited to the possible range."""
    return within_possible(mean_interval(shares), _ACCURACY)


def _fact(drop: Estimate, accuracy: Estimate, images: int) -> str:
    return (
        f"static quantisation by ONNX Runtime, calibrated on {images} training images; test accuracy over {drop.n} "
        f"seeds {format_estimate(accuracy)}, float minus int8 {format_difference(drop)}"
    )


def _dataset(plan: "StudyPlan", trial: "TrialEntry") -> "Dataset":
    from trainables.data import load_dataset

    config = trial.config
    try:
        return load_dataset(config.dataset, plan.data_root, seed=config.split_seed, split_number=config.split_number)
    except ValueError as error:
        raise UsageError(f"--int8 reads the images of {config.dataset}: {error}") from None


def _images_at(dataset: "Dataset", places: Any) -> Any:
    """Return training images (N, C, H, W), without copying the others."""
    from trainables.data.dataset import Split

    train = dataset.train
    return Split(train.source, train.labels[places], train.indices[places], image_size=train.image_size).images


def int8_card(plan: "StudyPlan", entry: "TrialEntry", result: Int8Result, takes: str) -> str:
    """Return the card for an int8 program in Markdown."""
    seeds = [f"| {name} | {a:.4f} | {b:.4f} |" for name, (a, b) in result.seeds.items()]
    return "\n".join(
        [
            f"# {entry.config.student} on {entry.config.dataset}, int8",
            "",
            *result.lines,
            "",
            *result.notes,
            "",
            f"The program is that of trial `{entry.trial_id}` of study `{plan.name}`, the first seed of the confirmed "
            "config, regardless of the accuracies. "
            f"Takes {takes}; normalisation is part of the program. The test split was read again for these accuracies, "
            "which is counted with the readings of the confirmation.",
            "",
            "| trial | float32 test accuracy | int8 test accuracy |",
            "| --- | ---: | ---: |",
            *seeds,
            "",
        ]
    )


def card_of_program(path: Path) -> Path:
    """Return the path to an int8 program's card."""
    return path.with_suffix(".md")
