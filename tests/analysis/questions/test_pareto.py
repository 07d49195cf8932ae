"""Front of a study as table, notes, figure and charts, from a summary with known values."""

import json

import pytest

from analysis.figures.pareto import axis_of, draw_front, panels_of, stairs
from analysis.questions.deployment import DeployedStudent, deployment_cells, deployment_markdown
from analysis.questions.pareto import front_cells, front_markdown, front_notes, read_front
from analysis.report.charts import front_charts
from analysis.report.deployed import front_table
from analysis.report.pictures import front_picture
from trainables.spec.measures import DEPLOY_FACTS

pytestmark = pytest.mark.unit


def row(label, accuracy, latency, *, front, within=True, confirmed=None):
    found = {} if confirmed is None else {
        "test/accuracy": {"value": confirmed, "low": confirmed - 0.02, "high": None, "n": 4, "method": "mean, t"}
    }  # fmt: skip
    return {
        "config_id": label, "label": label, "fields": {}, "values": {"val/accuracy": accuracy, "latency": latency},
        "is_within_limits": within, "is_on_front": front, "fresh": {}, "confirmed": found,
        "is_on_confirmed_front": None if confirmed is None else confirmed > 0.7,
    }  # fmt: skip


SUMMARY = {
    "pareto": {
        "objectives": [{"name": "val/accuracy"}, {"name": "latency"}],
        "quantities": ["val/accuracy", "latency"],
        "limits": [{"words": "latency at most 5 ms"}],
        "configs": [
            row("slow", 0.99, 0.009, front=False, within=False),
            row("small", 0.80, 0.001, front=True, confirmed=0.70),
            row("worse", 0.85, 0.003, front=False),
            row("large", 0.90, 0.002, front=True, confirmed=0.85),
            row("tiny", 0.50, 0.0005, front=True),
            row("unknown", None, 0.001, front=False, within=False),
        ],
    }
}


@pytest.fixture
def front():
    return read_front(json.loads(json.dumps(SUMMARY)))


def test_the_table_has_the_front_alone_from_the_most_accurate(front):
    heads, rows = front_cells(front)
    assert heads == ("config", "val accuracy (search)", "latency", "test accuracy (confirmed)", "still on front")
    assert [each[0] for each in rows] == ["large", "small", "tiny"]
    assert rows[0][1:] == ("0.9000", "2 ms", "0.850", "yes")
    assert rows[1][3:] == ("0.700", "no")
    assert rows[2][2:] == ("500 µs", "", "")


FACTS = {
    "small_net": {"deploy/latency_1_low_seconds": 0.0008, "deploy/latency_1_high_seconds": 0.0016},
    "large_net": {"deploy/latency_1_low_seconds": 0.0015, "deploy/latency_1_high_seconds": 0.0025},
    "tiny_net": {"deploy/latency_1_low_seconds": 0.0004, "deploy/latency_1_high_seconds": 0.0006},
}  # fmt: skip


def of_students(ranges=None, limit=0.005):
    """Return the front with a student for each config, and the ranges of their runs."""
    summary = json.loads(json.dumps(SUMMARY | {"students": FACTS if ranges is None else ranges}))
    summary["pareto"]["limits"] = [{"name": "latency", "value": limit, "words": "latency at most 5 ms"}]
    for each in summary["pareto"]["configs"]:
        each["fields"] = {"student": f"{each['label']}_net"}
    return read_front(summary)


def test_students_with_overlapping_ranges_of_the_latency_are_named_in_table_and_notes():
    shown = of_students()
    assert [each[2] for each in front_cells(shown)[1]] == [
        "2 ms [1.5, 2.5]", "1 ms [0.8, 1.6]", "500 µs [400, 600]"
    ]  # fmt: skip
    notes = " ".join(front_notes(shown))
    assert "These ranges overlap: small_net with large_net. Another measurement may order them otherwise" in notes
    assert "tiny_net" not in notes
    assert "within the range" not in notes
    assert "small_net with large_net" in front_markdown(shown)
    assert "small_net with large_net" in " ".join(front_table(shown).notes)
    assert "range of single runs of small_net: another" in " ".join(front_notes(of_students(limit=0.0014)))


def test_ranges_that_are_apart_or_not_recorded_or_of_one_student_give_no_note(front):
    apart = FACTS | {"large_net": {"deploy/latency_1_low_seconds": 0.0018, "deploy/latency_1_high_seconds": 0.0025}}
    for shown in (of_students(apart), of_students({}), of_students({"small_net": FACTS["small_net"]}), front):
        assert "overlap" not in " ".join(front_notes(shown))
    assert front_cells(of_students({}))[1][0][2] == "2 ms"


def test_the_notes_count_what_is_within_the_limits_on_the_front_and_confirmed(front):
    notes = " ".join(front_notes(front))
    for words in (
        "4 of 6 searched configs are within the limits (latency at most 5 ms)", "3 configs of 6 on the front",
        "2 of 3 configs were confirmed", "n = 4 seeds",
    ):  # fmt: skip
        assert words in notes
    assert "| large | 0.9000 | 2 ms |" in front_markdown(front)
    assert (read_front({}), front_markdown(None)) == (None, "")


def test_figure_and_charts_show_every_config_and_the_confirmed_means(front):
    (across,) = panels_of(front)
    assert axis_of(across) == (1e3, "latency (ms)")
    assert stairs(front, across) == ([0.0005, 0.001, 0.002], [0.5, 0.8, 0.9])
    (panel,) = draw_front(front).axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in panel.lines if line.get_label()[0] != "_"}
    assert drawn["on the front"] == pytest.approx([2.0, 1.0, 0.5])
    assert drawn["not on the front"] == pytest.approx([3.0])
    assert len(drawn["beyond a limit"]) == 2
    assert panel.get_xlabel() == "latency (ms)"
    (chart,) = front_charts(front)
    names = [trace["name"].replace("<br>", " ") for trace in chart["data"]]
    assert names.count("confirmed on the test split, mean of 4") == 2
    assert json.dumps(chart, allow_nan=False)
    assert front_picture(front).title == "Pareto front of val accuracy and latency"


def test_limits_alone_and_no_config_within_them_have_words_and_no_figure():
    content = {**SUMMARY["pareto"], "objectives": [], "configs": [row("slow", 0.99, 0.009, front=False, within=False)]}
    front = read_front({"pareto": content})
    assert panels_of(front) == []
    assert "No config is within the limits" in " ".join(front_notes(front))


def test_students_without_a_program_have_no_columns_of_one():
    counted = DeployedStudent("a", {"deploy/student_parameters": 319.0, "deploy/forward_flops": 2.5e6})
    assert deployment_cells([counted]) == (("student", "parameters", "FLOPs"), [("a", "319", "2.5 M")])
    whole = DeployedStudent("b", dict.fromkeys(DEPLOY_FACTS, 2.0))
    heads, rows = deployment_cells([counted, whole])
    assert heads[3:] == ("size", "latency, batch 1", "latency, batch 32")
    assert rows[0][3:] == ("", "", "")
    assert rows[1][4] == "2 s [2, 2]"
    assert "at least 2 runs in ONNX Runtime on 2 CPU threads" in deployment_markdown([counted, whole])
    assert deployment_markdown([]) == ""
