"""The notebooks run from top to bottom and agree with the records. Both files of a notebook have the same content.

One notebook runs in a separate Jupyter kernel, which takes seconds to start. The cells of all notebooks run in this
process (`notebook_cells`), on the records shipped with the package and on those of a real small study.
"""

import ast
import base64
import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import numpy as np
import pyarrow as pa
import pytest
from IPython.core.pylabtools import print_figure
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.text import Text
from nbclient import NotebookClient
from PIL import Image

import analysis
from analysis.figures.drawing import new_figure
from analysis.questions.association import gap_associations
from analysis.questions.intervention import imposed_gaps
from analysis.questions.mediation import gap_mediation
from analysis.questions.parameters import parameter_associations
from analysis.reading.pooling import compare_within_studies, distinct_runs, pool_studies
from analysis.reading.trials import EXAMPLES, open_study, summarise_configs
from analysis.statistics.estimates import holm
from analysis.wording.sentences import quoted, quoted_points
from study.launch import main as launch_main
from tests.analysis.notebooks.notebook_cells import figures, prose, run_cells
from tests.analysis.planted import imposed, measured, records, searched
from tests.analysis.synthetic import trial, whole_study, write_records
from tests.conftest import S3, Said

pytestmark = pytest.mark.study

NOTEBOOKS = Path(analysis.__file__).parent / "notebooks"
SCRIPTS = sorted(NOTEBOOKS.glob("*.py"))
FIRST_LOOK, WIDTH, TEMPERATURE, GAP, METHODS, MANY = SCRIPTS


def ran(script: Path, monkeypatch: pytest.MonkeyPatch, study: Path | None = None) -> list[Any]:
    if study is not None:
        monkeypatch.setenv("PESFKD_STUDIES" if script == MANY else "PESFKD_STUDY", str(study))
    return run_cells(script, monkeypatch)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[Any]]:
    """Return a function that returns the outputs of a notebook on the shipped records. Each notebook runs once."""

    @cache
    def shown(script: Path) -> list[Any]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name in ("PESFKD_STUDY", "PESFKD_STUDIES"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.chdir(tmp_path_factory.mktemp("anywhere"))
            return run_cells(script, monkeypatch)

    return shown


REWRITE = "`make notebooks` writes the .ipynb files again"
SAME = 24  # grey levels, of 255


def stored(script: Path) -> nbformat.NotebookNode:
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def outputs_of(notebook: nbformat.NotebookNode) -> list[Any]:
    return [output["data"] for cell in notebook.cells for output in cell.get("outputs", [])]


def png(figure: Figure) -> bytes:
    """Draw a figure as a notebook does."""
    content = print_figure(figure, fmt="png", base64=False)
    assert isinstance(content, bytes)
    return content


def distance(first: bytes, second: bytes) -> float:
    """Return the largest difference of two images in grey levels, averaged over squares of 4 x 4 pixels.

    The average ignores rounding of edges and the 256 colours of stored images. Different sizes give infinity.
    """
    images = [Image.open(io.BytesIO(each)).convert("L") for each in (first, second)]
    if images[0].size != images[1].size:
        return math.inf
    small = [np.asarray(each.reduce(4), dtype=np.float64) for each in images]
    return float(np.abs(small[0] - small[1]).max())


def checked_text(shown: list[Any]) -> str:
    """Return the text of the outputs. Fail if it contains nan, None or a Python representation."""
    text = prose(shown)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b|Estimate\(|<function|[{}]", text), text
    assert all(figure.get_supxlabel() for figure in figures(shown))
    return text


def test_the_first_look_runs_in_a_kernel_of_its_own_on_a_real_study(
    in_process_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PESFKD_STUDY", str(in_process_study))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parents[1]))
    # The user's matplotlibrc or a missing display must not matter.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(FIRST_LOOK.with_suffix(".ipynb"), as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in data for data in shown) == 4
    assert any(in_process_study.name in data.get("text/markdown", "") for data in shown)


def test_the_first_look_shows_four_figures_the_table_and_the_correlation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "invented", *whole_study())
    shown = ran(FIRST_LOOK, monkeypatch, tmp_path / "invented")
    assert len(figures(shown)) == 4
    text = prose(shown)
    assert "**invented**" in text
    assert "49 trials recorded, 24 of them in the search" in text
    assert "| kd (config-kd) |" in text
    assert "exploratory: −0." in text


@pytest.mark.parametrize(("number", "drawn"), [("01", 4), ("02", 2), ("03", 3), ("04", 3), ("05", 3), ("06", 3)])
def test_every_notebook_says_and_draws_something_of_the_shipped_records(
    number: str, drawn: int, shipped: Callable[[Path], list[Any]]
) -> None:
    (script,) = NOTEBOOKS.glob(f"{number}_*.py")
    shown = shipped(script)
    assert "fashion-" in checked_text(shown)
    assert len(figures(shown)) == drawn


@pytest.mark.parametrize("script", [WIDTH, GAP, METHODS, MANY], ids=lambda script: script.stem)
def test_a_small_study_of_ones_own_is_enough_for_every_question_that_it_asked(
    script: Path, in_process_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = checked_text(ran(script, monkeypatch, in_process_study))
    assert in_process_study.name in text
    assert "too few" in text or script == METHODS


def test_a_study_that_did_not_vary_what_is_asked_of_is_refused_with_what_it_varied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="it varied adapter_width, adapter_learning_rate"):
        ran(TEMPERATURE, monkeypatch, EXAMPLES / "fashion-adapter_width")


def test_what_is_said_of_the_width_is_what_the_records_give(shipped: Callable[[Path], list[Any]]) -> None:
    text = prose(shipped(WIDTH))
    study = open_study(EXAMPLES / "fashion-adapter_width")
    found = [each.estimate for each in parameter_associations(study, ["adapter_width"])]
    p_values = holm([each.p_value or 1 for each in found])
    for estimate, p_value in zip(found, p_values, strict=True):
        assert quoted(estimate, corrected_p=p_value) in text
    assert quoted_points(gap_mediation(study, "adapter_width", "centred").total, digits=2) in text
    for summary in summarise_configs(study.trials):
        assert summary.config_id in text


@pytest.mark.parametrize(("effect", "said"), [(0.02, "better"), (-0.02, "worse")])
def test_the_prose_follows_what_was_planted(
    effect: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = searched(np.random.default_rng(1), 24, width_on_accuracy=effect, noise=0.005)
    write_records(tmp_path / "planted", planted.trials, planted.epochs)
    text = checked_text(ran(WIDTH, monkeypatch, tmp_path / "planted"))
    assert f"wider adapters went with {said} students" in text
    assert "No config was repeated on fresh seeds" in text


def test_what_is_said_of_the_gap_is_what_the_records_give(shipped: Callable[[Path], list[Any]]) -> None:
    text = prose(shipped(GAP))
    study = open_study(EXAMPLES / "fashion-temperature")
    wanted = ("centred", "exploratory", ("adapter_learning_rate",))
    named = [each for each in gap_associations(study) if (each.gap, each.evidence, each.held) == wanted]
    assert text.count(quoted(named[0].estimate)) == 3
    for arm in imposed_gaps(open_study(EXAMPLES / "fashion-gap")):
        assert (
            f"- **{arm.control}** ({arm.evidence}): one nat of target changes accuracy by {quoted_points(arm.effect)}"
            in text
        )
        assert quoted(arm.reached) in text


def test_a_study_that_only_watched_the_gap_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the gap was not imposed in this study" in prose(ran(GAP, monkeypatch, EXAMPLES / "fashion-temperature"))


def test_an_imposed_gap_is_spoken_of_as_an_effect_and_its_placebo_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = imposed(np.random.default_rng(3), 30, centred=-1.5, placebo=0.0)
    write_records(tmp_path / "imposed", study.trials, study.epochs)
    shown = ran(GAP, monkeypatch, tmp_path / "imposed")
    text = checked_text(shown)
    assert len(figures(shown)) == 3
    (centred,) = set(re.findall(r"- \*\*centred\*\*.*", text))
    (placebo,) = set(re.findall(r"- \*\*placebo\*\*.*", text))
    assert "a smaller gap made better students" in centred
    assert "no clear effect" in placebo
    assert "the gap was not imposed" not in text


def test_methods_are_compared_in_accuracy_and_in_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, generator = [], np.random.default_rng(4)
    for method, mean, flops in (("ce", 0.6, 30.0), ("kd", 0.7, 36.0), ("dkd", 0.8, 36.0), ("at", 0.65, 99.0)):
        flops_of = {"cost/step_flops": flops, "cost/forward_flops_student": 10.0, "cost/backward_flops_student": 20.0}
        for replicate in range(1, 9):
            config = {"stage": "control", "method": method, "config_id": method, "name": f"{method}-s{replicate}"}
            accuracy = mean + 0.01 * generator.normal()
            rows.append(
                trial(len(rows), epochs=1, replicate=replicate, **config, **flops_of, **measured(0.1, accuracy))
            )
    methods = records(rows)
    write_records(tmp_path / "methods", methods.trials, methods.epochs)
    shown = ran(METHODS, monkeypatch, tmp_path / "methods")
    text = checked_text(shown)
    assert len(figures(shown)) == 3
    assert "The study has no search." in text
    assert "Of the 4 methods with known costs, ce and dkd are on the front" in text
    assert "one is clearly better than kd and 2 are clearly worse" in text
    assert "The highest mean accuracy is that of dkd, 79.6%" in text


def test_a_real_comparison_of_methods_is_read(
    output_dir: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(
        launch_main, "--space", "method", "--methods", "ce,kd,dist+adapter", "--replicates", "2", "--epochs", "2",
        "--name", "read-methods", "--output-dir", output_dir, "--executor", "in-process",
    )  # fmt: skip
    assert done.code == 0, done.err
    shown = ran(METHODS, monkeypatch, output_dir / "read-methods")
    text = checked_text(shown)
    assert len(figures(shown)) == 3
    assert "| dist+adapter | 2 |" in text
    assert "Of the 3 methods with known costs" in text


def test_what_is_said_of_many_studies_is_what_the_records_give(shipped: Callable[[Path], list[Any]]) -> None:
    text = prose(shipped(MANY))
    pool = pool_studies([EXAMPLES / f"fashion-{space}" for space in ("adapter_width", "joint", "temperature")])
    once = distinct_runs(pool)
    assert f"3 studies have {pool.trials.num_rows} trials" in text
    assert f"so {once.trials.num_rows} runs count" in text
    for _, summary in compare_within_studies(pool):
        assert summary.against_baseline is not None
        assert quoted_points(summary.against_baseline, corrected_p=summary.corrected_p) in text


def test_many_studies_are_read_from_an_object_store(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.new_bucket()
    for path in EXAMPLES.rglob("*.parquet"):
        s3.put(bucket, path.relative_to(EXAMPLES).as_posix(), path.read_bytes())
    studies = [s3.uri(f"{bucket}/fashion-{name}") for name in ("temperature", "joint")]
    monkeypatch.setenv("PESFKD_STUDIES", " ".join(studies))
    text = checked_text(run_cells(MANY, monkeypatch))
    assert "2 studies have 64 trials. 10 of them repeat a run of another study" in text


@pytest.fixture(scope="module")
def cola(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded study as if its task were CoLA, with Matthews correlations for accuracies."""
    folder = tmp_path_factory.mktemp("studies") / "planted"
    study = open_study(EXAMPLES / "fashion-joint")
    trials = study.trials.drop_columns(["dataset", "val/matthews"])
    trials = trials.append_column("dataset", pa.array(["glue:cola"] * trials.num_rows))
    trials = trials.append_column("val/matthews", trials["val/accuracy"])
    epochs = study.epochs.drop_columns(["val/matthews"]).append_column("val/matthews", study.epochs["val/accuracy"])
    write_records(folder, trials, epochs)
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_names_the_objective_of_the_task(script: Path, cola: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ran(script, monkeypatch, cola)
    words = [each.get_text() for figure in figures(shown) for each in figure.findobj(Text)]
    said = "\n".join([checked_text(shown), *words]).replace(GAP.stem, "")
    assert "Matthews correlation" in said
    assert re.findall(r".*accurac.*", said, flags=re.IGNORECASE) == []


def test_studies_of_other_data_are_not_compared_by_their_accuracies(
    in_process_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PESFKD_STUDIES", f"{EXAMPLES / 'fashion-joint'} {in_process_study}")
    text = prose(run_cells(MANY, monkeypatch))
    assert "**The studies differ in dataset (fashion-joint: fashion_mnist, small: digits)" in text


@pytest.mark.launcher
def test_the_notebooks_need_neither_torch_nor_ray_nor_mlflow() -> None:
    imports = [
        ast.unparse(node)
        for script in SCRIPTS
        for cell in jupytext.read(script).cells
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse("\n".join(line for line in cell.source.splitlines() if line[:1] != "%")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    check = "import sys; print(sorted({'torch', 'ray', 'mlflow', 'torchvision'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOKS.parents[1])}
    command = [sys.executable, "-c", "\n".join([*imports, check])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert len(imports) > 30
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_is_its_script(script: Path) -> None:
    read, notebook = jupytext.read(script), stored(script)
    sources = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (read, notebook)]
    assert sources[0] == sources[1], REWRITE
    assert notebook.metadata["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_stored_outputs_are_those_of_the_shipped_records(script: Path, shipped: Callable[[Path], list[Any]]) -> None:
    shown, outputs = shipped(script), outputs_of(stored(script))
    texts = [data["text/markdown"] for data in outputs if "text/markdown" in data]
    assert texts == [each.data for each in shown if isinstance(each, Markdown)], REWRITE
    pictures = [data["image/png"] for data in outputs if "image/png" in data]
    drawn = [png(figure) for figure in figures(shown)]
    assert len(outputs) == len(texts) + len(pictures) == len(shown)
    distances = [distance(base64.b64decode(old), new) for old, new in zip(pictures, drawn, strict=True)]
    assert max(distances) < SAME, f"{distances}; {REWRITE}"


def test_a_figure_of_other_data_counts_as_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 24 points moves by a twentieth of the axis, or the caption has another number."""
    monkeypatch.syspath_prepend(str(NOTEBOOKS.parents[1] / "docs"))
    from run_notebooks import small_png

    images = []
    for moved, caption in ((0.0, "n = 24"), (0.05, "n = 24"), (0.0, "n = 25")):
        figure, (axes,) = new_figure("Points", caption)
        heights = np.linspace(0.0, 1.0, 24)
        heights[11] += moved
        axes.plot(heights, "o")
        images.append(png(figure))
    assert distance(images[0], images[0]) == 0
    assert min(distance(images[0], other) for other in images[1:]) > SAME
    assert distance(small_png(images[0]), images[0]) < SAME


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_stored_outputs_are_small_and_tell_nothing_of_the_machine(script: Path) -> None:
    assert script.with_suffix(".ipynb").stat().st_size < 500_000
    notebook = stored(script)
    assert set(notebook.metadata) == {"jupytext", "kernelspec"}
    assert not any(cell.metadata for cell in notebook.cells)
    assert not re.search(
        r"(?<![\w.])/[a-z]+/\w", "\n".join(data.get("text/markdown", "") for data in outputs_of(notebook))
    )
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        assert output["output_type"] in ("execute_result", "display_data")
        assert not output["metadata"]


def test_every_notebook_has_both_files_and_all_of_them_are_tested() -> None:
    assert [script.stem for script in SCRIPTS] == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    assert [script.stem[:2] for script in SCRIPTS] == ["01", "02", "03", "04", "05", "06"]
