"""The example of a new method in CONTRIBUTING.md works unchanged: it passes every check of the registered methods."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

import trainables.methods
from tests.trainables.conftest import MakeStore
from trainables.conformance.case import Bench, Case
from trainables.conformance.checks import CHECKS
from trainables.data.dataset import Dataset
from trainables.spec.methods import METHOD_SPECS, logits
from trainables.spec.trial import TrialConfig
from trainables.teacher_outputs.frozen import FrozenTeacher

HERE = Path(__file__).parent
CONTRIBUTING = (HERE.parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = (HERE / "new_method.md").read_text(encoding="utf-8")
MODULE, ENTRY = re.findall(r"```python\n(.*?)```", EXAMPLE, flags=re.DOTALL)


@pytest.fixture
def _registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the example as a method."""
    (tmp_path / "logit_matching.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.setattr(trainables.methods, "__path__", [*trainables.methods.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    settings, _, entry = ENTRY.partition("\n\nMethodSpec(")
    names = dict(vars(logits))
    exec(settings, names)
    spec = eval(f"MethodSpec({entry}", names)
    monkeypatch.setitem(METHOD_SPECS, spec.name, spec)


@pytest.mark.conformance
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


@pytest.mark.usefixtures("_registered")
def test_its_settings_are_given_checked_and_kept_like_those_of_every_method() -> None:
    config = TrialConfig(method="logit_matching", matching_power=1.5)
    assert config.model_dump()["matching_power"] == 1.5
    assert TrialConfig(**config.model_dump()) == config
    assert config.config_id != TrialConfig(method="logit_matching").config_id
    with pytest.raises(ValidationError, match="did you mean 'matching_power'"):
        TrialConfig(matching_powr=2.0)
    with pytest.raises(ValidationError, match="matching_power"):
        TrialConfig(method="kd", matching_power=0.5)


def test_the_example_is_short() -> None:
    assert len(MODULE.splitlines()) + len(ENTRY.splitlines()) <= 27


def test_the_guide_for_contributors_shows_this_very_example() -> None:
    assert EXAMPLE.strip() in CONTRIBUTING
