"""Searches that start from earlier studies: which trials are taken, how samplers get them, resuming, and refusals.

The trials are pretended: accuracies are known functions of the config.
"""

import json
import math

import numpy as np
import pytest
from optuna.trial import TrialState

from study.cli.config_text import config_text
from study.cli.preview import describe_plan
from study.cli.request import resumed_plan
from study.cli.start_command import start_command
from study.launch import plan_summary
from study.ledger.earlier import with_earlier
from study.ledger.ledger import StudyLedger
from study.ledger.same_data import refuse_earlier_of_other_data
from study.plan import warm_start
from study.plan.beliefs import read_beliefs
from study.plan.bounds import read_bounds
from study.plan.objectives import Limit
from study.plan.places import begin_study
from study.plan.resolve import load_plan
from study.plan.warm_start import warm_start_notes
from study.search.preview import first_configs
from study.search.searcher import StudySearch
from study.search.warm_start import optuna_trials
from tests.study.factories import PretendedTune, make_plan
from tests.study.typed import plan_of
from trainables.process.errors import StudyError, UsageError
from trainables.spec.measures import ACCURACY, DEPLOY_LATENCY, SHARPNESS_GAP

pytestmark = pytest.mark.unit
BOUNDS = ("adapter_width=2:64:log", "ce_weight=0:1")
DATA = {"digest": "d" * 64, "train": 10, "validation": 5}


class Pretended(PretendedTune):
    """Trials that are best at width 8 and cross-entropy weight 0.3."""

    def finish(self, tune_id, settings):
        config = settings["config"]
        accuracy = 1 - (abs(math.log(config["adapter_width"] / 8)) + abs(config["ce_weight"] - 0.3)) / 10
        measures = {ACCURACY: accuracy, SHARPNESS_GAP: 0.1, "val/ece_student": 0.2 - config["ce_weight"] / 10}
        for epoch in range(1, config["epochs"] + 1):
            self.ledger.record_epoch(settings["trial_id"], epoch, measures)
        self.search.on_trial_complete(tune_id, {"finished": True})


def planned(folder, name, bounds=BOUNDS, **values):
    search = [each.__dict__ for each in read_bounds(bounds)]
    return make_plan(folder, name=name, space="none", search=search, **{"trials": 16, **values})


def drive(plan, count):
    """Run trials of a study, and return the search."""
    ledger = StudyLedger(plan)
    if ledger.dataset is None:
        ledger.record_dataset(DATA)
    tune = Pretended(StudySearch(ledger, {}), ledger)
    tune.run(count)
    return tune.search


def earlier(folder, count=12, name="old", **values):
    """Run the search of an earlier study, and return the plan."""
    plan = planned(folder, name, **values)
    plan.save()
    drive(plan, count)
    return plan


def configs_of(plan):
    return [entry.config for entry in StudyLedger(plan, read_only=True).in_stage("search")]


@pytest.fixture
def new_process(monkeypatch):
    """Forget the trials that this process has read from earlier studies, as a new process would."""
    return lambda: monkeypatch.setattr(warm_start, "_taken", {})


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2"])
def test_a_sampler_starts_from_the_trials_and_a_resume_needs_no_other_study(sampler, tmp_path, new_process):
    earlier(tmp_path, 14)
    proposals = []
    for folder, counts in (("whole", (4,)), ("parts", (1, 2, 1))):
        plan = with_earlier(planned(tmp_path, folder, sampler=sampler), "old")
        assert (plan.warm_start[0].used, plan.warm_start[0].first) == (14, ())
        plan.directory.rmdir()
        begin_study(plan, "")
        for count in counts:
            new_process()
            if folder == "parts":
                (tmp_path / "old").rename(tmp_path / "moved")
            search = drive(load_plan(plan.directory), count)
            if folder == "parts":
                (tmp_path / "moved").rename(tmp_path / "old")
        proposals.append([(each.adapter_width, each.ce_weight) for each in configs_of(plan)])
    assert proposals[0] == proposals[1]
    assert len(search.optuna_study.trials) == 18
    # None of the 4 proposals is random: without earlier trials, they would be.
    bare = planned(tmp_path, "bare", sampler=sampler)
    drive(bare, 4)
    assert proposals[0] != [(each.adapter_width, each.ce_weight) for each in configs_of(bare)]


def test_a_search_that_starts_from_trials_begins_near_the_optimum(tmp_path):
    """Over 4 searches of 6 proposals, all of which are random without earlier trials."""
    earlier(tmp_path, 40, trials=40)
    distances = {"bare": [], "warm": []}
    for seed in range(1, 5):
        for name, found in distances.items():
            plan = planned(tmp_path, f"{name}{seed}", seed=seed)
            drive(with_earlier(plan, "old") if name == "warm" else plan, 6)
            found += [abs(math.log(each.adapter_width / 8)) for each in configs_of(plan)]
    assert np.mean(distances["warm"]) < 0.7 * np.mean(distances["bare"])


def test_the_sampler_gets_the_values_of_the_journal(tmp_path):
    source = earlier(tmp_path)
    plan = with_earlier(planned(tmp_path, "new"), "old")
    search = drive(plan, 1)
    entries = StudyLedger(source, read_only=True).in_stage("search")
    for trial, entry in zip(search.optuna_study.trials, entries, strict=False):
        assert trial.state == TrialState.COMPLETE
        assert trial.value == entry.score
        assert trial.params == {"adapter_width": entry.config.adapter_width, "ce_weight": entry.config.ce_weight}
        assert trial.intermediate_values == entry.scores
    assert len(search.optuna_study.trials) == len(entries) + 1
    new = StudyLedger(plan, read_only=True)
    assert len(new.in_stage("search")) == 1  # they are in no table


@pytest.mark.parametrize(
    ("source", "new", "differs"),
    [
        ({"base": {"epochs": 5}}, {}, "values are not used: epochs 5, here 4"),
        ({"base": {"batch_size": 32}}, {}, "batch_size 32, here"),
        ({"teacher_normalisation": ((0.1,), (0.2,))}, {}, "another normalisation of the teacher's input"),
        ({}, {"overrides": {"temperature": 9.0}}, "temperature 4.0, here 9.0"),
    ],
)
def test_of_another_question_the_best_configs_are_proposed_first(source, new, differs, tmp_path):
    old = earlier(tmp_path, **source)
    plan = with_earlier(planned(tmp_path, "new", **new), "old")
    (taken,) = plan.warm_start
    assert taken.used == 0
    assert differs in taken.words
    ranked = sorted(StudyLedger(old, read_only=True).in_stage("search"), key=lambda entry: -entry.score)
    best = [(each.config.adapter_width, each.config.ce_weight) for each in ranked[:4]]
    drive(plan, 6)
    proposed = [(each.adapter_width, each.ce_weight) for each in configs_of(plan)]
    assert proposed[:4] == best  # 16 trials // 4
    assert proposed[4] not in best
    assert [tuple(each.values()) for each in first_configs(plan)[:4]] == best


def test_at_most_five_configs_are_proposed_first_after_a_belief_and_fields_not_in_common_are_the_samplers(tmp_path):
    earlier(tmp_path, bounds=("adapter_width=2:64:log",))
    bounds = ("adapter_width=4:64:log", "ce_weight=0:1")
    plan = planned(tmp_path, "new", bounds=bounds, trials=40, prior=read_beliefs(["ce_weight=0.5"]))
    plan = with_earlier(plan, "old")
    assert len(plan.warm_start[0].first) <= 5
    assert all(each.keys() == {"adapter_width"} and each["adapter_width"] >= 4 for each in plan.warm_start[0].first)
    drive(plan, 6)
    found = configs_of(plan)
    assert found[0].ce_weight == 0.5
    widths = [each["adapter_width"] for each in plan.warm_start[0].first]
    assert [each.adapter_width for each in found[1 : 1 + len(widths)]] == widths


def test_several_studies_and_objectives_are_taken(tmp_path):
    for name in ("one", "two"):
        earlier(tmp_path, 6, name=name)
    earlier(tmp_path, 8, name="other", base={"epochs": 5})
    search = {"objectives": (ACCURACY, "val/ece"), "limits": [Limit(name="gap", value=0.05)]}
    for sampler in ("tpe", "nsga2"):
        plan = with_earlier(planned(tmp_path, f"new-{sampler}", sampler=sampler, trials=60, **search), "one, two,other")
        assert [each.used for each in plan.warm_start] == [6, 6, 0]
        assert 1 <= len(plan.warm_start[2].first) <= 5
        trials = drive(plan, 2).optuna_study.trials
        for trial in trials[:12]:
            assert len(trial.values) == 2
            assert trial.values[1] == pytest.approx(0.2 - trial.params["ce_weight"] / 10)
            assert trial.constraints == pytest.approx({"gap": 1.0})
        assert len(trials) == 14


def test_latencies_of_other_machines_are_not_used(tmp_path):
    bounds = ("student=cnn_3_4,cnn_8_16", "ce_weight=0:1")

    class Widths(Pretended):
        def finish(self, tune_id, settings):
            self.ledger.record_epoch(settings["trial_id"], 1, {ACCURACY: 0.5, SHARPNESS_GAP: 0.1})
            for epoch in range(2, settings["config"]["epochs"] + 1):
                self.ledger.record_epoch(settings["trial_id"], epoch, {ACCURACY: 0.5, SHARPNESS_GAP: 0.1})
            self.search.on_trial_complete(tune_id, {"finished": True})

    values = {"objectives": (ACCURACY, "latency"), "latency": 1}
    source = planned(tmp_path, "old", bounds=bounds, **values)
    source.save()
    ledger = StudyLedger(source)
    ledger.record_dataset(DATA)
    for student in ("cnn_3_4", "cnn_8_16"):
        ledger.record_deployment(student, {DEPLOY_LATENCY: 9.0, "deploy/size_bytes": 1.0})
    tune = Widths(StudySearch(ledger, {}), ledger)
    tune.run(6)
    plan = with_earlier(planned(tmp_path, "new", bounds=bounds, **values), "old")
    assert plan.warm_start[0].used == 6
    assert optuna_trials(plan, plan.searches[0], {}) == []  # not measured yet
    assert first_configs(plan) == []
    found = optuna_trials(plan, plan.searches[0], {each: {DEPLOY_LATENCY: 0.5} for each in ("cnn_3_4", "cnn_8_16")})
    assert [trial.values for trial in found] == [[0.5, 0.5]] * 6


@pytest.mark.parametrize(
    ("values", "given", "says"),
    [
        ({}, "none", "--warm-start none: no study 'none' in "),
        ({}, "/nowhere/study", "--warm-start /nowhere/study: no study 'study' in /nowhere"),
        ({}, "", "give the name or the folder of a study"),
        ({}, "old,", "give the name or the folder of a study"),
        ({}, "old,old", "study 'old' is given twice"),
        ({}, "empty", "study 'empty' has no finished trial of a search: run it first"),
        ({"sampler": "random"}, "old", "--sampler random ignores all results: choose tpe, gp, cmaes or nsga2"),
        ({"sampler": "qmc"}, "old", "--sampler qmc ignores all results"),
        ({"trials": 3}, "old", "3 trials are too few to start from others: raise --trials to 4 or more"),
        (
            {"bounds": ("temperature=1:9",)},
            "old",
            "no field in common: 'old' searches adapter_width and ce_weight, this study searches temperature",
        ),
        (
            {"bounds": ("adapter_width=65:99", "temperature=1:9")},
            "old",
            "common adapter_width [65, 99], and no trial",
        ),
    ],
)
def test_what_cannot_be_is_refused(values, given, says, tmp_path):
    earlier(tmp_path, 5)
    planned(tmp_path, "empty").save()
    with pytest.raises(UsageError) as refused:
        with_earlier(planned(tmp_path, "new", **values), given)
    assert says in str(refused.value)


def test_a_comparison_of_methods_starts_alike(tmp_path):
    for space, says in (("method", "searches nothing"), ("method_tuned", "start alike")):
        with pytest.raises(UsageError, match=says):
            plan_of(f"--space {space} --methods ce,kd --warm-start old", tmp_path)


def test_other_data_are_refused_before_any_trial(tmp_path):
    earlier(tmp_path)
    plan = with_earlier(planned(tmp_path, "new"), "old")
    refuse_earlier_of_other_data(plan, DATA["digest"])
    with pytest.raises(StudyError, match="--warm-start old: study 'old' ran on other data or another split"):
        refuse_earlier_of_other_data(plan, "e" * 64)
    other = with_earlier(planned(tmp_path, "other", overrides={"temperature": 9.0}), "old")
    refuse_earlier_of_other_data(other, "e" * 64)  # no value is used


def test_the_kept_trials_are_verified(tmp_path, new_process):
    earlier(tmp_path)
    plan = with_earlier(planned(tmp_path, "new"), "old")
    plan.directory.rmdir()
    begin_study(plan, "")
    path = plan.directory / "warm_start.json"
    content = json.loads(path.read_text())
    content[plan.warm_start[0].study_id][0]["last"][ACCURACY] = 0.99
    for text, says in ((json.dumps(content), "has other trials of old"), ("[]", "cannot be read"), (None, "cannot be")):
        new_process()
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(StudyError, match=says):
            StudySearch(StudyLedger(load_plan(plan.directory)), {})


def test_earlier_studies_are_part_of_the_question_and_a_study_without_has_its_old_digest(tmp_path):
    earlier(tmp_path)
    plan = planned(tmp_path, "new")
    bare = plan.model_dump(mode="json")
    assert bare.pop("warm_start") == []
    assert type(plan)(**bare).digest == plan.digest
    warm = with_earlier(plan, "old")
    assert warm.digest != plan.digest
    assert with_earlier(plan, str(tmp_path / "old")).digest == warm.digest  # wherever the study is
    assert "--warm-start old" in start_command(warm)
    assert "warm_start: old\n" in config_text(warm, {})
    assert "earlier    12 trials of old with their values" in describe_plan(warm, first_configs(warm))
    assert len(first_configs(warm)) == 1
    notes = plan_summary(warm, None)["notes"]
    assert "The search started from an earlier study: 12 trials of old with their values." in notes
    assert warm_start_notes(()) == []
    warm.save()
    assert load_plan(warm.directory).digest == warm.digest
    assert resumed_plan("new", tmp_path, {"warm_start": "old"}, runs=False).digest == warm.digest
    with pytest.raises(UsageError, match="study 'new' started from old, and cannot be resumed with others"):
        resumed_plan("new", tmp_path, {"warm_start": "two"}, runs=False)
    by_folder = with_earlier(planned(tmp_path, "by_folder"), str(tmp_path / "old"))
    by_folder.save()
    assert resumed_plan("by_folder", tmp_path, {"warm_start": f"{tmp_path}/./old"}, runs=False) == by_folder
    with pytest.raises(UsageError, match="started from no other study"):
        resumed_plan("old", tmp_path, {"warm_start": "old"}, runs=False)


def test_cmaes_takes_values_of_numbers_from_ten_trials_on(tmp_path):
    earlier(tmp_path, 9)
    few = with_earlier(planned(tmp_path, "few", sampler="cmaes"), "old")
    assert few.warm_start[0].used == 0
    assert "cmaes needs 10 trials with values, and only numbers" in few.warm_start[0].words
    assert len(few.warm_start[0].first) == 4
