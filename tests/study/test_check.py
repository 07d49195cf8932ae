"""`python -m study.check`: what it says of sound and of faulty methods and networks of the user's own."""

import json

import pytest

from study.check import main as check_main
from tests.trainables.conftest import digits, make_store, teacher, teacher_file, teacher_folder  # noqa: F401
from tests.user_data import new_data_process
from tests.user_methods import METHOD
from tests.user_nets import NET, new_process, write, write_net
from trainables.conformance import running
from trainables.conformance.case import Bench, Case
from trainables.conformance.checks import CHECKS
from trainables.run.shape_check import method_problem
from trainables.spec.datasets import DATASETS
from trainables.spec.trial import TrialConfig
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
    "its_random_numbers_come_from_its_own_generator": (
        METHOD.replace("from pydantic", "import torch\n\nfrom pydantic").replace(
            "difference.abs()", "(difference + torch.rand(())).abs()"
        ),
        "a step draws from the global generator of torch, which the trials of a pack share, so none could run again: "
        "draw from outputs.generator",
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


@pytest.mark.parametrize(
    ("drawing", "alone", "packed"),
    [
        ("", None, None),
        ("torch.rand(3)", None, "a step draws from the global generator of torch, which the trials of a pack share"),
        ("torch.rand(3, generator=outputs.generator)", None, None),
        ("np.random.rand()", *["a step draws from the global generator of numpy.random, which trials do not seed"] * 2),
        ("torch.manual_seed(3)", *["a step sets the seed of the global generator of torch, so all batches"] * 2),
    ],
)
def test_before_a_study_the_generators_that_a_method_uses_are_checked(tmp_path, drawing, alone, packed):
    text = METHOD.replace("from pydantic", "import numpy as np\nimport torch\nfrom pydantic")
    folder = write(tmp_path, mine=text.replace("    difference", f"    {drawing}\n    difference"))
    own = canonical_name(f"{folder}/mine.py:METHOD")
    config = TrialConfig(method=own, student="cnn_3_4", teacher="cnn_3_4")
    for is_packed, expected in ((False, alone), (True, packed)):
        found = method_problem(config, DATASETS["digits"], packed=is_packed)
        assert (found or "").startswith(expected or "")
        assert (found is None) is (expected is None)


DATA = """
import numpy as np
from sklearn.datasets import load_digits

source = load_digits()
images, labels = (source.images * 15).astype("uint8"), source.target


class Items:
    def __init__(self, change):
        self.change = change

    def __len__(self):
        return 200

    def __getitem__(self, index):
        return self.change(images[index]), int(labels[index])


def make():
    return {"train": (images[:300], labels[:300]), "test": (images[300:400], labels[300:400])}


def unlabelled():
    return {"train": images[:300]}


def missing():
    return {"train": (images[:300], [None, *labels[1:300]])}


def other_classes():
    return {**make(), "train": (images[:300], labels[:300] % 5)}


def no_numbers():
    return {"train": (np.where(np.arange(300)[:, None, None] == 7, np.nan, images[:300] / 255), labels[:300])}


def seldom_equal():
    return Items(lambda image: image + np.uint8(np.random.default_rng().random() < 0.2))


def mirrored():
    return Items(lambda image: image[:, :: np.random.choice([-1, 1])])


def broken():
    return Items(lambda image: image[20])
"""


@pytest.mark.parametrize(
    ("name", "failing", "reason"),
    [
        ("make", None, ""),
        ("unlabelled", 0, "no array names images and labels"),
        ("missing", 0, "1 labels are missing, the first of image 0"),
        ("other_classes", 0, "test: classes missing from the train part: 5, 6, 7, 8, 9"),
        ("no_numbers", 0, "image 7 has pixels that are NaN or infinite"),
        ("seldom_equal", 0, "differs when it is read again"),
        ("mirrored", 0, "differs when it is read again"),
        ("broken", 0, "line 17, in __getitem__"),
    ],
)
def test_a_dataset_is_checked_alone_and_a_wrong_one_fails_with_the_reason(command, tmp_path, name, failing, reason):
    file = write(tmp_path, data=DATA) / "data.py"
    with new_data_process():
        done = command(check_main, "--dataset", f"{file}:{name}", "--json")
    found = json.loads(done.out)
    assert (done.code, found["kind"], found["passed"]) == (failing is not None, "dataset", failing is None), done.said
    assert [each["passed"] for each in found["checks"]] == ([True] * 3 if failing is None else [False])
    assert reason in found["checks"][-1]["reason"]


def test_a_method_and_a_network_are_checked_on_a_dataset_of_the_user_s(command, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CHECKS", CHECKS[:1])
    write_net(tmp_path)
    folder = write(tmp_path, data=DATA, method=METHOD)
    with new_data_process():
        alone = command(check_main, f"{folder}/data.py:make")
        network = command(check_main, f"{folder}/net.py:make", "--dataset", f"{folder}/data.py:make")
        method = command(check_main, f"{folder}/method.py:METHOD", "--dataset", f"{folder}/data.py:make")
        wrong = command(check_main, f"{folder}/net.py:make", "--dataset", f"{folder}/data.py:unlabelled")
        twice = command(check_main, f"{folder}/data.py:make", "--dataset", f"{folder}/data.py:make")
        nothing = command(check_main)
    assert [each.out.count("passed  ") for each in (alone, network, method)] == [3, 5, 5], (alone, network, method)
    assert (wrong.code, wrong.out.count("failed  "), wrong.out.count("passed  ")) == (1, 1, 0)
    assert twice.code == nothing.code == 2
    assert "name one of them" in twice.err
    assert "nothing to check: name a method or network" in nothing.err
