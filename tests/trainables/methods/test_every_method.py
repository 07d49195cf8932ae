"""Every registered method passes every check of `conformance`. New entries are included automatically."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainables.conftest import MakeStore
from trainables.conformance.case import Bench, Case, cases_of
from trainables.conformance.checks import CHECKS
from trainables.data.dataset import Dataset
from trainables.methods.registry import METHODS
from trainables.teacher_outputs.frozen import FrozenTeacher

pytestmark = pytest.mark.conformance

CASES = [
    *cases_of(METHODS),
    Case("pesf_kd", choices=(("distance", "mse"),)),
    Case("pesf_kd", choices=(("pesf_variant", "released-vision"), ("adapter_dropout", 0.1), ("adapter_count", 2))),
    Case("pesf_kd", choices=(("gap_control", "paper"), ("gap_target", 0.5))),
    Case("pesf_kd", choices=(("gap_control", "centred"), ("gap_target", 0.5))),
    Case("pesf_kd", choices=(("gap_control", "placebo"), ("gap_target", -2.0))),
    *(Case("kdcl", choices=(("kdcl_ensemble", kind),)) for kind in ("mean", "linear")),
    Case("kd", on_text=True),
    Case("pesf_kd", on_text=True),
    Case("pesf_kd", choices=(("distance", "mse"),), on_text=True),
]


@pytest.fixture
def bench(digits: Dataset, teacher: FrozenTeacher, make_store: MakeStore, tmp_path: Path) -> Bench:
    return Bench(digits, teacher, make_store, tmp_path / "checkpoints")


@pytest.fixture
def text_bench(text: Dataset, text_teacher: FrozenTeacher, make_text_store: MakeStore, tmp_path: Path) -> Bench:
    return Bench(text, text_teacher, make_text_store, tmp_path / "checkpoints")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_method(check: Callable[[Case, Bench], None], case: Case, request: pytest.FixtureRequest) -> None:
    check(case, request.getfixturevalue("text_bench" if case.on_text else "bench"))
