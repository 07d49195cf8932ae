"""Searches with several objectives and limits: what Optuna is told, resuming, the front, repetitions and confirmation.

The trials are pretended: their measures are known functions of the config.
"""

import json
import math

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from analysis.statistics.pareto import non_dominated
from study.ledger.front import searched_configs
from study.ledger.ledger import StudyLedger
from study.ledger.promising import promising_configs
from study.plan.objectives import Limit, given_objectives
from study.result.best import find_best
from study.result.pareto import pareto_metrics, pareto_summary
from study.search.searcher import StudySearch
from study.stages.choosing import count_candidates
from study.stages.confirmation import confirmation_request
from tests.study.factories import PretendedTune, make_plan
from trainables.spec.measures import ACCURACY, DEPLOY_LATENCY, SHARPNESS_GAP

pytestmark = pytest.mark.unit
STUDENTS = {"cnn_3_4": 1.0, "cnn_8_16": 2.0, "cnn_16_32": 4.0}
OBJECTIVES = (ACCURACY, "latency")
LIMITS = (("latency", 0.003), ("gap", 0.8))


class Pretended(PretendedTune):
    """Trials with measures that depend on student, temperature and seed; those in `fails` fail."""

    fails = frozenset()

    def finish(self, tune_id, settings):
        config, number = settings["config"], self.ledger.entries[settings["trial_id"]].ordinal
        if number in self.fails:
            self.search.on_trial_complete(tune_id, {"finished": False, "failed": "why"})
            return
        size = STUDENTS[config["student"]]
        accuracy = 0.6 + 0.08 * size - abs(math.log(config["temperature"] / 4)) / 20 + (config["seed"] % 100) / 1e4
        measures = {
            ACCURACY: accuracy, SHARPNESS_GAP: math.log(config["temperature"] / 4), "val/ece_student": 0.1 / size,
            "cost/seconds": 0.5, **({"test/accuracy": accuracy - 0.01} if settings["reads_test"] else {}),
        }  # fmt: skip
        for epoch in range(1, config["epochs"] + 1):
            self.ledger.record_epoch(settings["trial_id"], epoch, measures)
        self.search.on_trial_complete(tune_id, {"finished": True})


def several(folder, *, objectives=OBJECTIVES, limits=(), **values):
    """Return a plan with three students and the given objectives."""
    search = values.pop("search", [
        {"field": "student", "kind": "categorical", "choices": list(STUDENTS)},
        {"field": "temperature", "kind": "float", "low": 1.0, "high": 16.0, "log": True},
    ])  # fmt: skip
    return make_plan(
        folder, space="none", search=search, objectives=objectives,
        limits=[Limit(name=name, value=value) for name, value in limits],
        **{"trials": 24, "promising": 2, "replicates": 2, "controls": ("ce", "kd"), **values},
    )  # fmt: skip


def measured(plan):
    """Return a ledger whose students are measured: latency in ms equals size."""
    ledger = StudyLedger(plan)
    for student, size in STUDENTS.items():
        if student not in ledger.deployment:
            ledger.record_deployment(student, {DEPLOY_LATENCY: size / 1e3, "deploy/size_bytes": size * 1e4})
    return ledger


def proposals(ledger):
    return [(e.config.student, e.config.temperature) for e in ledger.in_stage("search")]


def run_search(ledger, count):
    tune = Pretended(StudySearch(ledger, {}), ledger)
    tune.run(count)
    return tune.search


@pytest.mark.parametrize(("sampler", "limits"), [("tpe", ()), ("tpe", LIMITS), ("nsga2", LIMITS)])
def test_a_resumed_search_proposes_what_an_uninterrupted_one_proposes(tmp_path, sampler, limits):
    whole = measured(several(tmp_path, name="whole", sampler=sampler, limits=limits))
    run_search(whole, 16)
    interrupted = several(tmp_path, name="parts", sampler=sampler, limits=limits)
    for count in (5, 7, 4):
        run_search(measured(interrupted), count)
    assert proposals(StudyLedger(interrupted)) == proposals(whole)
    assert len(set(proposals(whole))) > 8


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_optuna_is_told_every_objective_in_its_direction_and_the_limits(tmp_path, sampler):
    ledger = measured(several(tmp_path, sampler=sampler, limits=[("latency", 0.002), ("gap", 0.5)]))
    search = run_search(ledger, 12)
    again = StudySearch(StudyLedger(ledger.plan), {})
    for study in (search.optuna_study, again.optuna_study):
        assert [each.name for each in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        for trial, entry in zip(study.trials, ledger.in_stage("search"), strict=True):
            assert trial.state == TrialState.COMPLETE
            assert trial.values == [entry.score, STUDENTS[entry.config.student] / 1e3]
            assert trial.constraints == pytest.approx(
                {"latency": STUDENTS[entry.config.student] / 2 - 1,
                 "gap": abs(math.log(entry.config.temperature / 4)) / 0.5 - 1}
            )  # fmt: skip
    feasible = {t.number for t in search.optuna_study.best_trials}
    on_front = {c.config.config_id for c in searched_configs(ledger) if c.is_on_front}
    assert {e.config.config_id for n, e in enumerate(ledger.in_stage("search")) if n in feasible} == on_front


def test_a_trial_without_a_value_of_an_objective_counts_as_failed_for_the_sampler(tmp_path):
    ledger = measured(several(tmp_path, objectives=(ACCURACY, "val/ece")))
    tune = PretendedTune(StudySearch(ledger, {}), ledger)
    tune.run(2)  # reports accuracy alone
    assert [each.state for each in tune.search.optuna_study.trials] == [TrialState.FAIL] * 2
    assert [each.status for each in ledger.in_stage("search")] == ["finished"] * 2
    assert not any(each.is_on_front for each in searched_configs(ledger))


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_sampler_learns_from_the_limit(tmp_path, sampler):
    """The most accurate student is beyond the limit: the search leaves it, and without the limit seeks it."""
    shares = []
    for limits in ((), (("latency", 0.002),)):
        ledger = measured(
            several(tmp_path, name=f"n{len(limits)}", objectives=(), limits=limits, trials=60, sampler=sampler)
        )
        run_search(ledger, 60)
        later = ledger.in_stage("search")[36:]
        shares.append(np.mean([STUDENTS[entry.config.student] <= 2 for entry in later]))
    assert shares[0] < 0.5 < shares[1]


def test_the_front_is_that_of_the_trials_and_no_config_beyond_a_limit_is_on_it(tmp_path):
    ledger = measured(several(tmp_path, limits=[("latency", 0.002)]))
    run_search(ledger, 24)
    found = searched_configs(ledger)
    assert [each.is_within for each in found] == [STUDENTS[each.config.student] <= 2 for each in found]
    within = [each for each in found if each.is_within]
    points = [(each.values[ACCURACY], each.values["latency"]) for each in within]
    assert [each.is_on_front for each in within] == non_dominated(points, (True, False))
    assert {each.config.student for each in found if each.is_on_front} == {"cnn_3_4", "cnn_8_16"}


def test_the_best_of_the_front_are_repeated_and_the_whole_front_is_confirmed(tmp_path):
    plan = several(tmp_path)
    ledger = measured(plan)
    Pretended(StudySearch(ledger, {}), ledger).run()
    front = [each for each in searched_configs(ledger) if each.is_on_front]
    best = sorted(front, key=lambda each: -each.values[ACCURACY])
    assert len(front) == 3
    assert [each.config_id for each in promising_configs(ledger)] == [each.config.config_id for each in best[:2]]
    assert {e.config.config_id for e in ledger.in_stage("replicate")} == {e.config.config_id for e in best[:2]}
    assert count_candidates(ledger) == len(front)
    request = confirmation_request(ledger, None, None)
    assert request.configs == len(front)
    again = StudyLedger(plan.model_copy(update={"confirmation": request.model_copy(update={"seeds": 3})}))
    Pretended(StudySearch(again, {}), again).run()
    ranked = [choice for choice in again.confirmation.choices if choice.rank is not None]
    assert {choice.config.config_id for choice in ranked} == {each.config.config_id for each in front}
    summary = json.loads(json.dumps(pareto_summary(again)))
    rows = [row for row in summary["configs"] if row["is_on_front"]]
    assert all(row["confirmed"]["test/accuracy"]["n"] == 3 for row in rows)
    assert [row["is_on_confirmed_front"] for row in rows] == [True] * 3
    assert all(row["is_on_confirmed_front"] is None for row in summary["configs"] if not row["is_on_front"])
    tested = {e.config_id: [] for e in again.in_stage("confirm")}
    for entry in again.in_stage("confirm"):
        tested[entry.config_id].append(entry.last["test/accuracy"])
    for row in rows:
        assert row["confirmed"]["test/accuracy"]["value"] == pytest.approx(np.mean(tested[row["config_id"]]))
    assert pareto_metrics(summary) == {
        "front/configs": 3.0,
        "front/best_val_accuracy": max(row["values"][ACCURACY] for row in rows),
        "front/best_latency": 0.001,
    }


def test_a_limit_alone_keeps_one_objective_and_excludes_configs_beyond_it(tmp_path):
    ledger = measured(several(tmp_path, objectives=(), limits=[("latency", 0.002)]))
    search = run_search(ledger, 24)
    assert search.optuna_study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert search.optuna_study.trials[0].intermediate_values
    best = max((e for e in ledger.in_stage("search") if STUDENTS[e.config.student] <= 2), key=lambda entry: entry.score)
    assert promising_configs(ledger)[0].config_id == best.config.config_id
    assert max(ledger.in_stage("search"), key=lambda entry: entry.score).config.student == "cnn_16_32"
    assert find_best(ledger.plan, ledger, [], None).config_id == best.config_id


def test_without_a_config_within_the_limits_nothing_is_repeated(tmp_path):
    ledger = measured(several(tmp_path, objectives=(), limits=[("gap", 1e-9)]))
    Pretended(StudySearch(ledger, {}), ledger).run()
    assert promising_configs(ledger) == []
    assert ledger.in_stage("replicate") == []
    assert not [row for row in pareto_summary(ledger)["configs"] if row["is_within_limits"]]
    assert find_best(ledger.plan, ledger, [], None) is None


def test_a_failed_trial_is_on_no_front_and_the_search_goes_on(tmp_path):
    ledger = measured(several(tmp_path))
    tune = Pretended(StudySearch(ledger, {}), ledger)
    tune.fails = frozenset({0, 3})
    tune.run(8)
    assert [t.state for t in tune.search.optuna_study.trials].count(TrialState.FAIL) == 2
    assert len(searched_configs(ledger)) == len({e.config.config_id for e in ledger.in_stage("search") if e.epochs})


def test_a_study_of_one_objective_has_no_front_and_its_old_digest(tmp_path):
    plan = make_plan(tmp_path)
    assert (plan.objectives, plan.limits, plan.latency) == ((), (), None)
    assert pareto_summary(StudyLedger(plan)) is None
    assert pareto_metrics(None) == {}
    bare = plan.model_dump(mode="json")
    for name in ("objectives", "limits", "latency"):
        del bare[name]  # as an earlier version wrote it
    assert type(plan)(**bare).digest == plan.digest
    assert several(tmp_path).digest != several(tmp_path, objectives=()).digest


def test_options_are_read_with_the_objective_of_the_dataset():
    found = given_objectives(
        {"objectives": "val/accuracy,latency", "limit": ["size=2MB", "gap=1"], "dataset": "digits"}
    )
    assert found["objectives"] == OBJECTIVES
    assert [(each.name, each.value) for each in found["limits"]] == [("size", 2e6), ("gap", 1.0)]
    assert given_objectives({}) == {}
    with pytest.raises(ValueError, match="more than once: size, size"):
        given_objectives({"limit": ["size=2MB", "size=1MB"]})


def test_a_limit_as_typed_gives_the_same_limit_again():
    for limit in given_objectives({"limit": ["latency=5ms", "size=2MiB", "flops=50M", "val/ece=0.05"]})["limits"]:
        assert given_objectives({"limit": [limit.text]})["limits"] == (limit,)
