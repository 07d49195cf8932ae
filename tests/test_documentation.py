"""Every code block of the documentation is run by a test, or has the reason why not."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study.launch import main as launcher
from tests.doc_blocks import PAGES, ROOT, TUTORIALS, blocks

# Pages whose blocks a test of their own runs in full.
TESTED = {
    "docs/how_to/python.md": "tests/pesfkd/test_documents.py",
    "docs/how_to/own_bounds.md": "tests/study/cli/test_own_bounds_doc.py",
    "docs/how_to/own_method.md": "tests/study/cli/test_own_method_doc.py",
    "docs/how_to/own_data.md": "tests/study/test_own_data_study.py",
    "docs/how_to/own_model.md": "tests/study/test_own_model_study.py",
    "docs/how_to/deploy.md": "tests/study/cli/test_deploy_doc.py",
    "docs/reference/config_file.md": "tests/test_documentation.py",
    **{f"docs/tutorials/{name}.md": "tests/test_tutorials.py" for name in TUTORIALS},
}
# Commands that tests/test_doc_commands.py runs, or that only have to exist.
UNDERSTOOD = re.compile(
    r"python -m (study\.(launch|confirm|power|export|rerun|sync|cluster_files)|trainables\.teacher|analysis\.report)\b"
    r"|make [a-z-]+$|python benchmarks/\w+\.py|optuna-dashboard |PESFKD_STUD\w+=.* jupyter lab "
    r"|\.venv/bin/python -m pytest"
)


def test_every_block_is_run_or_has_a_reason():
    found = list(blocks())
    assert len(found) > 60
    open_ends = []
    for block in found:
        if block.kind.startswith("{") or block.kind == "text" or block.page in TESTED:
            continue
        if block.reason:
            assert len(block.reason) > 20, block
            continue
        if block.kind == "console":
            open_ends += [(block.page, each) for each in block.commands if not UNDERSTOOD.match(each)]
        elif block.kind == "python":
            if not any(
                text in block.text for text in ("pesfkd.open", "pool_studies", "pesfkd.run", "METHOD", "Method")
            ):
                open_ends.append((block.page, block.text))
        else:
            open_ends.append((block.page, block.kind))
    assert open_ends == []


def test_tests_of_pages_exist_and_name_them():
    for page, test in TESTED.items():
        assert (ROOT / page).is_file()
        text = (ROOT / test).read_text(encoding="utf-8")
        assert Path(page).name in text or Path(page).stem in text or "TUTORIALS" in text, page


def test_the_readme_is_short_and_its_picture_small():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 150
    assert (ROOT / "docs" / "images" / "report.png").stat().st_size < 200_000


def test_files_that_pages_link_to_exist():
    """Sphinx checks the links of its pages. Those of README and CONTRIBUTING are read without it."""
    for page in PAGES[:2]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://arxiv.org/") or (ROOT / target).exists(), (page.name, target)


def test_files_that_pages_name_exist():
    """The example of a new method is excepted; a test of its own runs it."""
    # The table of statistics has paths inside `analysis/`, which tests/test_docs.py checks.
    pages = [page for page in PAGES if page.name != "tests.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z0-9_]+\.(?:py|md|toml))`", text))
    named -= {"trainables/methods/logit_matching.py"}
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_labels_of_the_first_output_are_those_of_a_study(in_process_study_run):
    from study.result import terminal

    block = next(each for each in blocks() if each.page == "README.md" and each.kind == "text")
    source = Path(terminal.__file__).read_text(encoding="utf-8")
    for label in ("records", "report"):
        assert any(line.startswith(label) for line in block.text.splitlines())
        assert label in source
    assert in_process_study_run.summary["question"] in block.text


def test_citation_and_version_agree():
    from study import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == __version__
    assert f"\n## {__version__} - {citation['date-released']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.study
def test_a_config_file_is_printed_and_read(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = (each for each in blocks() if each.page == "docs/reference/config_file.md" and each.kind == "console")
    first, second = (shlex.split(each)[3:] for each in block.commands)
    assert first[-2] == ">"
    Path(first[-1]).write_text(command(launcher, *first[:-2]).out, encoding="utf-8")
    done = command(launcher, *second)
    assert done.code == 0, done.said
    assert "12 trials" in done.out or "12" in done.out


@pytest.mark.study
def test_generated_pages_have_every_method_option_column_and_measure(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import generated_pages

    from study.plan.options import OPTIONS
    from study.records import SCHEMAS
    from trainables.spec.measures import MEASURES
    from trainables.spec.methods import METHOD_SPECS

    generated_pages.write_pages(tmp_path)
    for name, spec in METHOD_SPECS.items():
        page = (tmp_path / "methods" / f"{name}.md").read_text(encoding="utf-8")
        assert all(f"| `{field}` |" in page for field in spec.settings.model_fields)
        assert "## Formula\n\nCompute" in page or name in ("ce", "sftn"), name
    commands = (tmp_path / "command_line.md").read_text(encoding="utf-8")
    given = [option for option in OPTIONS.values() if option.name != "resume"]
    assert [each.long_flag for each in given if f"`{each.long_flag}`" not in commands] == []
    records = (tmp_path / "records.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in records for schema in SCHEMAS.values() for name in schema.names)
    measures = (tmp_path / "measures.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in measures for name in MEASURES)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[nothing](nowhere.md)", "[nothing](#nowhere)", "```{toctree}\nnowhere\n```"])
def test_a_broken_link_fails_the_build(text, tmp_path):
    source = tmp_path / "docs"
    source.mkdir()
    conf = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    # The same configuration, without generated pages, to save time.
    conf = re.sub(r"^(from generated_pages|write_pages).*\n", "", conf, flags=re.MULTILINE)
    (source / "conf.py").write_text(conf, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "_static", source / "_static")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.search(r"-m (sphinx .*) docs build/docs", makefile)
    for content, code in (("# Home\n", 0), (f"# Home\n\n{text}\n", 1)):
        (source / "index.md").write_text(content, encoding="utf-8")
        command = [sys.executable, "-m", *options[1].split(), str(source), str(tmp_path / "built")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
