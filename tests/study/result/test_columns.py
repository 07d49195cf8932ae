"""Tables for a terminal: every width, long names, and values that move to a second line."""

import io

import pytest
from rich.console import Console

from study.result.columns import Column, fitted_table, wrapped

pytestmark = pytest.mark.unit
NAMES = ("kd", "pesf_kd student cnn_16_32, adapter learning rate 0.0447, temperature 2.22, ce weight 0.3")
VALUES = {
    "n": ("3", "3"), "val accuracy": ("0.961 ± 0.007", "0.948 ± 0.039"),
    "gap (nats)": ("−10.71 ± 11.33", "5.91 ± 0.11"),
    "accuracy - kd": ("(baseline)", "−0.013 [−0.100, +0.034]"), "p\n(Holm)": ("", "< 0.001"),
}  # fmt: skip


def drawn(columns, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(fitted_table(columns, width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def table(names, width):
    return drawn([Column("config", names, is_name=True), *(Column(head, own) for head, own in VALUES.items())], width)


@pytest.mark.parametrize("width", [80, 81, 90, 100, 130, 200])
def test_no_line_is_longer_than_the_terminal_and_no_value_or_word_is_lost_or_broken(width):
    lines = table(NAMES, width)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    assert "…" not in text
    for word in " ".join((*NAMES, *VALUES["val accuracy"], *VALUES["gap (nats)"], *VALUES["accuracy - kd"])).split():
        assert word in text


def test_values_stay_on_one_line_where_names_leave_room_and_the_widest_is_broken_first():
    (wide,) = [line for line in table(NAMES[:1] * 2, 130) if "−0.013" in line]
    assert "−0.013 [−0.100, +0.034]" in wide
    (narrow,) = [line for line in table(("kd", "logit standardisation"), 80) if "−0.013" in line]
    assert "[" not in narrow
    assert "0.948 ± 0.039" in narrow


def test_two_columns_of_names_share_the_room_that_values_leave():
    columns = [
        Column("test accuracy of", ("1: w16-T2.2, student cnn_16_32",), is_name=True),
        Column("minus that of", ("pesf_kd as published with a long name (cnn_16_32)",), is_name=True),
        Column("difference", ("−0.008 [−0.019, +0.002]",)), Column("p", ("0.250",)), Column("p\n(Holm)", ("1.000",)),
    ]  # fmt: skip
    lines = drawn(columns, 80)
    assert max(map(len, lines)) <= 80
    assert "−0.008 [−0.019, +0.002]" in " ".join(lines)
    assert len(drawn(columns, 150)) < len(lines)


def test_a_text_is_broken_at_spaces_then_after_joints_and_inside_a_word_only_without_any():
    assert wrapped("kd temperature 4", 12) == "kd\ntemperature\n4"
    assert wrapped("logit_standardisation+adapter", 18) == "logit_\nstandardisation+\nadapter"
    assert wrapped("my_models.py:Net128", 13) == "my_models.py:\nNet128"
    assert wrapped("method\n  temperature 4, width 16", 16) == "method\n  temperature 4,\n  width 16"
    assert wrapped("abcdefghij", 4) == "abcd\nefgh\nij"
    assert wrapped("", 4) == ""


def test_a_table_without_rows_has_its_heads():
    assert drawn([Column("config", (), is_name=True), Column("n", ())], 80) == ["config n"]
