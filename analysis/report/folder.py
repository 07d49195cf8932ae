"""A study's folder, read: its records, its plan and its summary, as far as they are there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from analysis.questions.confirmation import ConfirmationResult, summarise_confirmation
from analysis.reading.trials import BASELINE, StudyRecords, open_study
from study.records import EPOCHS_SCHEMA, TRIALS_SCHEMA, DamagedRecordsError
from trainables.process.errors import StudyError, UsageError

_MOST_NAMED: Final = 8
_CHOSEN: Final = ("config_id", "label", "rank", "control", "winner", "bound", "search_score")


@dataclass(frozen=True)
class Searched:
    """A parameter that a study searched, with its bounds: a `analysis.questions.importance.Dimension`.

    Args:
        name: field of the config.
        role: `scientific` or `nuisance`.
        low: smallest value; None for choices.
        high: largest value.
        choices: of a categorical one, else empty.
        log: whether its logarithm was searched evenly.
    """

    name: str
    role: str
    low: float | None
    high: float | None
    choices: tuple[Any, ...]
    log: bool


@dataclass(frozen=True)
class StudyFolder:
    """What a study left behind.

    Args:
        directory: its folder.
        records: its trials and epochs; empty where none has ended.
        plan: `plan.json`; empty where there is none.
        summary: `summary.json`, which a study writes at its end; empty before.
    """

    directory: Path
    records: StudyRecords
    plan: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The study's name: that of its folder, which may have been renamed."""
        return self.directory.resolve().name

    @property
    def space(self) -> str:
        """The name of its space; nothing where neither plan nor records tell."""
        named = self.plan.get("space") or next(iter(self.records.trials["space"].to_pylist()), None)
        return str(named or "")

    @property
    def seed(self) -> int:
        """The study's seed, which its intervals are drawn with as well."""
        return int(self.plan.get("seed") or 0)

    @property
    def compares_methods(self) -> bool:
        """Whether methods are compared, and not configs of one."""
        return bool(self.plan.get("compared"))

    @property
    def is_complete(self) -> bool | None:
        """Whether all of it has run; None where that is not known."""
        complete = self.summary.get("complete")
        return complete if isinstance(complete, bool) else None

    @property
    def has_journal(self) -> bool:
        """Whether it can be gone on with, or confirmed, from this folder."""
        return (self.directory / "journal.jsonl").is_file()

    @property
    def searched(self) -> tuple[Searched, ...]:
        """What was searched, with its bounds; nothing of a study that compares methods, or before a summary."""
        parameters = [] if self.compares_methods else self.summary.get("searched", [])
        return tuple(
            Searched(each["name"], each["role"], each["low"], each["high"], tuple(each["choices"]), each["log"])
            for each in parameters
        )

    @property
    def chosen(self) -> Sequence[Mapping[str, Any]]:
        """The configs of its confirmation, as they were chosen; none without one."""
        return [
            {name: each.get(name) for name in _CHOSEN}
            for each in self.summary.get("confirmation", {}).get("configs", [])
        ]

    @property
    def is_confirmed(self) -> bool:
        """Whether every trial of its confirmation has ended: before, its result is not looked at."""
        trials = self.summary.get("confirmation", {}).get("trials")
        if not trials:
            return False
        ended = sum(stage == "confirm" for stage in self.records.trials["stage"].to_pylist())
        return ended >= int(trials["planned"])

    def confirmation(self) -> ConfirmationResult | None:
        """What the confirmation found, from its trials; None without one, or while it is under way."""
        if not self.is_confirmed:
            return None
        baseline = BASELINE if self.compares_methods else None
        return summarise_confirmation(self.records.trials, self.chosen, baseline=baseline, seed=self.seed)


def find_folder(name: str, results: Path) -> Path:
    """The folder of the study of that name.

    Raises:
        UsageError: there is none, or what is there is no study.
    """
    if Path(name).name != name:
        raise UsageError(f"{name!r} is not the name of a study; --output-dir names the folder that it lies in")
    directory = results / name
    if _is_study(directory):
        return directory
    known = sorted(path.name for path in results.iterdir() if _is_study(path)) if results.is_dir() else []
    if directory.is_dir() and name not in ("", "."):
        raise UsageError(
            f"{directory} is not a study's folder: it has neither plan.json nor records/; {_listed(known, results)}"
        )
    near = get_close_matches(name, known, n=1)
    meant = f", did you mean {near[0]}" if near else ""
    raise UsageError(f"there is no study {name!r} under {results}{meant}; {_listed(known, results)}")


def _listed(known: Sequence[str], results: Path) -> str:
    if not known:
        return f"there is no study under {results}: give --output-dir, the folder that holds the studies"
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    return f"studies there: {', '.join(known[:_MOST_NAMED])}{more}"


def _is_study(directory: Path) -> bool:
    return (directory / "plan.json").is_file() or (directory / "records" / "trials").is_dir()


def read_folder(directory: Path) -> StudyFolder:
    """Everything that a report is made of.

    Raises:
        StudyError: a file is damaged.
    """
    try:
        records = open_study(directory)
    except FileNotFoundError:  # a study that was planned, and of which no trial has ended
        records = StudyRecords(TRIALS_SCHEMA.empty_table(), EPOCHS_SCHEMA.empty_table())
    except DamagedRecordsError as error:
        raise StudyError(str(error)) from None
    return StudyFolder(directory, records, _read_json(directory / "plan.json"), _read_json(directory / "summary.json"))


def _read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty where there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error}); restore it from a copy") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path} is damaged (it holds no JSON object); restore it from a copy")
    return content
