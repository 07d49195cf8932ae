"""Command line of the planner, on the shipped studies."""

import json

import pytest

from analysis.reading.trials import EXAMPLES
from study.power import main


def test_the_planner_says_how_many_seeds_a_difference_needs(command):
    done = command(main, "fashion-method-tuned", "--output-dir", EXAMPLES, "--detect", "0.005,0.01")
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert ["0.005", "29", "54"] in rows
    assert ["0.01", "9", "17"] in rows
    assert "least detectable difference: 0.0091, after Holm 0.0155" in done.out
    assert "only more seeds can settle this" in done.out


def test_the_planner_answers_scripts_in_json(command):
    done = command(main, "fashion-adapter_width", "--output-dir", EXAMPLES, "--json", "--power", "0.9")
    told = json.loads(done.out)
    assert (told["seeds"], told["comparisons"], told["power"]) == (6, 3, 0.9)
    (planned,) = told["needed"]
    assert planned["difference"] == 0.005
    assert 6 < planned["seeds"] < planned["seeds_after_holm"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--detect", "5"], "--detect 5: give differences between 0 and 1"),
        (["--detect", "half"], "--detect half: give differences between 0 and 1"),
        (["--detect", "0.1,nan"], "--detect nan: give differences between 0 and 1"),
        (["--detect", ","], "--detect ',': give 1 to 20 differences"),
        (["--power", "1"], "--power 1: give a probability between 0 and 1"),
    ],
)
def test_impossible_values_are_refused_with_the_allowed_ones(command, arguments, expected):
    done = command(main, "fashion-method-tuned", "--output-dir", EXAMPLES, *arguments)
    assert done.code == 2
    assert expected in done.err


def test_an_unknown_study_is_refused_with_the_nearest_name(command, tmp_path):
    done = command(main, "fashion-method-tune", "--output-dir", EXAMPLES)
    assert done.code == 2
    assert "did you mean fashion-method-tuned" in done.err
