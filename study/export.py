"""Command line for an export: `python -m study.export NAME`.

As in `study.launch`, this module runs as `__main__`, so it must not define anything to be pickled.
"""

import importlib
import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from study.cli.app import epilog_of, leave_with_exit_code
from study.cli.commands import confirm_command
from study.cli.options import with_options
from study.cli.request import existing_plan
from trainables.process.errors import StudyError, UsageError

if TYPE_CHECKING:
    from study.ledger.entry import TrialEntry
    from study.plan.plan import StudyPlan
    from trainables.students.export import ExportedStudent
    from trainables.students.file import KeptStudent, Student

_EXAMPLES: Final = (
    ("export the confirmed student as ONNX, next to the weights", "python -m study.export NAME"),
    (
        "quantise it to int8, unless that loses a point of accuracy",
        "python -m study.export NAME --int8 --max-drop 0.01",
    ),
    ("replace the file, with JSON output for a script", "python -m study.export NAME --force --json"),
)
# Modules required in addition to PyTorch, by file suffix.
_NEEDED: Final = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".pt2": ()}
_SENTENCES: Final = "int32 sentences: token ids, padded with 0 at the end, and segment ids"
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


class FormatName(StrEnum):
    """Export format."""

    ONNX = "onnx"
    TORCH = "torch-export"

    @property
    def suffix(self) -> str:
        """File suffix for the format."""
        return ".onnx" if self is FormatName.ONNX else ".pt2"


Name = Annotated[str, typer.Argument(metavar="NAME", help="Confirmed study.", show_default=False)]
Format = Annotated[FormatName, typer.Option("--format", help="File format; onnx needs the extra pesfkd\\[export].")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Output file. Default: next to the student's weights in the study's folder."),
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Quantise the program to int8, calibrated on training images, and compare it with the float program over "
        "all confirmed seeds on the test split. For ONNX and images.",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="LOSS",
        help="With --int8: write nothing if the mean loss of test accuracy is larger, such as 0.01 for one point.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="With --int8: number of CPU threads for measuring latency. Default: 1."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing file, after the new one has passed the check.")
]


Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="ID",
        help="Export this confirmed config instead of the best one, such as another point of the Pareto front. The "
        "beginning of the identifier suffices; a wrong one lists all.",
    ),
]
Trial = Annotated[
    str | None,
    typer.Option("--trial", metavar="TRIAL", help="Export the student of this trial of a confirmation."),
]


@app.command(
    epilog=epilog_of(_EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(("output_dir", "as_json", "verbose"))
def export(
    name: Name,
    kind: Format = FormatName.ONNX,
    out: Out = None,
    int8: Int8 = False,
    max_drop: MaxDrop = None,
    threads: Threads = None,
    force: Force = False,
    config: Config = None,
    trial: Trial = None,
    **values: Any,
) -> None:
    """Export the student of a confirmed study as a program that does not need this package.

    The program takes uint8 images (batch, channels, height, width) with any batch size, normalises them and returns
    logits. A text student takes int32 sentences (batch, 2, tokens): token ids and segment ids. The file then also
    contains the tokeniser as tokenizer.json. The class names are in the file too (class_names). The file is read
    back and compared with the student, on the stored example and on other batch sizes. A file that returns other
    logits is removed. With --int8, a card with accuracy, size and latency is written next to the program. Exit
    codes: 0 done, 1 error, 2 wrong usage.
    """
    _check_installed(kind)  # before looking for the study
    plan = existing_plan(name, values["output_dir"])
    result = export_study(
        plan, kind, out, force=force, int8=int8, max_drop=max_drop, threads=threads, config=config, trial=trial
    )
    shown = {name: value for name, value in result.items() if name != "lines"}
    typer.echo(json.dumps(shown, indent=2) if values["as_json"] else _in_words(result))


def export_study(
    plan: "StudyPlan",
    kind: FormatName,
    out: Path | None,
    *,
    force: bool,
    int8: bool = False,
    max_drop: float | None = None,
    threads: int | None = None,
    config: str | None = None,
    trial: str | None = None,
) -> dict[str, Any]:
    """Export a confirmed study's student.

    Args:
        plan: the study.
        kind: file format.
        out: output file. Default: next to the student's weights.
        force: whether to replace an existing file.
        int8: whether to quantise the program to int8.
        max_drop: largest allowed mean loss in test accuracy from quantisation, or None.
        threads: number of threads for measuring latency; 1 by default.
        config: identifier of a confirmed config, or the beginning of one. Default: the best config.
        trial: identifier of a confirmed trial. Default: the config's first seed.

    Returns:
        Facts about the file, as JSON values.

    Raises:
        UsageError: the study has no confirmed student, or the output file is not allowed.
        StudyError: the student cannot be exported or written.
    """
    if not int8 and (max_drop is not None or threads is not None):
        raise UsageError(f"{'--max-drop' if max_drop is not None else '--threads'} is for --int8: give --int8 too")
    if int8:
        from study.result.int8 import check_int8

        check_int8(plan, is_onnx=kind is FormatName.ONNX, max_drop=max_drop, threads=threads)
    _check_installed(kind)
    entry, weights = _student_of(plan, config, trial)
    path = out if out is not None else weights.with_suffix(".int8.onnx" if int8 else kind.suffix)
    _check_place(path, kind, force=force)
    if int8 and path.with_suffix(".md").exists() and not force:
        raise UsageError(
            f"{path.with_suffix('.md')} already exists, where the card of the program would be: replace both with "
            "--force, or give another file with --out"
        )
    from trainables.models import CheckpointError
    from trainables.storage.atomic import StoredFileError
    from trainables.students.export import BATCH, TOKENS, ExportError, export_student
    from trainables.students.file import load_kept

    try:
        kept = _with_class_names(plan, load_kept(weights))
        shape: list[int | str] = [2, TOKENS] if kept.student.about else [*kept.images.shape[1:]]
        facts = _facts(plan, entry, kept.student, [BATCH, *shape])
        if int8:
            return _export_int8(plan, entry, kept, path, facts=facts, max_drop=max_drop, threads=threads or 1)
        exported = export_student(kept, path, kind=kind.value, facts=facts)
    except (CheckpointError, StoredFileError, ExportError) as error:
        raise StudyError(f"the student of {entry.trial_id} was not exported: {error}") from error
    except OSError as error:
        raise StudyError(f"cannot write {path} ({error.strerror or error}); give another place with --out") from error
    return _result(exported, entry, kind, shape=[BATCH, *shape], student=kept.student)


def _export_int8(
    plan: "StudyPlan",
    entry: "TrialEntry",
    kept: "KeptStudent",
    path: Path,
    *,
    facts: dict[str, str],
    max_drop: float | None,
    threads: int,
) -> dict[str, Any]:
    from study.ledger.ledger import StudyLedger
    from study.result.int8 import card_of_program, int8_card, make_int8
    from trainables.storage.atomic import write_atomically

    ledger = StudyLedger(plan, read_only=True)
    found = make_int8(plan, ledger, entry, kept, facts=facts, max_drop=max_drop, threads=threads)
    write_atomically(path, found.content)
    card = card_of_program(path)
    write_atomically(card, int8_card(plan, entry, found, facts["takes"]).encode())
    student = kept.student
    return {
        "file": str(path),
        "format": "onnx",
        "bytes": len(found.content),
        "trial_id": entry.trial_id,
        "student": entry.config.student,
        "takes": ["batch", *kept.images.shape[1:]],
        "gives": ["batch", student.info.num_classes],
        "pixels": [0, _largest_pixel(entry)],
        "class_names": list(student.class_names),
        "card": str(card),
        "int8": found.as_dict(),
        "lines": [*found.lines, "", *found.notes],
    }


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app)


def _check_installed(kind: FormatName) -> None:
    for module in _NEEDED[kind.suffix]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(
                f"--format {kind} needs {module}, which cannot be imported ({error}). Install it: "
                "python -m pip install 'pesfkd[export]'; or choose --format torch-export, which needs nothing else"
            ) from None


def _student_of(plan: "StudyPlan", config: str | None, trial: str | None) -> "tuple[TrialEntry, Path]":
    """Return the trial with the exported student, and the path of the student file."""
    from study.ledger.derivable import check_records
    from study.ledger.ledger import StudyLedger
    from study.ledger.students import choice_named, first_confirmed, student_path

    ledger = StudyLedger(plan, read_only=True)
    check_records(ledger)
    confirm = confirm_command(plan)
    if ledger.confirmation is None:
        raise UsageError(f"study {plan.name!r} has no confirmation and therefore no saved student: run {confirm} first")
    if not ledger.is_confirmed:
        ended = sum(entry.status is not None for entry in ledger.in_stage("confirm"))
        raise UsageError(
            f"the confirmation of study {plan.name!r} is not complete: {ended} of {ledger.confirm_planned} trials "
            f"have ended. Resume it with: {confirm}"
        )
    choice = choice_named(ledger, config=config, trial=trial)
    entry = first_confirmed(ledger, choice) if trial is None else ledger.entries[trial]
    if entry is None:
        which = "first choice" if choice is None else f"config {choice.config_id}"
        raise UsageError(f"in study {plan.name!r}, no trial of the confirmation's {which} has finished")
    path = student_path(plan, entry.trial_id)
    if not path.is_file() and choice is not None:
        raise UsageError(
            f"the student of {entry.trial_id} was not saved, because it failed, or an earlier version saved only those "
            "of the best config"
        )
    if not path.is_file():
        raise StudyError(f"the student of {entry.trial_id} is missing: restore {path} from a copy")
    return entry, path


def _check_place(path: Path, kind: FormatName, *, force: bool) -> None:
    if path.suffix != kind.suffix:
        raise UsageError(f"--out {path}: a file of format {kind} must end in {kind.suffix}")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder: give a file in it")
    if path.exists() and not force:
        raise UsageError(f"{path} already exists: replace it with --force, or give another file with --out")


def _with_class_names(plan: "StudyPlan", kept: "KeptStudent") -> "KeptStudent":
    """Add class names to a student stored by an earlier version without them.

    For image folders no names are added, because the folder may have changed since.
    """
    from trainables.data.class_names import with_class_names
    from trainables.spec.datasets import DATASETS

    known = DATASETS.get(plan.base.dataset)
    if kept.student.class_names or known is None:
        return kept
    names = with_class_names(known, plan.data_root).class_names
    if len(names) != kept.student.info.num_classes:
        return kept
    return replace(kept, student=replace(kept.student, class_names=names))


def _facts(plan: "StudyPlan", entry: "TrialEntry", student: "Student", takes: list[int | str]) -> dict[str, str]:
    info, shape = student.info, ", ".join(map(str, takes))
    return {
        "architecture": info.architecture,
        "dataset": entry.config.dataset,
        "data_digest": info.data_digest,
        "study": plan.name,
        "trial_id": entry.trial_id,
        "takes": f"{_SENTENCES if student.about else _images(entry)}; shape ({shape})",
        "gives": f"logits; shape ({takes[0]}, {info.num_classes})",
    }


def _result(
    exported: "ExportedStudent",
    entry: "TrialEntry",
    kind: FormatName,
    *,
    shape: list[int | str],
    student: "Student",
) -> dict[str, Any]:
    from trainables.students.file import LOGITS_TOLERANCE

    return {
        "file": str(exported.path),
        "format": kind.value,
        "bytes": exported.size,
        "trial_id": entry.trial_id,
        "student": entry.config.student,
        "takes": shape,
        "gives": [shape[0], student.info.num_classes],
        "pixels": None if student.about else [0, _largest_pixel(entry)],
        "class_names": list(student.class_names),
        "checked_batches": list(exported.batches),
        "largest_difference": exported.largest_difference,
        "tolerance": LOGITS_TOLERANCE,
    }


def _largest_pixel(entry: "TrialEntry") -> int:
    from trainables.spec.datasets import largest_pixel

    return largest_pixel(entry.config.dataset)


def _images(entry: "TrialEntry") -> str:
    return f"uint8 images, pixels 0 to {_largest_pixel(entry)}, not normalised"


def _in_words(result: dict[str, Any]) -> str:
    from trainables.data.class_names import in_words

    takes, gives = (", ".join(map(str, result[name])) for name in ("takes", "gives"))
    names = tuple(result["class_names"])
    head = [
        f"written   {result['file']} ({result['format']}{', int8' if 'int8' in result else ''}, {result['bytes']:,} "
        "bytes)",
        f"student   {result['student']} of trial {result['trial_id']}",
        f"input     {_images_or_sentences(takes, result['pixels'])}",
        f"output    logits: float32 ({gives})" + (f" of {in_words(names)}" if names else ""),
    ]
    if "int8" in result:
        return "\n".join([*head, f"card      {result['card']}", "", *result["lines"]])
    batches = ", ".join(map(str, result["checked_batches"]))
    allowed = f"{result['tolerance']:g}"
    return "\n".join(
        [
            *head,
            f"checked   read back, on batches of {batches}: logits differ by at most "
            f"{result['largest_difference']:.1e} (allowed: {allowed} + {allowed} x |logit|)",
        ]
    )


def _images_or_sentences(takes: str, pixels: list[int] | None) -> str:
    if pixels is None:
        return f"sentences: int32 ({takes}), token ids and segment ids, as produced by the tokenizer.json in the file"
    return f"images: uint8 ({takes}), pixels {pixels[0]} to {pixels[1]}, not normalised"


if __name__ == "__main__":
    main()
