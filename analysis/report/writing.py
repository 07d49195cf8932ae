"""Write the report in a study folder; shared by the command line and the end of a study.

`folder` reads the study folder, `answer` states the result in a few sentences, and `tables`, `charts` and `pictures`
show it. `content` decides which sections exist, and `page` renders the file. All numbers are computed from the records.
The plan and the summary only provide the study settings.
"""

from pathlib import Path
from typing import Final

from analysis.report.content import make_report
from analysis.report.folder import read_folder
from analysis.report.page import write_page
from analysis.report.pictures import draw_all
from trainables.process.errors import StudyError

NAME: Final = "report.html"


def write_report(directory: Path, out: Path | None = None, *, thorough: bool = False) -> Path:
    """Write the report for a study.

    Args:
        directory: study folder.
        out: report path. Default: `report.html` in the study folder.
        thorough: include results with a run time of a minute or more; see `make_report`.

    Returns:
        Report path.

    Raises:
        StudyError: a file in the folder is damaged, or the report cannot be written.
    """
    path = directory / NAME if out is None else out
    report = make_report(read_folder(directory), thorough=thorough)
    draw_all([picture for section in report.sections for picture in section.pictures])
    try:
        write_page(report, path)
    except OSError as error:
        raise StudyError(f"{path} cannot be written ({error.strerror}); name another file with --out") from None
    return path
