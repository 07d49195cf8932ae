"""Beliefs given with `--prior`: what is read, what is refused before any work, and what is drawn from them."""

import math

import numpy as np
import pytest
from scipy.stats import truncnorm

from search_spaces import Parameter
from study.cli.config_text import config_text
from study.cli.configured import with_config
from study.cli.preview import describe_plan
from study.cli.request import resumed_plan
from study.cli.start_command import start_command
from study.launch import main as launch_main
from study.plan.beliefs import Belief, belief_notes, influence, read_beliefs
from study.plan.options import OPTIONS
from study.plan.resolve import load_plan
from study.search.preview import first_configs
from tests.study.factories import make_plan
from tests.study.typed import plan_of
from trainables.process.errors import UsageError

pytestmark = pytest.mark.unit
SEARCH = ("--space", "none", "--search", "temperature=1:32:log", "--search", "adapter_kind=serial,parallel")


def parameter(**values):
    own = {"name": "temperature", "kind": "float", "role": "scientific", "why": "a test", "value": values["low"]}
    return Parameter(**{**own, **values})


@pytest.mark.parametrize(
    ("argument", "expected", "text"),
    [
        ("temperature=4", Belief(field="temperature", value=4.0), "temperature=4"),
        (" temperature = 4 : 1.5 ", Belief(field="temperature", value=4.0, spread=1.5), "temperature=4:1.5"),
        ("adapter-width=16:2", Belief(field="adapter_width", value=16, spread=2.0), "adapter_width=16:2"),
        ("adapter_clip=True", Belief(field="adapter_clip", value=True), "adapter_clip=true"),
        ("adapter_kind=serial", Belief(field="adapter_kind", value="serial"), "adapter_kind=serial"),
        ("student=torchvision:resnet18", Belief(field="student", value="torchvision:resnet18"), "student=torchvision:"),
    ],
)
def test_a_belief_is_read_and_written_as_typed(argument, expected, text):
    (found,) = read_beliefs([argument])
    assert found == expected
    assert type(found.value) is type(expected.value)
    assert found.text.startswith(text)
    assert read_beliefs([found.text]) == (found,)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("temperature", "use the form FIELD=VALUE, such as --prior temperature=4"),
        ("=4", "use the form FIELD=VALUE"),
        ("temperature=", "--prior temperature=: no value is given; temperature has"),
        ("tempratur=4", "did you mean 'temperature'?"),
        ("epochs=4", "--prior epochs=4: epochs cannot be searched"),
        ("temperature=hot", "--prior temperature=hot: 'hot'"),
        ("temperature=nan", "--prior temperature=nan"),
        ("temperature=-4", "--prior temperature=-4"),
        ("adapter_width=2.5", "--prior adapter_width=2.5"),
        ("adapter_kind=cereal", "--prior adapter_kind=cereal: 'cereal' is not allowed; allowed are"),
        ("temperature=4:", "the spread '' is not a number: give VALUE or VALUE:SPREAD"),
        ("temperature=4:2:1", "the spread '2:1' is not a number"),
        ("temperature=4:0", "the spread must be above 0; to fix the value, give --set temperature=4"),
        ("temperature=4:inf", "the spread must be above 0"),
        ("temperature=40", "outside the searched range [1, 32], log: give a value within it, or a wider range by"),
        ("temperature=4:0.5", "a log scale, where the spread is a factor: give one above 1, such as temperature=4:2"),
        ("temperature=4:33", "the spread exceeds the searched range [1, 32], log: give one up to 32"),
        ("ce_weight=0.5", "the study does not search ce_weight. It searches temperature, adapter_kind; --search"),
        ("adapter_kind=logit", "the search chooses from {serial, parallel}: give one of these values"),
        ("adapter_kind=serial:2", "'serial:2' is not allowed"),
    ],
)
def test_a_wrong_belief_is_refused_before_any_work(command, tmp_path, argument, says):
    done = command(launch_main, *SEARCH, "--prior", argument, "--output-dir", tmp_path / "out", "--name", "no")
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--space temperature --prior temperature=2 --prior temperature=4", "temperature is given twice by --prior"),
        ("--space method --prior temperature=4", "space 'method' searches nothing: leave it out"),
        ("--space joint --prior ce_weight=0.5 --set ce_weight=1", "ce_weight"),
        ("--space none --search temperature=2,4 --prior temperature=4:2", "listed values have no spread"),
        ("--space none --search temperature=2,4 --prior temperature=3", "the search chooses from {2.0, 4.0}"),
        ("--space none --search ce_weight=0.5:1 --prior ce_weight=0.6:0.7", "give one up to 0.5"),
    ],
)
def test_a_belief_that_does_not_fit_the_search_is_refused(words, says, tmp_path):
    with pytest.raises(UsageError) as refused:
        plan_of(words, tmp_path)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("searched", "value", "spread"),
    [
        (parameter(kind="float", low=1.0, high=32.0), 4.0, 2.0),
        (parameter(kind="float", low=1.0, high=32.0), 1.0, None),
        (parameter(kind="float", low=1.0, high=32.0, log=True), 4.0, 1.5),
        (parameter(kind="float", low=1e-5, high=0.1, log=True, value=1e-5), 0.1, None),
    ],
)
def test_a_belief_is_a_truncated_normal_distribution(searched, value, spread):
    scale = math.log if searched.log else float
    low, high, mean = scale(searched.low), scale(searched.high), scale(value)
    deviation = 0.1 * (high - low) if spread is None else scale(spread)
    reference = truncnorm((low - mean) / deviation, (high - mean) / deviation, mean, deviation)
    belief = Belief(field="temperature", value=value, spread=spread)
    probabilities = np.array([1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6])
    drawn = [scale(belief.draw(searched, each)) for each in probabilities]
    np.testing.assert_allclose(drawn, reference.ppf(probabilities), rtol=1e-7, atol=1e-7)


def test_whole_numbers_grids_and_categories_are_drawn_within_their_values():
    width = parameter(name="adapter_width", kind="int", low=2, high=64, log=True)
    drawn = [Belief(field="adapter_width", value=16).draw(width, each / 50) for each in range(51)]
    assert all(type(each) is int for each in drawn)
    assert (drawn[0], drawn[25], drawn[-1]) == (2, 16, 64)
    assert drawn == sorted(drawn)
    weight = parameter(name="ce_weight", kind="float", low=0.0, high=1.0, step=0.25)
    belief = Belief(field="ce_weight", value=0.3, spread=0.4)
    assert belief.centre(weight) == 0.25
    assert {belief.draw(weight, each / 50) for each in range(51)} == {0.0, 0.25, 0.5, 0.75, 1.0}
    kind = Parameter(name="adapter_kind", kind="categorical", role="scientific", why="a test", value="serial",
                     choices=("serial", "parallel"))  # fmt: skip
    assert {Belief(field="adapter_kind", value="parallel").draw(kind, each / 5) for each in range(6)} == {"parallel"}


def test_the_influence_falls_with_the_number_of_proposals():
    assert [influence(40, number) for number in (0, 4, 36)] == [1.0, 0.5, 0.1]
    assert influence(5, 1) == 0.5


def test_beliefs_are_part_of_the_question_and_a_study_without_has_its_old_digest(tmp_path):
    plan = make_plan(tmp_path)
    bare = plan.model_dump(mode="json")
    assert bare.pop("prior") == []
    assert type(plan)(**bare).digest == plan.digest
    believing = make_plan(tmp_path, prior=read_beliefs(["adapter_width=16"]))
    assert (
        len({plan.digest, believing.digest, make_plan(tmp_path, prior=read_beliefs(["adapter_width=8"])).digest}) == 3
    )
    believing.save()
    assert load_plan(believing.directory).prior == believing.prior
    assert load_plan(believing.directory).digest == believing.digest
    with pytest.raises(UsageError, match="prior: the study has adapter_width=16, but adapter_width=8 was given"):
        resumed_plan("planned", tmp_path, {"prior": ["adapter_width=8"]}, runs=False)
    assert resumed_plan("planned", tmp_path, {"prior": ["adapter_width=16"]}, runs=False).digest == believing.digest


def test_the_preview_shows_the_beliefs_and_the_first_config_has_their_values(tmp_path):
    plan = plan_of([*SEARCH, "--prior", "temperature=4:1.5", "--prior", "adapter_kind=parallel"], tmp_path)
    first = first_configs(plan)
    assert first[0] == {"temperature": 4.0, "adapter_kind": "parallel"}
    text = describe_plan(plan, first)
    assert "believes   temperature=4:1.5, adapter_kind=parallel: proposed first, and about " in text
    assert belief_notes(plan) == [
        "Beliefs given by --prior guided the search: temperature=4:1.5, adapter_kind=parallel."
    ]
    assert "--prior temperature=4:1.5 --prior adapter_kind=parallel" in start_command(plan)
    assert belief_notes(plan_of(SEARCH, tmp_path)) == []


def test_beliefs_come_from_config_files_and_a_printed_file_makes_the_same_plan(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("space: temperature\nprior: {temperature: 4:2}\n")
    plan = plan_of(["--config", str(path)], tmp_path)
    assert [each.text for each in plan.prior] == ["temperature=4:2"]
    path.write_text(config_text(plan, {}))
    assert "prior:\n  temperature: '4:2'" in path.read_text()
    assert plan_of(["--config", str(path)], tmp_path).digest == plan.digest
    plan.directory.mkdir(parents=True)
    plan.save()
    assert plan_of(["--config", str(plan.directory / "plan.json"), "--name", "again"], tmp_path).digest == plan.digest


@pytest.mark.parametrize(
    ("own", "prior", "search"),
    [
        ({}, ["temperature=4", "ce_weight=0.5"], ["temperature=1:8"]),
        ({"prior": ["temperature=2"]}, ["ce_weight=0.5", "temperature=2"], ["temperature=1:8"]),
        ({"search": ["temperature=2:8"]}, ["temperature=4", "ce_weight=0.5"], ["temperature=2:8"]),
        ({"temperature": 2.0}, ["ce_weight=0.5"], None),
        ({"hold": ["temperature=2"]}, ["ce_weight=0.5"], None),
    ],
)
def test_a_belief_on_the_command_line_replaces_that_of_the_file_and_no_bounds(own, prior, search, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("space: none\nsearch: {temperature: '1:8'}\nprior: {temperature: 4, ce_weight: 0.5}\n")
    values = {**{name: option.default for name, option in OPTIONS.items()}, "config": path, **own}
    found, _ = with_config(values, {"config": path, **own}, from_environment=())
    assert found["prior"] == prior
    assert found["search"] == search


def test_a_belief_may_name_a_network_of_ones_own(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef make(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))\n"
    )
    reference = f"{tmp_path / 'net.py'}:make"
    words = ["--space", "none", "--method", "kd", "--search", f"student={reference},cnn_3_4"]
    plan = plan_of([*words, "--prior", f"student={reference}"], tmp_path)
    assert plan.prior[0].value == plan.students[0]
    assert first_configs(plan)[0]["student"] == plan.students[0]
