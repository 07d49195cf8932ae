"""Repetitions that are added until every comparison with kd is decided; without Ray."""

import json

import numpy as np
import pytest

from analysis.statistics.sequential import plan_looks
from study.cli.preview import describe_plan
from study.cli.request import resumed_plan
from study.cli.start_command import start_command
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.ledger.promising import promising_configs
from study.ledger.repetitions import repetition_summary, repetition_texts
from study.plan.repetitions import with_replicates
from study.search.searcher import StudySearch
from study.stages.confirmation import confirmation_request, describe_unfinished
from study.tracking.note import note_text
from tests.study.factories import PretendedSeeds, compare, make_plan
from trainables.process.errors import UsageError
from trainables.spec.measures import ACCURACY

pytestmark = pytest.mark.study

MEANS = {"kd": 0.80, "ce": 0.70, "dkd": 0.801, "dist": 0.86}
AUTO = {"replicates": 30, "replicates_detect": 0.01}


class Noisy(PretendedSeeds):
    """Trials with a planted mean for each method, and noise that depends on method and seed only."""

    means = MEANS

    def finish(self, tune_id, settings):
        config = settings["config"]
        noise = np.random.default_rng([config["seed"] % 2**32, len(config["method"])]).normal(0, 0.012)
        accuracy = self.means.get(config["method"], 0.85) + noise
        for epoch in range(1, config["epochs"] + 1):
            self.ledger.record_epoch(settings["trial_id"], epoch, {ACCURACY: accuracy, "cost/seconds": 0.5})
        self.search.on_trial_complete(tune_id, {"finished": True})


def run(plan, means=MEANS):
    """Run a study with planted means and return the ledger."""
    ledger = StudyLedger(plan)
    tune = Noisy(StudySearch(ledger, {}), ledger)
    tune.means = means
    tune.run()
    return ledger


def repeated(ledger):
    return [(e.config.config_id, e.replicate) for stage in ("control", "replicate") for e in ledger.in_stage(stage)]


def test_methods_are_repeated_until_each_is_decided_and_kd_as_long_as_any(tmp_path):
    ledger = run(compare(tmp_path, methods=list(MEANS), **AUTO))
    progress = ledger.repetition_progress
    found = {each.label: each for each in progress.decided}
    assert {each.against for each in found.values()} == {"kd"}
    assert (found["dist"].decision, found["ce"].decision, found["dkd"].decision) == ("better", "worse", "small")
    assert found["dist"].seeds == 6 < found["dkd"].seeds < 30
    counts = {m: sum(e.config.method == m for e in ledger.in_stage("control")) for m in MEANS}
    assert counts == {"dist": 6, "ce": found["ce"].seeds, "dkd": found["dkd"].seeds, "kd": found["dkd"].seeds}
    assert describe_unfinished(ledger) is None
    assert ledger.planned == len(ledger.entries) < ledger.plan.total_trials
    scores = {m: {e.replicate: e.score for e in ledger.in_stage("control") if e.config.method == m} for m in MEANS}
    looks = plan_looks(0.01, 30, 3)
    for name, each in found.items():
        differences = [scores[name][r] - scores["kd"][r] for r in range(1, each.seeds + 1)]
        assert looks.decide(differences, looks.looks.index(each.seeds)) == each.decision
    first, second = repetition_texts(ledger)
    assert "Seeds were added, up to 30, until each of 3 comparisons was decided to ±0.01" in first
    assert "do not account for the looks" in second
    assert json.loads(json.dumps(repetition_summary(ledger)))["repetitions"]["complete"]


def test_promising_configs_and_controls_of_a_search_are_repeated_until_decided(tmp_path):
    ledger = run(make_plan(tmp_path, sampler="random", **AUTO))
    progress = ledger.repetition_progress
    assert progress.complete
    names = [each.label for each in progress.decided]
    assert names[0] == "ce"
    assert len(names) == 1 + len(promising_configs(ledger)) == 3
    assert {each.decision for each in progress.decided} == {"worse", "better"}
    assert {e.replicate for e in ledger.in_stage("replicate")} == set(range(1, 7))
    assert {(e.stage, e.config.method) for e in ledger.entries.values() if e.stage != "search"} == {
        ("control", "ce"),
        ("control", "kd"),
        ("replicate", "pesf_kd"),
    }


def test_at_the_largest_number_what_is_not_decided_stays_open(tmp_path):
    plan = compare(tmp_path, methods=["kd", "dkd"], replicates=8, replicates_detect=0.0001)
    ledger = run(plan)
    (only,) = ledger.repetition_progress.decided
    assert (only.decision, only.seeds) == (None, 8)
    assert "Only more seeds can settle the open comparisons" in repetition_texts(ledger)[0]


@pytest.mark.parametrize("ran", [2, 4, 9, 16, 29, 31, 40])
def test_a_study_that_was_stopped_anywhere_runs_the_same_trials_as_one_that_was_not(tmp_path, ran):
    whole = run(make_plan(tmp_path / "whole", sampler="random", **AUTO), means={**MEANS, "pesf_kd": 0.803})
    plan = make_plan(tmp_path / "stopped", sampler="random", **AUTO)
    ledger = StudyLedger(plan)
    tune = Noisy(StudySearch(ledger, {}), ledger)
    tune.means = {**MEANS, "pesf_kd": 0.803}
    tune.run(ran)
    tune.next()  # left running, as after a kill
    ledger.close()
    again = run(plan, means=tune.means)
    assert repeated(again) == repeated(whole)
    assert again.repetition_progress == whole.repetition_progress
    assert describe_unfinished(again) is None


def test_trials_of_the_next_look_wait_for_those_that_still_run(tmp_path):
    ledger = StudyLedger(compare(tmp_path, methods=list(MEANS), **AUTO))
    search = StudySearch(ledger, {})
    tune = Noisy(search, ledger)
    started = [tune.next() for _ in range(24)]  # six seeds of four methods
    assert all(each is not None for each in started)
    assert tune.next() is None
    assert search.has_more
    assert describe_unfinished(ledger) is not None
    for each in started:
        tune.finish(*each)
    assert tune.next() is not None


def test_methods_with_several_searches_are_compared_by_the_means_of_their_configs(tmp_path):
    ledger = run(compare(tmp_path, "method_tuned", methods=list(MEANS), searches_per_method=2, trials=4, **AUTO))
    found = {each.label: each for each in ledger.repetition_progress.decided}
    assert set(found) == {"ce", "dkd", "dist"}
    assert (found["dist"].decision, found["ce"].decision) == ("better", "worse")
    assert "The decisions hold for the configs found" in repetition_texts(ledger)[1]


def test_such_a_study_can_be_confirmed_when_it_has_finished_and_not_before(tmp_path):
    plan = make_plan(tmp_path, sampler="random", **AUTO)
    plan.save()
    ledger = StudyLedger(plan)
    tune = Noisy(StudySearch(ledger, {}), ledger)
    tune.run(12)
    ledger.close()
    with pytest.raises(UsageError, match="adds repetitions until its comparisons are decided"):
        resumed_plan("planned", tmp_path, {"confirm": 1})
    ledger = run(plan)
    ledger.close()
    confirmed = resumed_plan("planned", tmp_path, {"confirm": 1, "seeds": "3"}, confirms=True)
    ledger = StudyLedger(confirmed)
    assert confirmation_request(ledger, 1, None) == confirmed.confirmation
    Noisy(StudySearch(ledger, {}), ledger).run()
    assert {e.replicate for e in ledger.in_stage("tune")} == set(range(1, 7))
    assert ledger.confirmation.first_replicate > max(e.replicate for e in ledger.in_stage("replicate"))
    assert ledger.is_confirmed


def test_the_same_request_may_be_given_at_a_resume_and_no_other(tmp_path):
    plan = make_plan(tmp_path, sampler="random", **AUTO)
    plan.save()
    same = {"replicates": "auto", "detect": 0.01, "most_seeds": 30}
    assert resumed_plan("planned", tmp_path, same).replicates_detect == 0.01
    for other in ({**same, "detect": 0.02}, {**same, "most_seeds": 31}, {"replicates": "30"}):
        with pytest.raises(UsageError, match="cannot be resumed with another plan"):
            resumed_plan("planned", tmp_path, other)


def test_preview_note_and_command_say_the_most_that_it_may_cost(tmp_path):
    plan = make_plan(tmp_path, **AUTO)
    shown = describe_plan(plan, [])
    assert "trials     at most 125 = 5 search trials + 2 controls (ce, kd) x 6 to 30 seeds" in shown
    assert "repeats    until every comparison with kd is decided to ±0.01 on the validation split" in shown
    assert "on 6 to 30 fresh seeds each" in note_text(plan)
    assert "--replicates auto --detect 0.01 --most-seeds 30" in start_command(plan)


def test_plans_with_a_fixed_number_have_the_digest_of_earlier_versions(tmp_path):
    assert "replicates_detect" not in make_plan(tmp_path).model_dump(exclude_defaults=True)
    assert make_plan(tmp_path).digest != make_plan(tmp_path, **AUTO).digest
    assert with_replicates({"replicates": "7"}) == {"replicates": 7, "replicates_detect": None}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--replicates", "many"], "--replicates many: give a number, such as 12, or auto"),
        (["--replicates", "auto", "--confirm", "1"], "--replicates auto is for a study without a confirmation"),
        (["--replicates", "auto", "--smoke"], "--replicates auto needs many seeds, and --smoke runs one"),
        (["--replicates", "auto", "--detect", "1"], "--detect 1: give a difference between 0 and 1"),
        (["--replicates", "auto", "--most-seeds", "5"], "--most-seeds 5: give a number from 6 to 10,000"),
        (["--replicates", "9", "--detect", "0.01"], "--detect 0.01 is only for a number of seeds that is found"),
    ],
)
def test_requests_that_make_no_sense_are_refused_before_any_work(command, tmp_path, arguments, expected):
    done = command(launch_main, "--space", "joint", *arguments, "--dry-run", "--output-dir", tmp_path / "out")
    assert done.code == 2
    assert expected in done.err
    assert not (tmp_path / "out").exists()


def test_a_study_without_another_config_to_compare_with_kd_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the study has only kd"):
        compare(tmp_path, methods=["kd"], **AUTO)
    with pytest.raises(UsageError, match="the study has no kd"):
        make_plan(tmp_path, controls=("ce",), **AUTO)
    with pytest.raises(UsageError, match="number at least 6"):
        make_plan(tmp_path, replicates=5, replicates_detect=0.01)
