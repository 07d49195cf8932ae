import math
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from study.ledger.entry import PROCESS_DIED
from study.ledger.ledger import StudyLedger
from study.ledger.promising import promising_configs
from study.plan.plan import Sampler
from study.search.samplers import make_sampler
from study.search.schedulers import SearchASHA
from study.search.searcher import WORKER_RESTARTS, StudySearch
from tests.study.factories import PretendedTune, TuneTrial, accuracy_of, make_plan, search_with_asha
from trainables.spec.measures import ACCURACY


def begin(folder: Path, **values):
    ledger = StudyLedger(make_plan(folder, **values))
    search = StudySearch(ledger, {"teacher_path": "t"})
    return ledger, search, PretendedTune(search, ledger)


def test_a_study_is_its_search_then_controls_then_promising_configs_on_fresh_seeds(tmp_path):
    ledger, search, tune = begin(tmp_path)
    ran = tune.run()
    assert [t["stage"] for t in ran] == ["search"] * 5 + ["control"] * 4 + ["replicate"] * 4
    assert len(ran) == ledger.plan.total_trials
    assert search.suggest("more") == Searcher.FINISHED
    assert [e.replicate for e in ledger.in_stage("replicate")] == [1, 1, 2, 2]
    assert [(e.config.method, e.replicate) for e in ledger.in_stage("control")] == [
        ("ce", 1), ("kd", 1), ("ce", 2), ("kd", 2),
    ]  # fmt: skip


def test_the_configs_repeated_are_the_best_of_the_search(tmp_path):
    ledger, _, tune = begin(tmp_path)
    tune.run()
    searched = {e.config.config_id: e.score for e in ledger.in_stage("search")}
    best = sorted(searched, key=lambda config_id: -searched[config_id])[:2]
    assert [e.config.config_id for e in ledger.in_stage("replicate")[:2]] == best


def test_no_mean_contains_a_seed_that_a_config_was_chosen_by(tmp_path):
    ledger, _, tune = begin(tmp_path)
    tune.run()
    chosen_by = {(e.config.config_id, e.config.seed, e.config.data_seed) for e in ledger.in_stage("search")}
    fresh = [(e.config.config_id, e.config.seed, e.config.data_seed) for e in ledger.in_stage("replicate")]
    assert len(set(fresh)) == len(fresh)
    assert not chosen_by & set(fresh)


def test_equal_replicates_see_equal_batches_and_start_from_equal_weights_but_in_the_search(tmp_path):
    ledger, _, tune = begin(tmp_path)
    tune.run()
    for replicate in (1, 2):
        same = [e.config for e in ledger.entries.values() if e.replicate == replicate]
        assert len({(c.data_seed, c.seed) for c in same}) == 1
        assert len(same) > 1
    searched = [e.config for e in ledger.in_stage("search")]
    assert len({c.data_seed for c in searched}) == 1
    assert len({c.seed for c in searched}) == len(searched) > 1


def test_replicates_wait_for_the_search_and_controls_do_not(tmp_path):
    ledger, search, tune = begin(tmp_path)
    tune.run(4)
    last_of_search = tune.next()
    tune.run(4)
    assert [e.stage for e in ledger.entries.values()][-4:] == ["control"] * 4
    assert search.suggest("too-early") is None
    tune.finish(*last_of_search)
    assert search.suggest("now")["stage"] == "replicate"


def test_a_config_that_is_proposed_again_gets_new_seeds(tmp_path, monkeypatch):
    ledger, _, tune = begin(tmp_path, trials=8, space="adapter_training")
    point = ledger.plan.search_space.default_point()
    monkeypatch.setattr("study.plan.methods.Search.suggest", lambda search, trial: {**search.start, **point})
    tune.run(2)
    resumed = PretendedTune(StudySearch(ledger, {}), ledger)
    resumed.run(2)
    found = ledger.in_stage("search")
    assert [entry.replicate for entry in found] == [0, *(ledger.plan.replicates + count for count in (1, 2, 3))]
    assert len({entry.config.config_id for entry in found}) == 1
    assert len({entry.config.seed for entry in found}) == 4


def test_optuna_hears_how_trials_of_the_search_ended(tmp_path):
    ledger, search, tune = begin(tmp_path, trials=3)
    tune.run(1)
    tune_id, settings = tune.next()
    tune.report(settings, 1, 0.25)
    tune.report(settings, 2, 0.5)
    search.on_trial_complete(tune_id, {"finished": False, "done": True})
    tune_id, settings = tune.next()
    search.on_trial_complete(tune_id, {"finished": False, ACCURACY: math.nan, "failed": "NonFiniteLossError"})
    complete, pruned, failed = search.optuna_study.trials
    assert (complete.state, pruned.state, failed.state) == (
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
    )
    assert complete.value == ledger.in_stage("search")[0].score
    assert pruned.value == 0.5
    assert pruned.intermediate_values == {1: 0.25, 2: 0.5}
    assert [e.status for e in ledger.in_stage("search")] == ["finished", "pruned", "failed"]
    assert ledger.in_stage("search")[2].error == "NonFiniteLossError"


def test_a_trial_that_the_study_stopped_under_stays_open(tmp_path):
    ledger, search, tune = begin(tmp_path)
    tune_id, _ = tune.next()
    search.on_trial_complete(tune_id, None)
    assert [e.status for e in ledger.entries.values()] == [None]


def test_a_trial_whose_process_died_goes_on_and_fails_when_that_happens_too_often(tmp_path):
    ledger, _, _ = begin(tmp_path, trials=1)
    search = StudySearch(ledger, {}, checkpoints=lambda entry: [f"of-{entry.trial_id}"])
    tune = PretendedTune(search, ledger)
    lives = []
    for _ in range(WORKER_RESTARTS + 1):
        tune_id, settings = tune.next()
        lives.append((settings["trial_id"], settings["life"], settings["checkpoints"]))
        search.on_trial_complete(tune_id, None, error=True)
    first = lives[0][0]
    assert lives == [(first, 0, []), *((first, life, [f"of-{first}"]) for life in range(1, WORKER_RESTARTS + 1))]
    assert ledger.entries[first].error == PROCESS_DIED


def assert_deaths_count(ledger, search, tune, trial_id):
    """Let the process of a trial die until the trial fails."""
    for _ in range(WORKER_RESTARTS + 1):
        assert ledger.entries[trial_id].status is None
        tune_id, settings = tune.next()
        assert settings["trial_id"] == trial_id
        search.on_trial_complete(tune_id, None, error=True)
    assert ledger.entries[trial_id].error == PROCESS_DIED


def test_a_death_on_an_unusable_node_does_not_count_and_each_process_has_a_folder_of_its_own(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    unusable = [True]
    search = StudySearch(ledger, {}, blames_node=lambda: unusable[0])
    tune = PretendedTune(search, ledger)
    lives = []
    for _ in range(2 * WORKER_RESTARTS):
        tune_id, settings = tune.next()
        lives.append((settings["trial_id"], settings["life"]))
        search.on_trial_complete(tune_id, None, error=True)
    first = lives[0][0]
    assert lives == [(first, life) for life in range(2 * WORKER_RESTARTS)]
    unusable[0] = False
    assert_deaths_count(ledger, search, tune, first)


def test_a_trial_that_a_node_returns_goes_on_however_often_and_a_death_afterwards_counts(tmp_path):
    ledger, search, tune = begin(tmp_path)
    for life in range(2 * WORKER_RESTARTS):
        tune_id, settings = tune.next()
        assert settings["life"] == life
        search.was_returned(settings["trial_id"])
        search.on_trial_complete(tune_id, None, error=True)
    first = settings["trial_id"]
    assert_deaths_count(ledger, search, tune, first)


def test_a_trial_that_was_given_up_is_not_begun_again(tmp_path):
    ledger, search, tune = begin(tmp_path)
    tune_id, settings = tune.next()
    search.give_up(settings["trial_id"], "it hung")
    search.on_trial_complete(tune_id, None, error=True)
    assert ledger.entries[settings["trial_id"]].error == "it hung"
    assert tune.next()[1]["trial_id"] != settings["trial_id"]


def test_a_search_is_not_over_while_a_trial_runs_whose_process_may_die(tmp_path):
    ledger, search, tune = begin(tmp_path)
    tune.run(ledger.plan.total_trials - 1)
    tune_id, settings = tune.next()
    assert search.suggest("nothing yet") is None
    search.on_trial_complete(tune_id, None, error=True)
    tune_id, again = tune.next()
    assert again["trial_id"] == settings["trial_id"]
    tune.finish(tune_id, again)
    assert search.suggest("more") == Searcher.FINISHED


def test_a_trial_that_the_journal_lost_is_run_again_and_no_other_twice(tmp_path):
    ledger, _, tune = begin(tmp_path)
    tune.run()
    path = ledger.plan.directory / "journal.jsonl"
    lost = next(e for e in ledger.entries.values() if e.stage == "control")
    lines = path.read_bytes().split(b"\n")
    number = next(i for i, line in enumerate(lines) if f'"trial","trial_id":"{lost.trial_id}"'.encode() in line)
    lines[number] = b"damaged " + lines[number]
    path.write_bytes(b"\n".join(lines))
    again = StudyLedger(ledger.plan)
    about = [i for i, line in enumerate(lines, start=1) if lost.trial_id.encode() in line]
    assert again.damaged_lines == about, "what was entered of a lost trial is lost with it"
    assert about[0] == number + 1
    (ran,) = PretendedTune(StudySearch(again, {}), again).run()
    assert again.entries[ran["trial_id"]].config == lost.config
    assert ran["trial_id"] not in ledger.entries, "a name that MLflow may know"
    before, after = ([(e.stage, e.config, e.replicate) for e in x.entries.values()] for x in (ledger, again))
    assert sorted(map(str, before)) == sorted(map(str, after))


def test_trials_that_failed_are_run_again_alone_and_what_was_repeated_stays_chosen(tmp_path):
    ledger, search, tune = begin(tmp_path)
    tune_id, settings = tune.next()
    tune.report(settings, 1, 0.99)
    search.on_trial_complete(tune_id, {"finished": False, "failed": "why"})
    tune.run()
    ledger = StudyLedger(ledger.plan)
    failed = ledger.retry_failed()
    assert [entry.trial_id for entry in failed] == [settings["trial_id"]]
    tune = PretendedTune(StudySearch(ledger, {}), ledger)
    tune_id, again = tune.next()
    assert again["trial_id"] == settings["trial_id"]
    for epoch in range(1, 5):  # better than all repeated configs
        tune.report(again, epoch, 0.99)
    tune.search.on_trial_complete(tune_id, {"finished": True})
    assert tune.next() is None
    (entry,) = [e for e in StudyLedger(ledger.plan).entries.values() if e.attempt == 2]
    assert (entry.status, entry.error, len(entry.epochs)) == ("finished", None, 4)


def test_failed_configs_are_not_promising(tmp_path):
    ledger, search, tune = begin(tmp_path, trials=2)
    tune.run(1)
    tune_id, _ = tune.next()
    search.on_trial_complete(tune_id, {"finished": False, "failed": "why"})
    assert [c.config_id for c in promising_configs(ledger)] == [ledger.in_stage("search")[0].config.config_id]


@pytest.mark.conformance
@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_a_search_that_was_killed_proposes_what_it_would_have_proposed(tmp_path, sampler):
    trials = {"nsga2": 30, "gp": 13}.get(sampler, 16)  # past each sampler's random start
    _, _, tune = begin(tmp_path / "whole", trials=trials, sampler=sampler)
    whole = [t["config"] for t in tune.run()]
    ledger, _, tune = begin(tmp_path / "killed", trials=trials, sampler=sampler)
    first = tune.run(trials - 3)
    interrupted = tune.next()[1]
    tune.report(interrupted, 1)
    # The process has ended, so only the files on disk remain.
    ledger, search, tune = begin(tmp_path / "killed", trials=trials, sampler=sampler)
    rest = tune.run()
    assert rest[0]["trial_id"] == interrupted["trial_id"]
    assert [t["config"] for t in first] + [t["config"] for t in rest] == whole
    assert [t.state for t in search.optuna_study.trials] == [TrialState.COMPLETE] * trials
    assert len({e.trial_id for e in ledger.entries.values()}) == ledger.plan.total_trials


# Number of random configs with which a sampler starts.
STARTS = {"tpe": 10, "gp": 10, "cmaes": 1, "nsga2": 12, "qmc": 0}
HALVED = {"trials": 24, "scheduler": "asha", "base": {"epochs": 9}}


@pytest.fixture(scope="module")
def random_configs(tmp_path_factory):
    """Configs of random search, which no result changes."""
    plan = make_plan(tmp_path_factory.mktemp("random"), sampler="random", **HALVED)
    return search_with_asha(StudyLedger(plan))[1]


@pytest.mark.conformance
@pytest.mark.parametrize("sampler", STARTS)
def test_with_asha_every_sampler_leaves_random_search_and_goes_on_so_after_a_kill(tmp_path, sampler, random_configs):
    plan = make_plan(tmp_path, sampler=sampler, **HALVED)
    ledger = StudyLedger(plan)
    whole = search_with_asha(ledger)[1]
    assert {entry.status for entry in ledger.in_stage("search")} == {"finished", "pruned"}
    assert len(whole) == 24
    start = STARTS[sampler]
    if sampler in ("gp", "nsga2"):
        assert whole[:start] == random_configs[:start]
    learnt = [config != other for config, other in zip(whole[start:], random_configs[start:], strict=True)]
    assert sum(learnt) > len(learnt) / 2, "it proposes what random search does"
    # Cut the journal to its state after a kill in the first epoch of trial 21.
    journal = plan.directory / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    begun = next(number for number, line in enumerate(lines) if b'"event":"trial"' in line and b'"ordinal":21' in line)
    journal.write_bytes(b"".join(lines[: begun + 2]))
    assert search_with_asha(StudyLedger(plan))[1] == whole[21:]


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2"])
def test_several_trials_at_once_of_which_many_fail_teach_a_sampler_what_it_knows_after_a_kill(tmp_path, sampler):
    plan = make_plan(tmp_path, sampler=sampler, **{**HALVED, "trials": 40})
    search, _ = search_with_asha(StudyLedger(plan), slots=3, proposals=38, fails=lambda number: number % 3 == 0)
    ledger = StudyLedger(plan)
    again = StudySearch(ledger, {})
    known, restored = search.optuna_study.trials, again.optuna_study.trials
    for name in ("state", "values", "params", "distributions"):
        assert [getattr(each, name) for each in restored] == [getattr(each, name) for each in known], name
    generation = "NSGAIISampler:generation" if sampler == "nsga2" else "cma:generation"
    generations = [[each.system_attrs.get(generation, 0) for each in trials] for trials in (known, restored)]
    assert generations[0] == generations[1]
    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.COMPLETE, "failed": TrialState.FAIL}
    entries = ledger.in_stage("search")
    assert [trial.state for trial in restored] == [states.get(entry.status, TrialState.RUNNING) for entry in entries]
    assert {entry.status for entry in entries} >= {"finished", "pruned", "failed"}
    assert max(generations[0]) >= 1, "trials that failed hold it up"
    ledger.retry_failed()
    search, _ = search_with_asha(ledger, slots=3)
    assert {trial.state for trial in search.optuna_study.trials} == {TrialState.COMPLETE}


def test_a_search_of_which_every_trial_fails_is_random_search(tmp_path, random_configs):
    ledger = StudyLedger(make_plan(tmp_path, sampler="gp", **HALVED))
    search, configs = search_with_asha(ledger, fails=lambda number: True)
    assert configs == random_configs
    assert {trial.state for trial in search.optuna_study.trials} == {TrialState.FAIL}


@pytest.mark.conformance
@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_without_asha_a_sampler_proposes_what_it_does_in_a_plain_loop_of_optuna(tmp_path, sampler):
    trials = 12 if sampler == "gp" else 24
    ledger, _, tune = begin(tmp_path, sampler=sampler, trials=trials)
    proposed = [settings["config"] for settings in tune.run(trials)]
    study, (search,) = optuna.create_study(direction="maximize"), ledger.plan.searches
    for number, config in enumerate(proposed):
        study.sampler = make_sampler(sampler, study_seed=ledger.plan.seed, number=number)
        trial = study.ask()
        point = search.suggest(trial)
        assert {name: config[name] for name in point} == point
        study.tell(trial, accuracy_of(config, config["epochs"]))


def test_an_unfinished_trial_is_told_where_its_checkpoints_are(tmp_path):
    ledger, _, tune = begin(tmp_path)
    _, settings = tune.next()
    assert settings["checkpoints"] == []
    ledger = StudyLedger(ledger.plan)
    search = StudySearch(ledger, {}, checkpoints=lambda entry: [f"of-{entry.trial_id}"])
    assert search.suggest("again")["checkpoints"] == [f"of-{settings['trial_id']}"]


def rungs(scheduler):
    return [(epochs, dict(scores)) for epochs, scores in scheduler.rungs.scores.items()]


def test_asha_stops_the_lower_part_of_a_rung_and_never_a_control(tmp_path):
    ledger, _, tune = begin(tmp_path, base={"epochs": 9}, scheduler="asha")
    scheduler = SearchASHA(ledger)
    decisions = []
    for value in (0.9, 0.8, 0.95):
        _, settings = tune.next()
        scheduler.on_trial_add(None, TuneTrial(settings))
        decisions.append(scheduler.on_trial_result(None, TuneTrial(settings), {"epoch": 1, ACCURACY: value}))
    assert decisions == ["CONTINUE", "STOP", "CONTINUE"]
    control = TuneTrial({"stage": "control", "trial_id": "c"})
    scheduler.on_trial_add(None, control)
    assert scheduler.on_trial_result(None, control, {"epoch": 1, ACCURACY: 0.0}) == "CONTINUE"
    scheduler.on_trial_complete(None, control, {"epoch": 9, ACCURACY: 0.0})
    assert "c" not in {name for _, rung in rungs(scheduler) for name in rung}


def test_ashas_rungs_are_as_they_were_after_a_kill(tmp_path):
    ledger, _, tune = begin(tmp_path, base={"epochs": 9}, scheduler="asha")
    scheduler = SearchASHA(ledger)
    for number, epochs in enumerate((9, 1, 3)):
        tune_id, settings = tune.next()
        trial = TuneTrial(settings)
        scheduler.on_trial_add(None, trial)
        for epoch in range(1, epochs + 1):
            value = (0.1 * epoch + number) / 10
            tune.report(settings, epoch, value)
            scheduler.on_trial_result(None, trial, {"epoch": epoch, ACCURACY: value})
        if number < 2:
            scheduler.on_trial_complete(None, trial, {"epoch": epochs, ACCURACY: value})
            tune.search.on_trial_complete(tune_id, {"finished": number == 0})
    before = rungs(scheduler)
    assert sum(len(rung) for _, rung in before) == 3 + 1 + 2
    assert rungs(SearchASHA(StudyLedger(ledger.plan))) == before
