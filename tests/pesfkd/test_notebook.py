"""Studies in the kernel of a notebook."""

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.slow

CELLS = (
    "import pesfkd, threading",
    "study = pesfkd.run(space='adapter_width', trials=2, promising=1, replicates=1, epochs=2, name='here',"
    " executor='in-process')",
    "study",
    "study.report()",
    "other = pesfkd.run(space='adapter_width', smoke=True, name='on-ray')\nimport ray\nassert not ray.is_initialized()",
    "threading.Timer(4.0, lambda: __import__('os').kill(__import__('os').getpid(), 2)).start()\n"
    "try:\n    pesfkd.run(space='adapter_width', epochs=200, name='stopped', executor='in-process')\n"
    "except pesfkd.StudyInterrupted as stopped:\n    print(stopped)",
    "print(pesfkd.resume('stopped', time_budget=0.1).complete, other.complete)",
)


def test_a_study_shows_one_block_of_progress_and_its_tables_and_can_be_interrupted(tmp_path):
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    nbformat.validate(notebook)
    ran, shown, report, on_ray, stopped, resumed = (cell.outputs for cell in notebook.cells[1:])
    for outputs in (ran, on_ray):
        blocks = [each for each in outputs if each.output_type == "display_data"]
        assert len(blocks) == 1, outputs
        assert '<progress value="5" max="5"' in blocks[0].data["text/html"]
        assert "done; the study is in study_results" in blocks[0].data["text/plain"]
        assert [each.name for each in outputs if each.output_type == "stream" and each.name == "stdout"] == []
    assert "<table" in shown[0].data["text/html"]
    assert "<iframe srcdoc=" in report[0].data["text/html"]
    assert "pesfkd.resume('stopped')" in "".join(each.get("text", "") for each in stopped)
    assert "False True" in "".join(each.get("text", "") for each in resumed)
