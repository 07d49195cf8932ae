"""Read a study folder: records, plan and summary, as far as they exist."""

import json
import shlex
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
_CHOSEN: Final = ("config_id", "label", "rank", "control", "winner", "bound", "search_score", "method", "searches")


@dataclass(frozen=True)
class Searched:
    """Parameter searched by a study, with bounds; implements `analysis.questions.searched.Dimension`.

    Args:
        name: config field.
        role: `scientific` or `nuisance`.
        low: smallest value; None for a categorical parameter.
        high: largest value; None for a categorical parameter.
        choices: values for a categorical parameter, else empty.
        log: whether the search sampled on a logarithmic scale.
    """

    name: str
    role: str
    low: float | None
    high: float | None
    choices: tuple[Any, ...]
    log: bool


@dataclass(frozen=True)
class StudyFolder:
    """Study folder contents.

    Args:
        directory: folder path.
        records: trials and epochs; empty if no trial has ended.
        plan: `plan.json` content; empty if there is none.
        summary: `summary.json` content, written at the end of a study; empty before.
    """

    directory: Path
    records: StudyRecords
    plan: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Study name, taken from the folder. The folder may have been renamed."""
        return self.directory.resolve().name

    @property
    def where(self) -> list[str]:
        """Arguments for the folder with all studies in a command; empty for the default."""
        return [] if self.directory.parent == Path("study_results") else ["--output-dir", str(self.directory.parent)]

    @property
    def command_words(self) -> list[str]:
        """Words of the start command in the summary; empty without one, or if it is not a shell command."""
        try:
            return shlex.split(str(self.summary.get("command") or ""))
        except ValueError:
            return []

    @property
    def space(self) -> str:
        """Search space name; empty if neither plan nor records contain it."""
        named = self.plan.get("space") or next(iter(self.records.trials["space"].to_pylist()), None)
        return str(named or "")

    @property
    def seed(self) -> int:
        """Study seed, also used for the intervals."""
        return int(self.plan.get("seed") or 0)

    @property
    def compares_methods(self) -> bool:
        """Whether the study compares methods rather than configs for one method."""
        return bool(self.plan.get("compared"))

    @property
    def searches_per_method(self) -> int:
        """Number of searches per method; 1 for any other study."""
        return int(self.plan.get("searches_per_method") or 1)

    @property
    def is_complete(self) -> bool | None:
        """Whether the study has run completely; None if unknown."""
        complete = self.summary.get("complete")
        return complete if isinstance(complete, bool) else None

    @property
    def has_journal(self) -> bool:
        """Whether the folder contains a journal. The study can then be resumed or confirmed."""
        return (self.directory / "journal.jsonl").is_file()

    @property
    def searched(self) -> tuple[Searched, ...]:
        """Searched parameters with bounds; empty for a comparison of methods, or without a summary."""
        parameters = [] if self.compares_methods else self.summary.get("searched", [])
        return tuple(
            Searched(each["name"], each["role"], each["low"], each["high"], tuple(each["choices"]), each["log"])
            for each in parameters
        )

    @property
    def chosen(self) -> Sequence[Mapping[str, Any]]:
        """Configs chosen for the confirmation; empty without one."""
        return [
            {name: each.get(name) for name in _CHOSEN}
            for each in self.summary.get("confirmation", {}).get("configs", [])
        ]

    @property
    def is_confirmed(self) -> bool:
        """Whether every confirmation trial has ended; the result is not examined earlier."""
        trials = self.summary.get("confirmation", {}).get("trials")
        if not trials:
            return False
        ended = sum(stage == "confirm" for stage in self.records.trials["stage"].to_pylist())
        return ended >= int(trials["planned"])

    def confirmation(self) -> ConfirmationResult | None:
        """Compute the confirmation result from the confirmation trials; None without one, or while it is running."""
        if not self.is_confirmed:
            return None
        baseline = BASELINE if self.compares_methods else None
        return summarise_confirmation(self.records.trials, self.chosen, baseline=baseline, seed=self.seed)


def find_folder(name: str, results: Path) -> Path:
    """Return the folder of the study with the given name.

    Raises:
        UsageError: there is no study with this name, or the folder is not a study.
    """
    if Path(name).name != name:
        raise UsageError(f"{name!r} is not the name of a study; give the folder of the studies with --output-dir")
    directory = results / name
    if _is_study(directory):
        return directory
    known = sorted(path.name for path in results.iterdir() if _is_study(path)) if results.is_dir() else []
    if directory.is_dir() and name not in ("", "."):
        raise UsageError(
            f"{directory} is not a study folder: it has neither plan.json nor records/; {_listed(known, results)}"
        )
    if not known:
        raise UsageError(
            f"there is no study {name!r} under {results}, and no other: give the folder of the studies with "
            "--output-dir"
        )
    near = get_close_matches(name, known, n=1)
    meant = f", did you mean {near[0]}" if near else ""
    raise UsageError(f"there is no study {name!r} under {results}{meant}; {_listed(known, results)}")


def _listed(known: Sequence[str], results: Path) -> str:
    if not known:
        return f"there is no study under {results}: give the folder of the studies with --output-dir"
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    return f"studies there: {', '.join(known[:_MOST_NAMED])}{more}"


def _is_study(directory: Path) -> bool:
    return (directory / "plan.json").is_file() or (directory / "records" / "trials").is_dir()


def read_folder(directory: Path) -> StudyFolder:
    """Read the data for a report.

    Raises:
        StudyError: a file is damaged.
    """
    try:
        records = open_study(directory)
    except FileNotFoundError:  # a planned study without an ended trial
        records = StudyRecords(TRIALS_SCHEMA.empty_table(), EPOCHS_SCHEMA.empty_table())
    except DamagedRecordsError as error:
        raise StudyError(str(error)) from None
    return StudyFolder(directory, records, _read_json(directory / "plan.json"), _read_json(directory / "summary.json"))


def _read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object; return an empty one if the file does not exist."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error}); restore it from a copy") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path} is damaged (it contains no JSON object); restore it from a copy")
    return content
