"""`python -m study.check`: what it says of sound and of faulty methods and networks of the user's own."""

import json

import pytest

from study.check import main as check_main
from tests.trainables.conftest import digits, make_store, teacher, teacher_file, teacher_folder  # noqa: F401
from tests.user_methods import METHOD
from tests.user_nets import NET, new_process, write, write_net
from trainables.conformance import running
from trainables.conformance.case import Bench, Case
from trainables.conformance.checks import CHECKS
from trainables.user_code.loading import canonical_name

pytestmark = pytest.mark.study

RETURN = "    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)"
COUNTER = METHOD.replace("def losses", "calls = []\n\n\ndef losses").replace(
    RETURN, "    calls.append(1)\n    kd = kd * (1 + len(calls) / 100)\n" + RETURN
)
FAULTY = {
    "the_same_seed_gives_the_same_bits_and_another_others": (
        METHOD.replace("from pydantic", "import random\n\nfrom pydantic").replace(
            "difference.abs()", "(difference * random.random()).abs()"
        ),
        "two trials of one seed differ in train/loss, ",
    ),
    "a_resumed_trial_equals_one_never_stopped": (COUNTER, "resumed after epoch 0, epoch 1 differs in"),
    "no_batch_waits_for_a_value": (
        METHOD.replace(RETURN, "    kd = kd / (1 + labels.sum().item())\n" + RETURN),
        "a batch waits for the device, because it reads a value by item (in losses, mine.py:22)",
    ),
    "its_own_loss_reaches_whom_it_should": (
        METHOD.replace(RETURN, f"{RETURN.replace('return', 'one =')}\n    return one._replace(total=one.total + kd)"),
        "with all weights 0, a step trains student: multiply the loss by kd_weight",
    ),
    "its_specification_is_one_that_can_be_run": (
        METHOD.replace("    matching_power: float =", "    unread: int = 3\n    matching_power: float ="),
        "the losses and own modules read other fields than are declared: without unread",
    ),
    "its_losses_are_finite_and_named": (
        METHOD.replace(RETURN, f"{RETURN}._replace(gap=kd)"),
        "the recorded losses are: with train/loss_gap too many",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_method_fails_the_check_with_the_reason(name, digits, teacher, make_store, tmp_path):  # noqa: F811
    text, reason = FAULTY[name]
    own = canonical_name(f"{write(tmp_path / 'mine', mine=text)}/mine.py:METHOD")
    (check,) = (each for each in CHECKS if each.__name__ == name)
    bench = Bench(digits, teacher, make_store, tmp_path / "checkpoints")
    result = running._result(Case(own), "words", lambda: check(Case(own), bench))
    assert reason in result.reason


def test_each_check_has_a_line_and_the_code_says_whether_all_passed(command, tmp_path, monkeypatch):
    chosen = [each for each in CHECKS if each.__name__ in ("its_published_values_are_a_valid_trial",
                                                           "its_specification_is_one_that_can_be_run")]  # fmt: skip
    monkeypatch.setattr(running, "CHECKS", chosen)
    folder = write(tmp_path / "mine", sound=METHOD, faulty=FAULTY["its_specification_is_one_that_can_be_run"][0])
    done = command(check_main, f"{folder}/sound.py:METHOD")
    assert done.code == 0, done.said
    assert done.out.splitlines()[:3] == [
        "passed  a step on noise has losses that are finite", "passed  its specification is one that can be run",
        "passed  its published values are a valid trial",
    ]  # fmt: skip
    faulty = command(check_main, f"{folder}/faulty.py:METHOD", "--json")
    assert faulty.code == 1
    found = json.loads(faulty.out)
    assert not found["passed"]
    assert [each["passed"] for each in found["checks"]] == [True, False, True]


def test_an_error_in_the_losses_is_the_only_line_and_names_the_user_s(command, tmp_path):
    text = METHOD.replace("difference = outputs.student_logits", "difference = outputs.students_logits")
    failed = command(check_main, f"{write(tmp_path, mine=text)}/mine.py:METHOD")
    assert failed.code == 1
    assert failed.out.startswith("failed  a step on noise has losses that are finite: a step on noise raises an error:")
    assert f'File "{tmp_path}/mine.py", line 20, in losses' in failed.out
    assert "AttributeError" in failed.out


def test_a_network_is_checked_and_what_is_neither_is_refused(command, tmp_path):
    file = write_net(
        tmp_path, NET + "\nNUMBER = 3\n\n\ndef wrong(num_classes, in_channels):\n    return nn.Linear(3, 4)\n"
    )
    done = command(check_main, f"{file}:make")
    assert (done.code, done.out.count("passed  ")) == (0, 2), done.said
    wrong = command(check_main, f"{file}:wrong")
    assert (wrong.code, wrong.out.count("failed  ")) == (1, 2), wrong.said
    for name, reason in ((f"{file}:NUMBER", "is a int, and a method must be"),
                         (f"{file}:nothing", "defines no nothing"),
                         ("mine", "names no object: give FILE.py:NAME"), (f"{tmp_path}/none.py:a", "there is no file"),
                         (f"{file}:make --dataset glue:sst2", "are checked on images")):  # fmt: skip
        refused = command(check_main, *name.split())
        assert refused.code == 2, refused.said
        assert reason in refused.err
