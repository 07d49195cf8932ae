"""Earlier studies for the start of a search: `--warm-start NAME`.

If the question is the same, the sampler gets the trials with their values. The question is the same if the config
identifiers, the data and the teacher's normalisation are equal. From other studies, the best configs are proposed
first, and their values are not used.

The study keeps the trials in `warm_start.json`, so a resume depends on no other study. The plan contains a digest of
these trials.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field

from study.plan.folder import WARM_START_FILE
from study.plan.options import OPTIONS
from trainables.display.numbers import counted, listed
from trainables.process.errors import StudyError, UsageError
from trainables.spec.digest import digest_of
from trainables.storage.files import replace_file

FLAG: Final = OPTIONS["warm_start"].long_flag
# Samplers that use no results, with the reason.
DEAF: Final = {"random": "ignores all results", "qmc": "ignores all results"}
_MOST_DIFFERENCES: Final = 3

# Trials taken by this process, by digest, until a study keeps them.
_taken: dict[str, list[dict[str, Any]]] = {}


class EarlierStudy(BaseModel):
    """Study from which a search starts.

    Args:
        place: study name or folder, as in `--warm-start`.
        name: study name.
        study_id: study identifier.
        digest: digest of the trials given to the sampler with their values.
        dataset_digest: digest of the study's data; None if not recorded.
        used: number of trials given to the sampler with their values.
        left_out: number of other ended search trials in the study.
        first: points to propose first, best first. The sampler chooses the fields missing in a point.
        differences: reasons for not using values, in words; empty if some are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    place: str
    name: str
    study_id: str
    digest: str
    dataset_digest: str | None
    used: int = Field(ge=0, le=1_000_000)
    left_out: int = Field(0, ge=0, le=1_000_000)
    first: tuple[dict[str, bool | int | float | str], ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The study as in `--warm-start`."""
        return self.place

    @property
    def words(self) -> str:
        """Description of the trials or points that the search takes from the study."""
        if self.used:
            others = f"; {self.left_out} of another question are left out" if self.left_out else ""
            return f"{counted(self.used, 'trial')} of {self.name} with their values{others}"
        shown = list(self.differences[:_MOST_DIFFERENCES])
        shown += [f"{len(self.differences) - len(shown)} more"] if len(self.differences) > len(shown) else []
        configs = "the best config" if len(self.first) == 1 else f"the {len(self.first)} best configs"
        return f"{configs} of {self.name} are proposed first; values are not used: {listed(shown)}"


class WarmStartedPlan(Protocol):
    """Study plan with the attributes needed here; implemented by `study.plan.plan.StudyPlan`."""

    @property
    def name(self) -> str:
        """Study name."""

    @property
    def warm_start(self) -> tuple[EarlierStudy, ...]:
        """Earlier studies."""


def places_in(given: str) -> list[str]:
    """Return the studies in an argument of `--warm-start`: names, or absolute folders.

    Raises:
        UsageError: a study is missing between commas.
    """
    places = [place.strip() for place in given.split(",")]
    if not all(places):
        raise UsageError(f"{FLAG} {given!r}: give the name or the folder of a study, or several with commas")
    return [str(Path(place).expanduser().absolute()) if is_folder(place) else place for place in places]


def is_folder(place: str) -> bool:
    """Return whether a study is given by its folder, not by its name in the output folder."""
    return "/" in place or place.startswith("~")


def remember_trials(trials: Sequence[Mapping[str, Any]]) -> str:
    """Keep trials in this process, and return a digest of them."""
    content = json.loads(json.dumps(list(trials)))
    digest = digest_of({"trials": content})
    _taken[digest] = content
    return digest


def earlier_trials(earlier: Sequence[EarlierStudy], directory: Path) -> list[dict[str, Any]]:
    """Return the trials given to the sampler with their values, oldest study first.

    Args:
        earlier: earlier studies.
        directory: folder of the study starting from them.

    Raises:
        StudyError: `warm_start.json` is missing or was changed.
    """
    if all(each.digest in _taken for each in earlier):
        return [trial for each in earlier for trial in _taken[each.digest]]
    path = directory / WARM_START_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [remember_trials(content[each.study_id]) for each in earlier]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StudyError(f"{path} cannot be read ({error}): restore it from a copy") from None
    for each, digest in zip(earlier, found, strict=True):
        if digest != each.digest:
            raise StudyError(
                f"{path} has other trials of {each.name} than the study began with (digest {digest}, not "
                f"{each.digest}): restore it from a copy"
            )
    return [trial for digest in found for trial in _taken[digest]]


def keep_earlier_trials(earlier: Sequence[EarlierStudy], directory: Path) -> None:
    """Write the earlier studies' trials to a new study's folder. Write nothing without earlier studies.

    Raises:
        OSError: the file cannot be written.
    """
    if earlier:
        content = {each.study_id: _taken[each.digest] for each in earlier}
        replace_file(directory / WARM_START_FILE, (json.dumps(content) + "\n").encode(), durable=True)


def warm_start_notes(earlier: Sequence[EarlierStudy]) -> list[str]:
    """Return sentences on earlier studies, for tables and reports; none without them."""
    if not earlier:
        return []
    return [
        *(f"The search started from an earlier study: {each.words}." for each in earlier),
        "Trials of earlier studies are in no table, figure or mean of this one.",
    ]


def check_same_earlier(plan: WarmStartedPlan, given: str | None) -> None:
    """Check that a resume names the same earlier studies as the plan, or none.

    Raises:
        UsageError: other studies are named.
    """
    own = [each.place for each in plan.warm_start]
    if given is not None and places_in(given) != own:
        began = f"started from {', '.join(own)}" if own else "started from no other study"
        raise UsageError(
            f"{FLAG} {given}: study {plan.name!r} {began}, and cannot be resumed with others: leave out {FLAG}, or "
            "start a new study under another name"
        )
