"""The README's example of a new method works as it stands there: every check that the registered methods pass."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import trainables.methods
from tests.trainables.conftest import MakeStore
from tests.trainables.methods.conformance import CHECKS, Bench, Case
from trainables.data.dataset import Dataset
from trainables.spec.methods import _WEIGHTS, METHOD_SPECS, MethodSpec
from trainables.teacher_outputs.frozen import FrozenTeacher

HERE = Path(__file__).parent
README = (HERE.parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLE = (HERE / "new_method.md").read_text(encoding="utf-8")
MODULE, ENTRY = re.findall(r"```python\n(.*?)```", EXAMPLE, flags=re.DOTALL)


@pytest.fixture
def _registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logit_matching.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.setattr(trainables.methods, "__path__", [*trainables.methods.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    spec = eval(ENTRY, {"MethodSpec": MethodSpec, "_WEIGHTS": _WEIGHTS})
    monkeypatch.setitem(METHOD_SPECS, spec.name, spec)


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_new_method_passes_every_check(
    check: Callable[[Case, Bench], None],
    digits: Dataset,
    teacher: FrozenTeacher,
    make_store: MakeStore,
    tmp_path: Path,
) -> None:
    check(Case("logit_matching"), Bench(digits, teacher, make_store, tmp_path / "checkpoints"))


def test_the_example_is_short() -> None:
    assert len(MODULE.splitlines()) + len(ENTRY.splitlines()) <= 20


def test_the_readme_shows_this_very_example_where_it_shows_one() -> None:
    if "### A new method" not in README:
        pytest.skip("the README shows no example of a new method")
    assert EXAMPLE.strip() in README
