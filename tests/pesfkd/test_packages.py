"""Our packages are found, whatever modules of the same names lie in the user's folder."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from trainables.process import packages
from trainables.process.packages import OWN, OwnPackages, use_own_packages

ROOT = Path(__file__).parents[2]
# Each of ours, as a module that fails when it is imported.
BROKEN = "raise RuntimeError('the file in the working directory was imported')\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("study", "analysis", "search_spaces", "trainables"):
        (tmp_path / f"{name}.py").write_text(BROKEN)
    return tmp_path


def python(folder, *arguments, code=0, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def test_every_package_is_found_next_to_this_one():
    finder = OwnPackages(ROOT)
    for name in OWN:
        assert finder.find_spec(name).origin == str(ROOT / name / "__init__.py")
    assert finder.find_spec("study.launch", ["anywhere"]) is None
    assert finder.find_spec("numpy") is None
    assert OwnPackages(ROOT / "docs").find_spec("study") is None


def test_a_module_of_the_same_name_that_is_loaded_already_is_refused(monkeypatch):
    other = ModuleType("analysis")
    other.__file__ = "/home/analysis.py"
    monkeypatch.setattr(sys, "meta_path", [each for each in sys.meta_path if not isinstance(each, OwnPackages)])
    monkeypatch.setitem(sys.modules, "analysis", other)
    with pytest.raises(ImportError, match=r"a package 'analysis'.*/home/analysis.py: import pesfkd before it"):
        use_own_packages()
    monkeypatch.delitem(sys.modules, "analysis")
    use_own_packages()
    use_own_packages()
    assert sum(isinstance(each, packages.OwnPackages) for each in sys.meta_path) == 1


@pytest.mark.launcher
def test_a_script_with_the_name_of_a_package_runs(folder):
    (folder / "study.py").write_text("import pesfkd\nprint(pesfkd.plan(space='joint', trials=3).facts['trials'])\n")
    assert int(python(folder, "study.py").stdout) == 63


@pytest.mark.launcher
def test_the_program_and_modules_that_python_finds_run_beside_such_files(folder):
    program = Path(sys.executable).with_name("pesfkd")
    done = subprocess.run([program, "run", "-h"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Python looks in the working directory for the module of -m. With -P it does not.
    assert "the file in the working directory" in python(folder, "-m", "study.launch", "--version", code=1).stderr
    assert python(folder, "-P", "-m", "study.launch", "--version").stdout.startswith("pesfkd ")
    (folder / "study.py").unlink()
    (folder / "trainables.py").unlink()
    assert python(folder, "-m", "study.launch", "--list-spaces").stdout.startswith("adapter_width\n")
    assert importlib.util.find_spec("pesfkd") is not None
