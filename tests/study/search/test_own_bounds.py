"""Searches within bounds of one's own, by every sampler: interrupted, mirrored, and with several students."""

from typing import get_args

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from study.ledger.ledger import StudyLedger
from study.plan.bounds import read_bounds
from study.plan.bounds_checks import check_bounds
from study.plan.confirmation import PUBLISHED
from study.plan.plan import Sampler
from study.search.optuna_mirror import mirrored
from study.search.searcher import StudySearch
from tests.study.factories import PretendedSeeds, PretendedTune, make_plan, search_with_asha

RANGES = ("adapter_width=4:64:log", "ce_weight=0:1:0.25", "batch_size=16:64:16")
CHOICES = ("adapter_kind=serial,logit", "detach_adapter_target=true,false", "student=cnn_3_4,cnn_4_6")


def given(*arguments):
    return [bounds.__dict__ for bounds in read_bounds(arguments)]


def begin(folder, tune=PretendedTune, **values):
    plan = make_plan(folder, **values)
    check_bounds(plan)
    ledger = StudyLedger(plan)
    search = StudySearch(ledger, {})
    return ledger, search, tune(search, ledger)


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_every_sampler_searches_bounds_of_ones_own_and_a_resumed_one_goes_on_alike(tmp_path, sampler):
    bounds = RANGES if sampler == "cmaes" else RANGES + CHOICES
    # Past each sampler's random start.
    values = {
        "space": "none",
        "sampler": sampler,
        "search": given(*bounds),
        "trials": {"gp": 12, "nsga2": 15}.get(sampler, 13),
    }
    _, _, tune = begin(tmp_path / "whole", **values)
    whole = [trial["config"] for trial in tune.run(values["trials"])]
    for config in whole:
        assert 4 <= config["adapter_width"] <= 64
        assert config["ce_weight"] in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert config["batch_size"] in (16, 32, 48, 64)
    assert len({config["batch_size"] for config in whole}) > 1
    _, _, tune = begin(tmp_path / "killed", **values)
    first = tune.run(values["trials"] - 2)
    _, search, tune = begin(tmp_path / "killed", **values)
    rest = tune.run(2)
    assert [trial["config"] for trial in (*first, *rest)] == whole
    assert [trial.state for trial in search.optuna_study.trials] == [TrialState.COMPLETE] * values["trials"]


def test_cmaes_learns_from_one_range_alone(tmp_path):
    values = {"space": "none", "search": given("adapter_width=4:64:log"), "trials": 14}
    found = {}
    for sampler in ("cmaes", "random"):
        ledger, _, tune = begin(tmp_path / sampler, sampler=sampler, **values)
        tune.run(14)
        found[sampler] = [entry for entry in ledger.in_stage("search") if entry.optuna["system_attrs"]]
    assert found["random"] == []
    assert len(found["cmaes"]) > 5  # its state is with these proposals


def test_asha_compares_trials_of_several_students(tmp_path):
    values = {"space": "none", "scheduler": "asha", "trials": 12, "base": {"epochs": 9}}
    plan = make_plan(tmp_path, search=given("adapter_width=4:64", "student=cnn_3_4,cnn_4_6"), **values)
    ledger = StudyLedger(plan)
    search_with_asha(ledger)
    statuses = {entry.status for entry in ledger.in_stage("search")}
    assert statuses == {"finished", "pruned"}
    assert {entry.config.student for entry in ledger.in_stage("search")} == {"cnn_3_4", "cnn_4_6"}


def test_the_mirror_has_the_bounds(tmp_path):
    path = tmp_path / "studies.journal"
    ledger, _, tune = begin(tmp_path, space="none", search=given(*RANGES, *CHOICES), optuna_storage=path)
    tune.run(5)
    with mirrored(ledger.plan, [].append) as mirror:
        for entry in ledger.entries.values():
            mirror(entry)
    shown = optuna.load_study(study_name="planned", storage=JournalStorage(JournalFileBackend(str(path))))
    assert len(shown.trials) == 5
    for trial in shown.trials:
        assert trial.distributions["ce_weight"] == optuna.distributions.FloatDistribution(0.0, 1.0, step=0.25)
        assert trial.distributions["adapter_width"] == optuna.distributions.IntDistribution(4, 64, log=True)
        assert trial.distributions["student"].choices == ("cnn_3_4", "cnn_4_6")
    assert "adapter_width, ce_weight" in shown.user_attrs["question"]


@pytest.mark.parametrize("detect", [None, 0.05])
def test_a_confirmation_has_controls_with_the_students_of_its_configs_alone(tmp_path, detect):
    request = {"configs": 1, "seeds": 6 if detect is None else 20, "detect": detect}
    many = "ce_weight=0.5:1", "kd_weight=0.5:1", "batch_size=32,64"
    search = given("adapter_width=4:64", "student=cnn_3_4,cnn_4_6,cnn_8_16", *many)
    ledger, _, tune = begin(tmp_path, PretendedSeeds, space="none", search=search, confirmation=request, trials=6)
    tune.run()
    chosen = ledger.confirmation
    students = {choice.config.student for choice in chosen.choices if choice.control is None}
    assert len(students) < 3
    for choice in chosen.choices:
        assert choice.config.student in students
        assert choice.config.student in choice.label
        if choice.control is not None:
            assert f"({choice.config.student})" in choice.label
    roles = [(choice.control, choice.config.student) for choice in chosen.choices if choice.control]
    assert sorted(roles) == sorted((role, student) for student in students for role in ("ce", "kd", PUBLISHED))
    tuned = {(entry.config.student, entry.config.temperature) for entry in ledger.in_stage("tune")}
    assert len(tuned) == 3 * 4
    if detect is not None:
        by_label = {choice.label: choice.config.student for choice in chosen.choices}
        assert ledger.confirm_progress.complete
        assert all(by_label[each.label] == by_label[each.against] for each in ledger.confirm_progress.decided)
        assert len(ledger.confirm_progress.decided) == 3


def test_repetitions_that_are_added_compare_configs_with_kd_on_the_same_student(tmp_path):
    search = given("adapter_width=4:64", "student=cnn_3_4,cnn_4_6")
    values = {"space": "none", "search": search, "replicates": 20, "replicates_detect": 0.05, "trials": 6}
    ledger, _, tune = begin(tmp_path, PretendedSeeds, **values)
    tune.run()
    progress = ledger.repetition_progress
    assert progress.complete
    promising = {entry.config.config_id for entry in ledger.in_stage("replicate")}
    assert len(progress.decided) == len(promising) + 2  # and each student's ce
