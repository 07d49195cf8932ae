"""End of a study in which all trials fail by the same error in the user's code."""

import pytest

from study.ledger.ledger import StudyLedger
from study.running.same_failure import all_fail_alike
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan
from trainables.display.failures import failure_text

pytestmark = pytest.mark.unit

TRACEBACK = 'Traceback (most recent call last):\n  File "/there/mine.py", line 21, in losses\nKeyError: 1'


def ledger_of(folder, errors, *, epochs=0, running=0):
    """Return the ledger of a study with failed trials after `epochs` epochs, and one that runs after `running`."""
    ledger = StudyLedger(make_plan(folder, trials=6))
    tune = PretendedTune(StudySearch(ledger, {}), ledger)
    begun = [tune.next() for _ in (*errors, None)]
    for (tune_id, settings), error in zip(begun, errors, strict=False):
        for epoch in range(epochs):
            tune.report(settings, epoch + 1)
        tune.search.on_trial_complete(tune_id, {"finished": False, "failed": error})
    for epoch in range(running):
        tune.report(begun[-1][1], epoch + 1)
    return ledger


@pytest.mark.parametrize(
    ("count", "same", "epochs", "running", "expected"),
    [
        (3, True, 1, 1, True),
        (3, True, 1, 0, True),
        (2, True, 1, 1, False),
        (3, False, 1, 1, False),
        (3, True, 0, 1, False),  # as with a file that one node of a cluster lacks
        (3, True, 1, 2, False),
    ],
)
def test_a_study_ends_if_three_trials_fail_alike_and_no_trial_gets_further(
    tmp_path, count, same, epochs, running, expected
):
    errors = [failure_text(f"KeyError: {n} (in losses, mine.py:{21 if same else n})", TRACEBACK) for n in range(count)]
    assert all_fail_alike(ledger_of(tmp_path, errors, epochs=epochs, running=running)) is expected


def test_errors_that_do_not_come_from_the_user_s_code_end_no_study(tmp_path):
    assert not all_fail_alike(ledger_of(tmp_path, ["KeyError: 1 (in step, step.py:3)"] * 3))
