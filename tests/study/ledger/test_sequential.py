"""Confirmations that add seeds until every comparison is decided; without Ray."""

import numpy as np
import pytest

from analysis.statistics.sequential import plan_looks
from study.cli.preview import describe_plan
from study.cli.request import resumed_plan
from study.confirm import main as confirm_main
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.ledger.sequential import comparisons_of, sequential_texts
from study.plan.confirmation import ConfirmationRequest
from study.search.searcher import StudySearch
from study.tracking.note import note_text
from tests.study.factories import PretendedSeeds, compare, make_plan
from trainables.process.errors import UsageError
from trainables.spec.measures import ACCURACY

pytestmark = pytest.mark.study

AUTO = {"configs": 2, "seeds": 30, "detect": 0.01}
MEANS = {"kd": 0.80, "ce": 0.70, "dkd": 0.801, "dist": 0.86}


class NoisyMethods(PretendedSeeds):
    """Trials with a planted mean for each method, and noise that depends on method and seed only."""

    def finish(self, tune_id, settings):
        config = settings["config"]
        noise = np.random.default_rng([config["seed"] % 2**32, list(MEANS).index(config["method"])]).normal(0, 0.012)
        accuracy = MEANS[config["method"]] + noise
        for epoch in range(1, config["epochs"] + 1):
            measures = {ACCURACY: accuracy, "cost/seconds": 0.5}
            if settings["reads_test"] and epoch == config["epochs"]:
                measures["test/accuracy"] = accuracy
            self.ledger.record_epoch(settings["trial_id"], epoch, measures)
        self.search.on_trial_complete(tune_id, {"finished": True})


def plan_in(folder, **values):
    return compare(folder, methods=list(MEANS), confirmation=AUTO, **values)


def confirmed_trials(ledger):
    return [(entry.config.method, entry.replicate) for entry in ledger.in_stage("confirm")]


@pytest.fixture
def whole_study(tmp_path):
    """Return the ledger of a study that ran without interruption."""
    ledger = StudyLedger(plan_in(tmp_path, name="whole"))
    NoisyMethods(StudySearch(ledger, {}), ledger).run()
    return ledger


def test_a_clear_comparison_stops_first_and_the_baseline_runs_as_long_as_any(whole_study):
    progress = whole_study.confirm_progress
    assert progress.complete
    assert whole_study.is_confirmed
    found = {each.label: each for each in progress.decided}
    assert (found["dist"].decision, found["ce"].decision, found["dkd"].decision) == ("better", "worse", "small")
    assert found["dist"].seeds < found["dkd"].seeds
    numbers = {method: sum(each == method for each, _ in confirmed_trials(whole_study)) for method in MEANS}
    assert numbers["kd"] == max(numbers.values()) < 30
    assert {each.label: each.seeds for each in progress.decided} == {m: numbers[m] for m in ("ce", "dkd", "dist")}
    assert whole_study.planned == len(whole_study.entries)
    first, second = sequential_texts(whole_study.confirmation, progress)
    assert "better than kd: dist" in first
    assert "not more than 0.01 from kd: dkd" in first
    assert "do not account for the looks" in second


@pytest.mark.parametrize("ran", [1, 5, 9, 23, 24, 25, 40])
def test_a_confirmation_that_was_stopped_anywhere_runs_the_same_trials_as_one_that_was_not(whole_study, tmp_path, ran):
    plan = plan_in(tmp_path, name="stopped")
    ledger, begun = StudyLedger(plan), len(whole_study.entries) - len(whole_study.in_stage("confirm"))
    tune = NoisyMethods(StudySearch(ledger, {}), ledger)
    tune.run(begun + ran)
    tune.next()  # left running, as after a kill
    ledger.close()
    again = StudyLedger(plan)
    NoisyMethods(StudySearch(again, {}), again).run()
    assert confirmed_trials(again) == confirmed_trials(whole_study)
    assert again.confirm_progress == whole_study.confirm_progress
    assert again.is_confirmed


def test_trials_of_the_next_look_wait_for_those_that_still_run(tmp_path):
    ledger = StudyLedger(plan_in(tmp_path))
    search = StudySearch(ledger, {})
    tune = NoisyMethods(search, ledger)
    tune.run(ledger.plan.total_trials)
    started = [tune.next() for _ in range(24)]  # six seeds of four methods
    assert all(each is not None for each in started)
    assert tune.next() is None
    assert search.has_more
    assert not ledger.is_confirmed
    for each in started:
        tune.finish(*each)
    assert tune.next() is not None


def test_a_search_is_confirmed_sequentially_too_and_never_beyond_the_largest_number(tmp_path):
    plan = make_plan(tmp_path, sampler="random", confirmation={"configs": 2, "seeds": 6, "detect": 0.0001})
    ledger = StudyLedger(plan)
    PretendedSeeds(StudySearch(ledger, {}), ledger).run()
    assert ledger.is_confirmed
    assert {entry.replicate for entry in ledger.in_stage("confirm")} == set(
        range(ledger.confirmation.first_replicate, ledger.confirmation.first_replicate + 6)
    )


def test_plan_note_and_preview_say_the_most_that_it_may_cost(tmp_path):
    shown = describe_plan(plan_in(tmp_path), [])
    assert "on 6 to 30 fresh seeds each: at most 120 additional trials" in shown
    assert "each stops when its comparisons are decided to ±0.01" in shown
    assert "confirmed on 6 to 30 additional seeds" in note_text(plan_in(tmp_path))


def test_a_request_with_a_fixed_number_is_stored_as_by_earlier_versions():
    assert ConfirmationRequest(configs=1, seeds=4).model_dump() == {"configs": 1, "seeds": 4}
    assert ConfirmationRequest(**AUTO).model_dump(mode="json") == AUTO


def test_a_finished_study_is_confirmed_with_auto_and_another_request_is_refused(tmp_path):
    ledger = StudyLedger(compare(tmp_path, methods=list(MEANS)))
    NoisyMethods(StudySearch(ledger, {}), ledger).run()
    ledger.plan.save()
    given = {"confirm": 2, "seeds": "auto", "detect": 0.01, "most_seeds": 30}
    plan = resumed_plan("planned", tmp_path, given, confirms=True)
    assert plan.confirmation == ConfirmationRequest(**AUTO)
    plan.save()
    again = StudyLedger(plan)
    NoisyMethods(StudySearch(again, {}), again).run()
    for other in ({"seeds": "auto"}, {"seeds": 30}, {**given, "detect": 0.02}):
        with pytest.raises(UsageError, match=r"up to 30 \(auto, to ±0.01\) seeds, but"):
            resumed_plan("planned", tmp_path, other, confirms=True)
    assert resumed_plan("planned", tmp_path, {}, confirms=True).confirmation == plan.confirmation


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seeds", "many"], "--seeds many: give a number, such as 10, or auto"),
        (["--seeds", "5", "--detect", "0.01"], "--detect 0.01 is only for a number of seeds that is found"),
        (["--most-seeds", "9"], "--most-seeds 9 is only for a number of seeds that is found"),
        (["--seeds", "auto", "--detect", "1"], "--detect 1: give a difference between 0 and 1"),
        (["--seeds", "auto", "--detect", "nan"], "--detect nan: give a difference between 0 and 1"),
        (["--seeds", "auto", "--most-seeds", "5"], "--most-seeds 5: give a number from 6 to 10,000"),
    ],
)
def test_impossible_requests_are_refused_before_any_work(command, tmp_path, arguments, expected):
    done = command(
        launch_main, "--space", "joint", "--confirm", "1", *arguments, "--dry-run", "--output-dir", tmp_path / "out"
    )
    assert done.code == 2
    assert expected in done.err
    StudyLedger(make_plan(tmp_path)).close()
    make_plan(tmp_path).save()
    done = command(confirm_main, "planned", *arguments, "--dry-run", "--output-dir", tmp_path)
    assert done.code == 2
    assert expected in done.err


def test_methods_with_several_searches_are_decided_by_the_means_of_their_configs(tmp_path):
    ledger = StudyLedger(plan_in(tmp_path, space="method_tuned", searches_per_method=2, trials=4))
    NoisyMethods(StudySearch(ledger, {}), ledger).run()
    progress = ledger.confirm_progress
    assert progress.complete
    assert sorted(each.label for each in progress.decided) == ["ce", "dist", "dkd"]
    found = {each.label: each for each in progress.decided}
    assert (found["dist"].decision, found["ce"].decision) == ("better", "worse")
    first = ledger.confirmation.first_replicate
    scores = {
        (entry.config.config_id, entry.replicate): entry.last["test/accuracy"] for entry in ledger.in_stage("confirm")
    }
    one, other = next(
        pair for pair in comparisons_of(ledger.confirmation.choices, compares_methods=True) if pair[0].label == "dkd"
    )
    looks = plan_looks(0.01, 30, 3)
    last = looks.looks.index(found["dkd"].seeds)
    means = [
        [np.mean([scores[each, replicate] for each in side.config_ids]) for side in (one, other)]
        for replicate in range(first, first + found["dkd"].seeds)
    ]
    assert looks.decide([own - against for own, against in means], last) == found["dkd"].decision
    assert "The decisions hold for the configs found" in sequential_texts(ledger.confirmation, progress)[1]
