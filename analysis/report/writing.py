"""From a study's folder to its page: what the command and the end of a study share.

`folder` reads a study's folder, `answer` says in two sentences what was found, `tables`, `charts` and `pictures` show
it, `content` decides which section there is, and `page` makes the file. Every number is worked out from the records;
the plan and the summary only say what was asked for.
"""

from pathlib import Path
from typing import Final

from analysis.report.content import make_report
from analysis.report.folder import read_folder
from analysis.report.page import write_page
from trainables.process.errors import StudyError

NAME: Final = "report.html"


def write_report(directory: Path, out: Path | None = None, *, thorough: bool = False) -> Path:
    """Write the report of a study.

    Args:
        directory: the study's folder.
        out: the file; `report.html` in that folder if not given.
        thorough: with what takes a minute or more; see `make_report`.

    Returns:
        Where it is.

    Raises:
        StudyError: the folder's files are damaged, or the file cannot be written.
    """
    path = directory / NAME if out is None else out
    report = make_report(read_folder(directory), thorough=thorough)
    try:
        write_page(report, path)
    except OSError as error:
        raise StudyError(f"{path} cannot be written ({error.strerror}); name another file with --out") from None
    return path
