"""Recording of reports of trials."""

from types import SimpleNamespace

import pytest

from study.running.recorder import TrialRecorder

pytestmark = pytest.mark.unit


def test_a_trial_on_other_data_than_the_first_is_named_once():
    entries = {name: SimpleNamespace(trial_id=name, config=SimpleNamespace(split_number=n)) for name, n in
               {"s-0": 0, "s-1": 0, "s-2": 1}.items()}  # fmt: skip
    ignore = dict.fromkeys(("record_facts", "record_calibration", "record_answers"), lambda *_: None)
    ledger = SimpleNamespace(entries=entries, ended=0, dataset={"digest": "a" * 64}, **ignore)
    warned = []
    progress = SimpleNamespace(warn=warned.append, trial_changed=lambda *_: None)
    tracker = SimpleNamespace(deliver=lambda entry: None)
    recorder = TrialRecorder(ledger, tracker, lambda entry: None, progress, SimpleNamespace())
    # Trial s-2 has another split, whose digest differs.
    for trial, digest in (("s-0", "a"), ("s-1", "b"), ("s-1", "b"), ("s-2", "c")):
        recorder.reported(trial, {"dataset": {"digest": digest * 64}, "epochs": []})
    assert len(warned) == 1
    assert warned[0].startswith(f"trial s-1 read other data than the first trial: their digests are {'b' * 16} and")
