"""Write the `.ipynb` files of `analysis/notebooks/` from their scripts, with outputs on the recorded studies.

Usage: `python docs/run_notebooks.py [NUMBER ...]`, such as `python docs/run_notebooks.py 05`. Without a number, all
notebooks run.

Outputs hold neither times nor paths of the machine. Figures are PNGs of 256 colours at most, which keeps files small.
"""

import argparse
import base64
import io
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT: Final = Path(__file__).parents[1]
NOTEBOOKS: Final = ROOT / "analysis" / "notebooks"


def run_notebook(script: Path) -> nbformat.NotebookNode:
    """Return the notebook of a script, run in a Jupyter kernel, with the identifiers of cells that have one already.

    Args:
        script: notebook in the percent format of Jupytext.
    """
    notebook = nbformat.from_dict(jupytext.read(script))
    target = script.with_suffix(".ipynb")
    if target.is_file():
        known = {cell.source: cell.id for cell in nbformat.read(target, as_version=4).cells}
        for cell in notebook.cells:
            cell.id = known.get(cell.source, cell.id)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PESFKD_STUD")}
    # Optuna imports tqdm, which warns in notebooks if ipywidgets is not installed. No progress bar is shown here.
    environment = {**environment, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore:IProgress not found"}
    # An empty folder, so that the notebooks find the recorded studies alone.
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources, record_timing=False)
        client.execute(env=environment)
    notebook.metadata = nbformat.from_dict(
        {name: value for name, value in notebook.metadata.items() if name in ("jupytext", "kernelspec")}
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata = nbformat.from_dict({})
            cell.outputs = [clean(output) for output in cell.outputs]
    return notebook


def clean(output: Any) -> Any:
    """Return an output of a cell with small figures, and without a plain text that another format replaces.

    Raises:
        ValueError: the cell printed or warned, which a reader would not expect.
    """
    if output.output_type not in ("execute_result", "display_data"):
        raise ValueError(f"a cell has an output other than text or a figure: {output}")
    data = output.data
    if len(data) > 1:
        data.pop("text/plain", None)
    if "image/png" in data:
        data["image/png"] = base64.b64encode(small_png(base64.b64decode(data["image/png"]))).decode()
        output.metadata = nbformat.from_dict({})
    return output


def small_png(content: bytes) -> bytes:
    """Return a PNG with 256 colours at most."""
    written = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").quantize(256).save(written, "PNG", optimize=True)
    return written.getvalue()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="numbers of notebooks, such as 05")
    given = parser.parse_args()
    scripts = sorted(NOTEBOOKS.glob("*.py"))
    numbers = [script.stem[:2] for script in scripts]
    unknown = sorted(set(given.numbers) - set(numbers))
    if unknown:
        parser.error(f"no notebook has the number {unknown[0]}; there are {', '.join(numbers)}")
    for script, number in zip(scripts, numbers, strict=True):
        if not given.numbers or number in given.numbers:
            nbformat.write(run_notebook(script), script.with_suffix(".ipynb"))
            print(f"{script.stem}: {script.with_suffix('.ipynb').stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
