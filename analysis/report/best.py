"""Best config of a study as a line of options to copy."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.questions.methods import config_label
from analysis.reading.trials import ConfigSummary
from analysis.report.folder import StudyFolder


@dataclass(frozen=True)
class BestLine:
    """Best config.

    Args:
        about: name, and how the config was chosen.
        line: options of `python -m study.launch` to copy.
    """

    about: str
    line: str


def best_line(study: StudyFolder, rows: Sequence[ConfigSummary]) -> BestLine | None:
    """Return the best config: its options, if the summary has them, else its settings; None without any.

    Args:
        study: the study.
        rows: confirmed methods, or repeated configs.
    """
    best = study.summary.get("best")
    if best:
        return BestLine(f"Best config, by {best['chosen_by']}: {best['name']}", str(best["line"]))
    own = [each for each in rows if study.compares_methods or each.stage == "replicate"]
    if not own:
        return None
    row = max(own, key=lambda each: each.accuracy.value)
    settings = [f"--set {name}={value}" for name, value in row.varied.items() if value is not None]
    line = " ".join([f"--method {row.method.split('+')[0]}", *settings])
    return BestLine(f"Settings of the best config: {config_label(row)}", line)
