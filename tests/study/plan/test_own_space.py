"""Spaces of the user's own: what a plan makes of them, and what is refused before any work."""

import json

import pytest

from study.cli.start_command import start_command
from study.launch import main as launch_main
from study.plan.places import begin_study
from study.plan.resolve import load_plan
from tests.study.factories import make_plan
from tests.study.typed import plan_of
from tests.user_methods import COMPARISON, METHOD, SPACE
from tests.user_nets import new_process, write
from trainables.process.errors import UsageError
from trainables.user_code.loading import canonical_name

pytestmark = pytest.mark.study


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


def planned(*words):
    return plan_of([str(word) for word in words])


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "mine", space=SPACE, method=METHOD, comparison=COMPARISON)


def parameters(*texts, name="mine", question="Which?"):
    listed = ", ".join(f"Parameter({text}, why='because')" for text in texts)
    return (
        "from search_spaces import Parameter, SearchSpace\n"
        f"SPACE = SearchSpace(name={name!r}, question={question!r}, parameters=({listed},))\n"
    )


TEMPERATURE = "name='temperature', kind='float', role='scientific', low=1.0, high=8.0, value=4.0"


def test_a_plan_names_the_space_by_its_digest_and_keeps_the_source(files, tmp_path):
    plan = planned("--space", f"{files}/space.py:SPACE", "--method", f"{files}/method.py:METHOD",
                   "--output-dir", tmp_path / "out")  # fmt: skip
    assert plan.space == canonical_name(f"{files}/space.py:SPACE")
    assert plan.name.startswith("powers-of-my-own-")
    assert plan.search_space.varied == ("matching_power", "student_learning_rate")
    assert {each.field for each in plan.given_bounds} == {"matching_power", "student_learning_rate"}
    assert plan.search == ()
    begin_study(plan, "resume")
    (tmp_path / "mine").rename(tmp_path / "gone")
    with new_process():
        again = load_plan(plan.directory)
        assert again.search_space.question == "Which power matches logits best?"
        assert again.digest == plan.digest
        words = start_command(again).split()
        typed = words[words.index("--space") + 1]
        assert typed.startswith(str(plan.directory / "code"))
        assert canonical_name(typed) == plan.space


def test_bounds_of_the_command_line_replace_those_of_the_space(files, tmp_path):
    plan = planned("--space", f"{files}/space.py:SPACE", "--method", f"{files}/method.py:METHOD",
                   "--search", "matching_power=2:3", "--output-dir", tmp_path / "out")  # fmt: skip
    (power,) = (each for each in plan.search_space.parameters if each.name == "matching_power")
    assert (power.low, power.high, power.role) == (2.0, 3.0, "scientific")
    assert [each.field for each in plan.given_bounds] == ["matching_power", "student_learning_rate"]


def test_a_space_of_students_trains_each_of_them(tmp_path):
    text = parameters("name='student', kind='categorical', role='scientific', choices=('cnn_4_6', 'cnn_3_4'), "
                      "value='cnn_4_6'")  # fmt: skip
    folder = write(tmp_path / "mine", space=text)
    plan = planned("--space", f"{folder}/space.py:SPACE", "--output-dir", tmp_path / "out")
    assert plan.students == ("cnn_4_6", "cnn_3_4")
    assert {config.student for config in plan.fixed_configs} == {"cnn_4_6", "cnn_3_4"}


def test_a_comparison_of_the_user_s_own_tunes_its_fields(files, tmp_path):
    plan = planned("--space", f"{files}/comparison.py:SPACE", "--methods", f"ce,{files}/method.py:METHOD",
                   "--output-dir", tmp_path / "out")  # fmt: skip
    assert [method.name.partition("-")[0] for method in plan.compared] == ["kd", "ce", "method"]
    assert {each.name for search in plan.searches for each in search.parameters} == {"student_learning_rate"}


REFUSED = {
    "SPACE = 3\n": "space.py:SPACE is a int, and a space must be a search_spaces.SearchSpace",
    "from search_spaces import SearchSpace as SPACE\n": "space.py:SPACE is SearchSpace, and a space must be",
    "from search_spaces import SPACES\n": "space.py defines no SPACE; did you mean SPACES?",
    parameters(TEMPERATURE.replace("temperature", "temprature")): "it searches temprature: unknown field 'temprature'; "
    "did you mean 'temperature'?",
    parameters(TEMPERATURE.replace("1.0", "-1.0")): "temperature has the bound -1, which is not allowed; allowed are "
    "numbers from",
    parameters(TEMPERATURE.replace("'float'", "'int'").replace(".0", "")): "temperature is of kind 'int', and the "
    "field has numbers from",
    parameters(TEMPERATURE, "name='seed', kind='int', role='fixed', value=3"): "it fixes seed, which no space can: "
    "seeds are derived",
    parameters(TEMPERATURE, "name='ce_weight', kind='float', role='fixed', value=-1.0"): "ce_weight has the value -1.0",
    parameters("name='temperature', kind='float', role='fixed', value=4.0"): "has no scientific parameter",
    parameters(TEMPERATURE, "name='dkd_alpha', kind='float', role='nuisance', low=0.5, high=2.0, value=1.0"): "method "
    "'pesf_kd' does not read dkd_alpha; methods that do: dkd",
    parameters("name='adapter_kind', kind='categorical', role='scientific', choices=('serial', 'sideways'), "
               "value='serial'"): "adapter_kind has the value 'sideways', which is not allowed; allowed are serial",
    parameters("name='student', kind='categorical', role='scientific', choices=('cnn_3_4', 'net.py:make'), "
               "value='cnn_3_4'"): "give it by --search student=net.py:make",
    "import no_such_library\n": "space.py cannot be imported:",
    "raise RuntimeError('no')\n": "RuntimeError: no",
}  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_no_space_for_a_study_is_refused(text, reason, tmp_path):
    folder = write(tmp_path / "mine", space=text)
    with pytest.raises(UsageError) as refused:
        planned("--space", f"{folder}/space.py:SPACE", "--output-dir", tmp_path / "out")
    assert str(refused.value).startswith("--space")
    assert reason in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_option_that_fixes_a_field_of_the_space_is_refused(files, tmp_path):
    own = ("--space", f"{files}/space.py:SPACE", "--output-dir", tmp_path / "out")
    method = ("--method", f"{files}/method.py:METHOD")
    with pytest.raises(
        UsageError, match=r"--space, which searches matching_power=1:4 and --set matching_power: a field"
    ):
        planned(*own, *method, "--set", "matching_power=2")
    with pytest.raises(UsageError, match="it searches matching_power: unknown field 'matching_power'"):
        planned(*own)


def test_arms_need_the_baseline(tmp_path):
    text = COMPARISON.replace("searches=1", "searches=1, arms={'dkd': {'method': 'dkd'}}")
    folder = write(tmp_path / "mine", space=text)
    with pytest.raises(UsageError, match="every method is compared with kd: add an arm 'kd'"):
        planned("--space", f"{folder}/space.py:SPACE", "--output-dir", tmp_path / "out")


def test_plans_of_this_project_s_spaces_have_no_bounds_of_the_user(tmp_path):
    assert make_plan(tmp_path).given_bounds == ()


def test_the_command_shows_the_space_and_writes_nothing(files, tmp_path, command):
    shown = command(launch_main, "--space", f"{files}/space.py:SPACE", "--method", f"{files}/method.py:METHOD",
                    "--dry-run", "--json", "--output-dir", tmp_path / "out")  # fmt: skip
    assert shown.code == 0, shown.said
    assert json.loads(shown.out)["plan"]["space"].startswith("space.py:SPACE@")
    assert not (tmp_path / "out").exists()
