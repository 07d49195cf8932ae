"""What students cost where they run, in journal and records."""

import pytest

from study.ledger.ledger import StudyLedger
from study.ledger.recording import complete_records
from study.ledger.rows import trial_row
from study.records import RecordWriter, read_trials
from tests.study.factories import make_plan
from trainables.spec.measures import COST_FACTS, DEPLOY_FACTS, DEPLOY_LATENCY
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.unit
FACTS = {name: float(number) for number, name in enumerate(DEPLOY_FACTS, start=1)}


def test_the_values_of_a_student_are_facts_of_all_its_trials_and_of_no_others(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    before = ledger.open_trial("control", TrialConfig(), 1)
    ledger.record_deployment("cnn_3_4", FACTS)
    after = ledger.open_trial("control", TrialConfig(), 2)
    other = ledger.open_trial("control", TrialConfig(student="cnn_8_16"), 1)
    ledger.record_facts(after.trial_id, {COST_FACTS[0]: 5.0})
    for read in (ledger, StudyLedger(ledger.plan, read_only=True)):
        assert read.deployment == {"cnn_3_4": FACTS}
        assert [read.entries[each.trial_id].facts for each in (before, after, other)] == [
            FACTS,
            {**FACTS, COST_FACTS[0]: 5.0},
            {},
        ]
        assert {name: trial_row(read.plan, read.entries[before.trial_id])[name] for name in DEPLOY_FACTS} == FACTS


def test_the_records_have_a_column_for_each_value_and_null_without_a_measurement(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    ledger.record_deployment("cnn_3_4", FACTS)
    for config in (TrialConfig(), TrialConfig(student="cnn_8_16")):
        ledger.end_trial(ledger.open_trial("control", config, 1).trial_id, "failed", "why")
    complete_records(ledger.plan, ledger, RecordWriter(ledger.plan.directory))
    trials = read_trials(ledger.plan.directory)
    assert trials[DEPLOY_LATENCY].to_pylist() == [FACTS[DEPLOY_LATENCY], None]
    assert trials.schema.field(DEPLOY_LATENCY).metadata == {b"unit": b"s"}
    assert trials.schema.field("deploy/size_bytes").metadata == {b"unit": b"B"}


@pytest.mark.parametrize("facts", ["none", {"deploy/size_bytes": "large"}, None])
def test_a_damaged_line_is_skipped_and_the_student_is_measured_again(tmp_path, facts):
    ledger = StudyLedger(make_plan(tmp_path))
    ledger.begin_writing()
    ledger._append({"event": "deployment", "student": "cnn_3_4", "facts": facts, "time": 1.0})
    again = StudyLedger(ledger.plan, read_only=True)
    assert again.deployment == {}
    assert "deployment: invalid facts" in again.damage[2]
