"""Searches that end without gain: the rule against Optuna's, resuming, trials that run at the end, and refusals."""

import io
import itertools
import math
import types

import numpy as np
import optuna
import pytest
from optuna.terminator import BestValueStagnationEvaluator
from optuna.trial import TrialState, create_trial

from study.cli.preview import describe_plan
from study.cli.progress import StudyProgress
from study.ledger.ledger import StudyLedger
from study.ledger.no_gain import find_no_gain, no_gain_notes, no_gain_summary
from study.plan.objectives import Limit
from study.plan.size import epochs_total
from study.plan.until import LEAST, PATIENCE
from study.search.preview import first_configs
from study.search.searcher import StudySearch
from study.stages.confirmation import describe_unfinished
from study.tracking.note import note_text
from tests.study.factories import PretendedTune, make_plan
from tests.study.typed import plan_of
from trainables.process.errors import UsageError
from trainables.spec.measures import ACCURACY, SHARPNESS_GAP

pytestmark = pytest.mark.unit


class Scored(PretendedTune):
    """Trials with given scores by number of the search trial; None fails, "stop" stops early."""

    def __init__(self, folder, scores, progress=None, **values):
        values = {"trials": 40, "until": "no-gain", "base": {"epochs": 1}, **values}
        ledger = StudyLedger(make_plan(folder, **values))
        super().__init__(StudySearch(ledger, {}), ledger)
        self.scores, self.progress = scores, progress

    def finish(self, tune_id, settings):
        entry = self.ledger.entries[settings["trial_id"]]
        score = self.scores(entry.ordinal) if entry.stage == "search" else 0.5
        result = {"finished": True}
        if score is None:
            result = {"finished": False, "failed": "why"}
        else:
            self.ledger.record_epoch(entry.trial_id, 1, {ACCURACY: abs(score), SHARPNESS_GAP: 0.1})
            result = {"finished": score > 0}
        self.search.on_trial_complete(tune_id, result)
        if self.progress is not None:
            self.progress.trial_changed(entry, self.ledger)


def rising_until(last):
    """Return scores that rise up to a trial and never surpass it afterwards."""
    return lambda number: 0.5 + 0.01 * min(number, last) - 0.001 * (number > last)


def trials_of(scores):
    """Return ended trials with scores, in their order."""
    return [
        types.SimpleNamespace(
            trial_id=f"t-{number}", name=f"n{number}", status="finished", score=score, ended=float(number),
            facts={}, last={}, config=None,
        )
        for number, score in enumerate(scores)
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_rule_is_that_of_optuna_after_the_least_number_of_trials(tmp_path):
    plan = make_plan(tmp_path, trials=60, until="no-gain")
    evaluator = BestValueStagnationEvaluator(PATIENCE)
    generator = np.random.default_rng(0)
    stops = []
    for _ in range(40):
        scores = np.round(generator.normal(size=60) + np.linspace(0, generator.uniform(0, 20), 60), 1).tolist()  # ties
        reference = [create_trial(state=TrialState.COMPLETE, value=score) for score in scores]
        direction = optuna.study.StudyDirection.MAXIMIZE
        stop = next((n for n in range(LEAST, 61) if evaluator.evaluate(reference[:n], direction) <= 0), None)
        found = find_no_gain(plan, trials_of(scores))
        assert (None if found is None else found.trials) == stop
        if found is not None:
            assert found.best.score == max(scores[:stop])
        stops.append(stop)
    assert None in stops
    assert len(set(stops)) > 8


def test_a_search_ends_without_gain_and_the_study_goes_on(tmp_path):
    shown = io.StringIO()
    plan = make_plan(tmp_path, trials=40, until="no-gain", base={"epochs": 1})
    tune = Scored(tmp_path, rising_until(13), StudyProgress(plan, stream=shown))
    ran = [trial["stage"] for trial in tune.run()]
    ledger = tune.ledger
    assert ran == ["search"] * 24 + ["control"] * 4 + ["replicate"] * 4  # trial 13 is the 14th
    assert ledger.planned == len(ran) < plan.total_trials
    assert describe_unfinished(ledger) is None
    assert not ledger.searching
    best = ledger.entries["planned-0013"]
    said = f"search ended without gain after 24 of at most 40 trials: the last 10 have not surpassed {best.name}"
    assert shown.getvalue().count(said) == 1
    (note,) = no_gain_notes(plan, ledger.in_stage("search"))
    assert said in note
    assert no_gain_summary(plan, ledger.in_stage("search")) == {
        "until": {"rule": "no-gain", "at_most": 40, "ended": {"trials": 24, "best": "planned-0013"}}
    }
    again = StudyLedger(plan, read_only=True)
    assert not StudySearch(again, {}).has_more
    assert again.planned == len(ran)


@pytest.mark.parametrize("counts", [(5, 18, 1), (24,), (23,), (1, 1, 22)])
def test_a_resumed_search_ends_where_an_uninterrupted_one_ends(counts, tmp_path):
    for count in counts:
        Scored(tmp_path, rising_until(13)).run(count)
    ran = Scored(tmp_path, rising_until(13)).run()
    plan = make_plan(tmp_path, trials=40, until="no-gain", base={"epochs": 1})
    assert len(StudyLedger(plan, read_only=True).in_stage("search")) == 24
    assert len(ran) == 24 + 8 - sum(counts)


def test_a_search_with_gains_uses_all_trials(tmp_path):
    tune = Scored(tmp_path, lambda number: 0.5 + number / 100, trials=30)
    tune.run()
    assert len(tune.ledger.in_stage("search")) == 30
    assert no_gain_notes(tune.ledger.plan, tune.ledger.in_stage("search")) == [
        "The search did not end early by --until no-gain."
    ]
    assert no_gain_summary(tune.ledger.plan, tune.ledger.in_stage("search"))["until"]["ended"] is None


def test_trials_that_run_at_the_end_are_finished_and_change_nothing(tmp_path):
    tune = Scored(tmp_path, rising_until(5))
    tune.run(18)
    running = [tune.next() for _ in range(4)]
    for got in running[:2]:
        tune.finish(*got)
    tune.scores = lambda _: 0.99  # the two that still run surpass all others
    assert tune.next()[1]["stage"] == "control"
    for got in running[2:]:
        tune.finish(*got)
    searched = tune.ledger.in_stage("search")
    assert len(searched) == 22
    assert find_no_gain(tune.ledger.plan, searched).trials == 20
    assert tune.next()[1]["stage"] == "control"


def test_failed_trials_do_not_count_and_stopped_ones_are_no_gain(tmp_path):
    failing = Scored(tmp_path / "failing", lambda number: None if number % 2 else rising_until(2)(number), trials=60)
    failing.run(60)
    assert len(failing.ledger.in_stage("search")) == 2 * LEAST - 1
    stopped = Scored(tmp_path / "stopped", lambda number: -0.9 if number > 11 else 0.5 + number / 100)
    stopped.run(40)
    found = find_no_gain(stopped.ledger.plan, stopped.ledger.in_stage("search"))
    assert (found.trials, found.best.trial_id) == (22, "planned-0011")
    never = Scored(tmp_path / "never", lambda _: -0.9)
    never.run(20)
    (note,) = no_gain_notes(never.ledger.plan, never.ledger.in_stage("search"))
    assert "after 20 of at most 40 trials: no trial has a value" in note


def test_a_trial_beyond_a_limit_is_no_gain(tmp_path):
    plan = make_plan(tmp_path, trials=40, until="no-gain", limits=[Limit(name="gap", value=0.5)])
    trials = trials_of([0.5] * 5 + [0.9] + [0.4] * 20)
    for number, trial in enumerate(trials):
        trial.last = {SHARPNESS_GAP: 0.6 if number == 5 else 0.1}
    assert find_no_gain(plan, trials).best.trial_id == "t-0"
    trials[5].last = {SHARPNESS_GAP: 0.4}
    assert find_no_gain(plan, trials).best.trial_id == "t-5"
    trials[5].score = math.nan
    assert find_no_gain(plan, trials).best.trial_id == "t-0"


def test_the_order_is_that_of_the_ends(tmp_path):
    plan = make_plan(tmp_path, trials=40, until="no-gain")
    trials = trials_of([0.5 + number / 100 for number in range(12)] + [0.4] * 12)
    expected = find_no_gain(plan, trials)
    for order in itertools.islice(itertools.permutations(range(24)), 0, 500, 100):
        assert find_no_gain(plan, [trials[number] for number in order]) == expected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--space joint --trials 20", "--until no-gain ends a search after 20 trials at the earliest: raise --trials"),
        ("--space joint --smoke", "raise --trials above 20"),
        ("--space method", "ends a search, and space 'method' searches nothing: leave it out"),
        ("--space method_tuned --trials 30", "the searches of all methods of space 'method_tuned' are equally long"),
        ("--space joint --trials 30 --objectives val/accuracy,val/ece", "several objectives have none"),
    ],
)
def test_a_search_that_cannot_end_early_is_refused(words, says, tmp_path):
    with pytest.raises(UsageError) as refused:
        plan_of(f"{words} --until no-gain", tmp_path)
    assert says in str(refused.value)


def test_the_preview_states_the_rule_and_an_upper_bound(tmp_path):
    plan = plan_of("--space joint --trials 30 --until no-gain", tmp_path)
    bare = plan_of("--space joint --trials 30", tmp_path)
    text = describe_plan(plan, first_configs(plan))
    assert (
        "until      the search ends when 10 trials in a row have not surpassed the best one, after at least 20" in text
    )
    assert f"trials     at most {plan.total_trials} = 30 search trials" in text
    assert "cost       at most" in text
    assert epochs_total(plan) == epochs_total(bare)
    assert "At most 30 configs by tpe" in note_text(plan)
    assert plan.digest != bare.digest
    assert no_gain_notes(bare, []) == []
    assert no_gain_summary(bare, []) == {}
    content = bare.model_dump(mode="json")
    assert content.pop("until") is None
    assert type(bare)(**content).digest == bare.digest
