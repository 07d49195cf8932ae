"""Studies of a task with an objective other than accuracy. The objective is searched, compared and shown."""

import math

import optuna
import pytest

from study.ledger.ledger import StudyLedger
from study.search.schedulers import SearchASHA
from study.search.searcher import StudySearch
from study.tracking.view import VIEW_TAG, saved_views, view_keys
from tests.study.factories import PretendedTune, make_plan
from trainables.spec.measures import ACCURACY

MATTHEWS = "val/matthews"


class OpposedTune(PretendedTune):
    """Trials in which accuracy falls while Matthews correlation rises."""

    def report(self, settings, epoch, value=None):
        score = settings["config"]["adapter_width"] / 1000 + epoch / 100
        measures = {ACCURACY: 1 - score, MATTHEWS: score, "cost/seconds": 0.5}
        self.ledger.record_epoch(settings["trial_id"], epoch, measures)


@pytest.fixture
def ran(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path, base={"dataset": "glue:cola"}))
    search = StudySearch(ledger, {"data_root": None})
    tune = OpposedTune(search, ledger)
    while (told := tune.next()) is not None:
        tune.finish(*told)
    return ledger, search


def test_a_plan_knows_the_measure_that_decides(tmp_path):
    assert make_plan(tmp_path / "text", base={"dataset": "glue:cola"}).objective == MATTHEWS
    assert make_plan(tmp_path / "images").objective == ACCURACY


def test_the_search_maximises_it_and_repeats_the_best_by_it(ran):
    ledger, search = ran
    searched = ledger.in_stage("search")
    widths = sorted((e.config.adapter_width for e in searched), reverse=True)
    assert [e.config.adapter_width for e in ledger.in_stage("replicate")[:2]] == widths[:2]
    (study,) = search._studies.values()
    values = {trial.value for trial in study.get_trials() if trial.state == optuna.trial.TrialState.COMPLETE}
    assert values == {e.last[MATTHEWS] for e in searched} == {e.score for e in searched}
    assert search.metric == MATTHEWS


def test_early_stopping_looks_at_it(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path, base={"dataset": "glue:mrpc"}, scheduler="asha"))
    assert SearchASHA(ledger).metric == "val/f1"


def test_a_trial_without_it_has_no_score(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path, base={"dataset": "glue:cola"}))
    tune = PretendedTune(StudySearch(ledger, {"data_root": None}), ledger)
    _, settings = tune.next()
    tune.report(settings, 1)  # accuracy only
    (entry,) = ledger.entries.values()
    assert math.isnan(entry.score)
    assert entry.scores == {}


def test_mlflows_view_of_the_trials_is_ordered_by_it(tmp_path):
    plan = make_plan(tmp_path, base={"dataset": "glue:cola"})
    view = saved_views(plan, "run")[f"{VIEW_TAG}{view_keys(plan)[0]}"]
    assert "metrics.`val/matthews`" in view
    assert "Sharpness gap against Matthews correlation" in view
