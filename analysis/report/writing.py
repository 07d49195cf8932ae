"""From a study's folder to its page: what the command and the end of a study share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from analysis.importance import EvaluatorName
from analysis.report.content import make_report
from analysis.report.folder import read_folder
from analysis.report.page import write_page
from study.errors import StudyError

NAME: Final = "report.html"
EVALUATORS: Final[tuple[EvaluatorName, ...]] = ("PED-ANOVA", "fANOVA")


def write_report(directory: Path, out: Path | None = None, *, evaluators: Sequence[EvaluatorName] = EVALUATORS) -> Path:
    """Write the report of a study.

    Args:
        directory: the study's folder.
        out: the file; `report.html` in that folder if not given.
        evaluators: of the importance of parameters; fANOVA takes long.

    Returns:
        Where it is.

    Raises:
        StudyError: the folder's files are damaged, or the file cannot be written.
    """
    path = directory / NAME if out is None else out
    report = make_report(read_folder(directory), evaluators=evaluators)
    try:
        write_page(report, path)
    except OSError as error:
        raise StudyError(f"{path} cannot be written ({error.strerror}); name another file with --out") from None
    return path
