"""Confirmation of a study: choices, seeds, only one confirmation, and rejected requests; without Ray."""

import json

import pytest

from study.cli.preview import describe_plan
from study.cli.request import keep_confirmation, resumed_plan
from study.confirm import main as confirm_main
from study.ledger.confirmation import Confirmation
from study.ledger.ledger import StudyLedger
from study.ledger.rows import trial_row
from study.plan.confirmation import PUBLISHED, ConfirmationRequest, SeedsAsked
from study.plan.methods import known_methods
from study.plan.resolve import load_plan
from study.plan.size import confirm_trials
from study.search.searcher import StudySearch
from study.stages.choosing import choose
from study.stages.confirmation import confirmation_request, describe_unfinished
from study.tracking.note import note_text
from tests.study.factories import PretendedSeeds, compare, make_plan
from tests.study.inspection import files_in
from trainables.process.errors import StudyError, UsageError
from trainables.spec.measures import ACCURACY

pytestmark = pytest.mark.study

ASKED = {"configs": 2, "seeds": 3}


def begin(folder, lucky=None, **values):
    ledger = StudyLedger(make_plan(folder, **{"sampler": "random", **values}))
    return ledger, PretendedSeeds(StudySearch(ledger, {}), ledger, lucky)


def trials_before_confirmation(ledger):
    """Return the number of trials before the confirmation: the planned ones, and kd at four more temperatures."""
    return ledger.plan.total_trials + 4 * ledger.plan.replicates


def finished(folder, lucky=None, **values):
    """Run a simulated study to the end and return the ledger."""
    ledger, tune = begin(folder, lucky, **values)
    tune.run()
    ledger.plan.save()
    return ledger


def test_what_is_confirmed_runs_last_and_alone_reads_the_test_split(tmp_path):
    ledger, tune = begin(tmp_path, confirmation=ASKED)
    ran = tune.run()
    before = ledger.plan.total_trials
    tuned = trials_before_confirmation(ledger) - before
    assert {trial["stage"] for trial in ran[:before]} == {"search", "control", "replicate"}
    assert [trial["stage"] for trial in ran[before : before + tuned]] == ["tune"] * tuned
    assert {trial["stage"] for trial in ran[before + tuned :]} == {"confirm"}
    assert [trial["reads_test"] for trial in ran] == [trial["stage"] == "confirm" for trial in ran]
    assert len(ran) == ledger.planned == before + tuned + ledger.confirmation.size
    assert len(ran) <= before + confirm_trials(ledger.plan)
    rows = [trial_row(ledger.plan, entry) for entry in ledger.entries.values()]
    assert all((row["test/accuracy"] is not None) == (row["stage"] == "confirm") for row in rows)
    assert describe_unfinished(ledger) is None


def test_a_study_without_a_confirmation_is_as_it_was(tmp_path):
    ledger = finished(tmp_path)
    assert ledger.confirmation is None
    assert len(ledger.entries) == ledger.planned == ledger.plan.total_trials
    assert make_plan(tmp_path, sampler="random", confirmation=ASKED).digest == ledger.plan.digest


def test_confirmed_seeds_are_ones_that_no_stage_before_had_and_are_paired(tmp_path):
    # In this space, a sampler may propose a config twice. The config then has seeds beyond the planned ones.
    ledger, tune = begin(tmp_path, confirmation=ASKED, space="adapter_training", trials=8)
    config = ledger.plan.configure(ledger.plan.search_space.default_point())
    ledger.open_trial("control", config.with_seeds(0, 11), 11)
    ledger.end_trial("planned-0000", "failed", "as it may")
    tune.run()
    entries = ledger.in_stage("confirm")
    before = [e.config for e in ledger.entries.values() if e.stage != "confirm"]
    assert {e.config.data_seed for e in entries}.isdisjoint(c.data_seed for c in before)
    assert {e.config.seed for e in entries}.isdisjoint(c.seed for c in before)
    assert {e.replicate for e in entries} == {12, 13, 14}
    for replicate in (12, 13, 14):
        same = [e.config for e in entries if e.replicate == replicate]
        assert len({(c.data_seed, c.seed) for c in same}) == 1
        assert len(same) == len(ledger.confirmation.choices)


def test_the_choice_is_in_the_journal_before_its_first_trial(tmp_path):
    ledger, tune = begin(tmp_path, confirmation=ASKED)
    tune.run(trials_before_confirmation(ledger))
    last = tune.next()
    assert last[1]["stage"] == "confirm"
    again = StudyLedger(ledger.plan, read_only=True)
    assert again.confirmation == ledger.confirmation
    (entry,) = again.in_stage("confirm")
    assert entry.config.config_id == again.confirmation.choices[0].config.config_id


@pytest.mark.parametrize("ran_before", [0, 4, 12, 13, 17, 24, 34])
def test_a_confirmation_that_was_killed_goes_on_without_repeating_or_losing_a_trial(tmp_path, ran_before):
    _, whole = begin(tmp_path / "whole", confirmation=ASKED)
    expected = [trial["config"] for trial in whole.run()]
    _, first = begin(tmp_path / "killed", confirmation=ASKED)
    ran = first.run(ran_before)
    if (interrupted := first.next()) is not None:
        first.report(interrupted[1], 1, 0.5)
    # The process has ended, so only the files on disk remain.
    ledger, rest = begin(tmp_path / "killed", confirmation=ASKED)
    ran += rest.run()
    assert [trial["config"] for trial in ran] == expected
    assert len(ledger.entries) == len({e.trial_id for e in ledger.entries.values()}) == len(expected)
    identities = {(e.config.config_id, e.replicate) for e in ledger.entries.values()}
    assert len(identities) == len(expected)


def test_it_waits_for_every_trial_that_it_is_chosen_from(tmp_path):
    ledger, tune = begin(tmp_path, confirmation=ASKED)
    tune.run(trials_before_confirmation(ledger) - 1)
    last = tune.next()
    assert last[1]["stage"] == "tune"
    assert tune.search.suggest("too-early") is None
    assert ledger.confirmation is None
    tune.finish(*last)
    assert tune.search.suggest("now")["stage"] == "confirm"


def test_the_luckiest_seed_is_not_what_is_chosen_and_is_confirmed_beside_it(tmp_path):
    # The third config scores 0.99 on one seed, and at most 0.9 on the others.
    ledger = finished(tmp_path, lucky="-0002", trials=8, replicates=3, confirmation={"configs": 1, "seeds": 2})
    choices = {choice.label: choice for choice in ledger.confirmation.choices}
    lucky = next(e for e in ledger.in_stage("search") if e.trial_id.endswith("-0002"))
    (first,) = (choice for choice in choices.values() if choice.rank == 1)
    (winner,) = (choice for choice in choices.values() if choice.winner)
    assert winner.config.config_id == lucky.config.config_id != first.config.config_id
    assert (winner.rank, winner.search_score) == (None, 0.99)
    assert first.bound["low"] > winner.bound["low"]
    assert first.bound["low"] < first.bound["value"] < first.search_score + 0.01
    assert ledger.confirmation.size == 2 * len(choices)


def test_a_config_that_failed_on_a_seed_is_not_chosen(tmp_path):
    ledger, tune = begin(tmp_path, replicates=1)
    tune.run(5 + 2)
    tune_id, settings = tune.next()
    tune.search.on_trial_complete(tune_id, {"finished": False, "failed": "NonFiniteLossError"})
    tune.run()
    failed = next(e for e in ledger.entries.values() if e.trial_id == settings["trial_id"])
    assert failed.stage == "replicate"
    ledger.plan = make_plan(tmp_path, replicates=1, confirmation={"configs": 5, "seeds": 2})
    chosen = [choice.config.config_id for choice in choose(ledger).choices if choice.rank or choice.winner]
    assert failed.config.config_id not in chosen
    assert len(chosen) == 4


def test_a_study_of_which_nothing_finished_ends_without_a_confirmation(tmp_path):
    ledger, tune = begin(tmp_path, confirmation=ASKED, trials=2)
    for _ in range(2):
        tune.search.on_trial_complete(tune.next()[0], {"finished": False, "failed": "why"})
    tune.run()
    assert tune.search.suggest("more") == "FINISHED"
    assert ledger.confirmation is None
    assert not tune.search.has_more
    with pytest.raises(UsageError, match="nothing to confirm"):
        confirmation_request(ledger, None, None)


@pytest.mark.parametrize("space", ["temperature", "adapter_width"])
def test_the_controls_are_ce_kd_at_its_own_best_temperature_and_pesf_kd_as_published(tmp_path, space):
    ledger = finished(tmp_path, space=space, confirmation={"configs": 1, "seeds": 2})
    controls = {choice.control: choice for choice in ledger.confirmation.choices if choice.control}
    assert list(controls) == ["ce", "kd", PUBLISHED]
    kd, published = controls["kd"], controls[PUBLISHED].config
    assert (kd.config.method, kd.config.temperature) == ("kd", 8.0)
    assert kd.label == "kd at tuned temperature 8"
    own = [e.score for e in ledger.in_stage("tune") if e.config.temperature == 8.0]
    assert len(own) == ledger.plan.replicates
    assert kd.search_score == pytest.approx(sum(own) / len(own))
    assert (published.method, published.temperature) == ("pesf_kd", 6.0)
    assert controls["ce"].config.method == "ce"


def test_the_temperatures_of_kd_differ_in_nothing_else_and_run_on_the_controls_seeds(tmp_path):
    ledger = finished(tmp_path, space="temperature", confirmation={"configs": 1, "seeds": 2})
    control = [e.config for e in ledger.in_stage("control") if e.config.method == "kd"]
    tuned = [e.config for e in ledger.in_stage("tune")]
    assert {config.temperature for config in tuned} == {1.0, 2.0, 8.0, 16.0}
    assert {(c.seed, c.data_seed) for c in tuned} == {(c.seed, c.data_seed) for c in control}
    alike = [c.model_dump(exclude={"temperature", "seed", "data_seed"}) for c in (*control, *tuned)]
    assert all(each == alike[0] for each in alike)


def test_a_temperature_that_failed_on_a_seed_is_not_chosen(tmp_path):
    ledger, tune = begin(tmp_path, confirmation={"configs": 1, "seeds": 2}, replicates=2)
    tune.run(ledger.plan.total_trials + 2)  # on the first seed, temperatures 1 and 2 have run
    best, settings = tune.next()
    assert settings["config"]["temperature"] == 8.0
    tune.search.on_trial_complete(best, {"finished": False, "failed": "why"})
    tune.run()
    (kd,) = (choice for choice in ledger.confirmation.choices if choice.control == "kd")
    assert kd.config.temperature == 4.0
    assert kd.label == "kd at tuned temperature 4"


def test_a_tuning_that_was_stopped_goes_on(tmp_path):
    ledger, tune = begin(tmp_path, confirmation=ASKED)
    tune.run(ledger.plan.total_trials + 2)
    tune.next()  # handed out before the process ended
    ledger.close()
    again = StudyLedger(ledger.plan)
    assert confirmation_request(again, 2, SeedsAsked(3)) == ConfirmationRequest(**ASKED)
    rest = PretendedSeeds(StudySearch(again, {}), again)
    rest.run()
    assert len(again.in_stage("tune")) == 4 * again.plan.replicates
    assert len({(e.config.config_id, e.replicate) for e in again.in_stage("tune")}) == 4 * again.plan.replicates
    assert len(again.entries) == again.planned


def test_where_the_temperature_is_held_kd_has_it_too_and_what_was_published_is_told_apart(tmp_path):
    ledger = finished(tmp_path, overrides={"temperature": 2.5}, confirmation={"configs": 1, "seeds": 2})
    assert {choice.config.temperature for choice in ledger.confirmation.choices} == {2.5}
    labels = [choice.label for choice in ledger.confirmation.choices if choice.control]
    assert labels == ["ce", "kd", f"{PUBLISHED} but for temperature"]
    assert not ledger.in_stage("tune")


def test_a_control_that_was_chosen_itself_runs_once(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path, trials=1, confirmation={"configs": 1, "seeds": 2}))
    published = ledger.plan.configure(known_methods("digits")["pesf_kd"].fields)
    ledger.open_trial("search", published.with_seeds(0, 0, paired=False), 0)
    ledger.record_epoch("planned-0000", 4, {ACCURACY: 0.9})
    ledger.end_trial("planned-0000", "finished")
    choices = choose(ledger).choices
    (both,) = (choice for choice in choices if choice.rank == 1)
    assert both.control == PUBLISHED
    assert both.label == f"1: w32-T6.0, adapter lr 2e-05 = {PUBLISHED}"
    assert len(choices) == 3


def test_of_a_comparison_the_best_methods_are_confirmed_and_the_baseline_always(tmp_path):
    plan = compare(tmp_path, confirmation={"configs": 2, "seeds": 2})
    ledger = StudyLedger(plan)
    tune = PretendedSeeds(StudySearch(ledger, {}), ledger)
    tune.run()
    choices = {choice.label: choice for choice in ledger.confirmation.choices}
    assert {"ce", "kd"} < set(choices)
    assert len(choices) == 4
    assert sorted(choice.rank for choice in choices.values() if choice.rank) == [1, 2]
    assert choices["kd"].control == "kd"
    assert len(ledger.entries) == ledger.planned == 2 * 5 + 2 * 4
    assert all(choice.bound["n"] == 2 and "fresh seeds" in choice.bound["method"] for choice in choices.values())


def test_of_a_tuned_comparison_each_method_is_confirmed_with_its_best_config(tmp_path):
    plan = compare(tmp_path, "method_tuned", methods=["ce", "kd", "dkd", "dist"], confirmation=ASKED)
    ledger = StudyLedger(plan)
    PretendedSeeds(StudySearch(ledger, {}), ledger).run()
    assert len(ledger.entries) == ledger.planned
    for choice in ledger.confirmation.choices:
        own = [e for e in ledger.in_stage("search") if plan.search_of(e.config) == choice.label]
        (searched,) = (e for e in own if e.config.config_id == choice.config.config_id)
        assert choice.search_score == searched.score
    assert [choice.rank for choice in ledger.confirmation.choices if choice.rank] == [1, 2]


def test_a_finished_study_is_confirmed_later_and_its_plan_says_so(tmp_path):
    ledger = finished(tmp_path)
    ledger.close()
    plan = resumed_plan("planned", tmp_path, {"confirm": 1, "seeds": 4}, confirms=True)
    assert plan.confirmation == ConfirmationRequest(configs=1, seeds=4)
    assert load_plan(plan.directory).confirmation is None
    keep_confirmation(plan)
    kept = load_plan(plan.directory)
    assert kept == load_plan(plan.directory).model_copy(update={"confirmation": plan.confirmation})
    ledger = StudyLedger(resumed_plan("planned", tmp_path, {}))
    PretendedSeeds(StudySearch(ledger, {}), ledger).run()
    assert ledger.confirmation.request == plan.confirmation
    assert len(ledger.in_stage("confirm")) == ledger.confirmation.size


@pytest.mark.parametrize("given", [{}, {"confirm": 2}, {"seeds": 3}, {"confirm": 2, "seeds": 3}])
def test_the_same_confirmation_may_be_asked_for_again(tmp_path, given):
    finished(tmp_path, confirmation=ASKED)
    plan = resumed_plan("planned", tmp_path, given, confirms=True)
    assert plan.confirmation == ConfirmationRequest(**ASKED)
    keep_confirmation(plan)


@pytest.mark.parametrize("given", [{"confirm": 1}, {"seeds": 4}, {"confirm": 3, "seeds": 9}])
@pytest.mark.parametrize("confirms", [True, False])
def test_the_test_split_is_not_read_again_for_another_choice(tmp_path, given, confirms):
    ledger, tune = begin(tmp_path, confirmation=ASKED)
    ledger.plan.save()
    tune.run(trials_before_confirmation(ledger))
    tune.next()  # chosen, with the first trial running
    with pytest.raises(UsageError) as refusal:
        resumed_plan("planned", tmp_path, given, confirms=confirms)
    assert "already has a confirmation: 2 config(s) on 3 seeds" in str(refusal.value)
    assert "second validation split" in str(refusal.value)
    plan = load_plan(tmp_path / "planned").model_copy(update={"confirmation": ConfirmationRequest(configs=1, seeds=9)})
    with pytest.raises(UsageError, match="second validation split"):
        keep_confirmation(plan)
    assert load_plan(tmp_path / "planned").confirmation == ConfirmationRequest(**ASKED)


def test_before_the_choice_a_resume_may_ask_for_a_confirmation_or_for_another(tmp_path):
    ledger, tune = begin(tmp_path)
    ledger.plan.save()
    tune.run(3)
    plan = resumed_plan("planned", tmp_path, {"confirm": 3})
    assert plan.confirmation == ConfirmationRequest(configs=3, seeds=10)
    keep_confirmation(plan)
    assert resumed_plan("planned", tmp_path, {"seeds": 5}).confirmation == ConfirmationRequest(configs=3, seeds=5)
    assert resumed_plan("planned", tmp_path, {}).confirmation == plan.confirmation
    assert resumed_plan("planned", tmp_path, {}).digest == ledger.plan.digest


def test_a_study_that_has_not_finished_cannot_be_confirmed_yet(tmp_path):
    ledger, tune = begin(tmp_path)
    ledger.plan.save()
    for ran in (3, 4, 2):
        tune.run(ran)
        with pytest.raises(UsageError, match=r"'planned' has not finished: \d+ of 13 trials have ended"):
            resumed_plan("planned", tmp_path, {}, confirms=True)
    tune.run(3)
    last = tune.next()
    with pytest.raises(UsageError, match="12 of 13 trials have ended"):
        resumed_plan("planned", tmp_path, {}, confirms=True)
    tune.finish(*last)
    assert resumed_plan("planned", tmp_path, {}, confirms=True).confirmation.configs == 3


def test_by_default_a_comparison_is_confirmed_with_all_its_methods(tmp_path):
    plan = compare(tmp_path)
    ledger = StudyLedger(plan)
    PretendedSeeds(StudySearch(ledger, {}), ledger).run()
    assert confirmation_request(ledger, None, None) == ConfirmationRequest(configs=3, seeds=10)
    with pytest.raises(
        UsageError,
        match="only 3 methods in addition to ce and kd of study 'planned' finished on all their seeds; give a "
        "number up to 3",
    ):
        confirmation_request(ledger, 4, None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"confirm": 0}, "--confirm 0: give a number from 1 to 1,000,000"),
        ({"seeds": 1}, "--seeds 1: one seed gives no interval and no test; give a number from 2 to 10,000"),
        ({"seeds": 0}, "give a number from 2"),
        (
            {"confirm": 6},
            "--confirm 6: only 5 configs of study 'planned' finished on all their seeds; give a number up to 5",
        ),
    ],
)
@pytest.mark.parametrize("confirms", [True, False])
def test_counts_out_of_bounds_are_refused_for_a_finished_study(tmp_path, given, says, confirms):
    finished(tmp_path)
    with pytest.raises(UsageError) as refusal:
        resumed_plan("planned", tmp_path, given, confirms=confirms)
    assert says in str(refusal.value)


def test_more_than_the_search_will_propose_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the search proposes 5 configs: lower --confirm to 5 or less"):
        make_plan(tmp_path, confirmation={"configs": 6, "seeds": 2})
    with pytest.raises(
        UsageError, match=r"compares 3 method.s. in addition to ce and kd: lower --confirm to 3 or less"
    ):
        compare(tmp_path, confirmation={"configs": 4, "seeds": 2})


def test_a_journal_that_has_lost_the_choice_is_refused(tmp_path):
    ledger = finished(tmp_path, confirmation=ASKED)
    path = ledger.plan.directory / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"event":"confirmation"', b'"event":"konfirmation"'))
    with pytest.raises(StudyError, match="with the configs to confirm is damaged"):
        StudyLedger(ledger.plan)


def test_a_plan_with_a_confirmation_survives_its_file_and_is_shown(tmp_path):
    plan = make_plan(tmp_path, confirmation=ASKED)
    plan.save()
    assert load_plan(plan.directory) == plan
    shown = describe_plan(plan, [])
    assert "the 2 best configs (by lower bound), the search winner, ce, kd and pesf_kd as published" in shown
    assert (
        "on 3 fresh seeds each: at most 26 additional trials, 8 of them to tune the temperature of kd on the "
        "validation split (4, 1, 2, 8, 16)" in shown
    )
    assert f"{(13 + 26) * 4} student epochs" in shown
    assert "used once by the confirmation" in shown
    assert "no paired p-value can be below 0.25, or below 1 after correction for 6 comparisons" in shown
    enough = describe_plan(make_plan(tmp_path, confirmation={"configs": 2, "seeds": 10}), [])
    assert "after correction" not in enough
    assert "used once by the confirmation" not in describe_plan(make_plan(tmp_path), [])
    assert "the 2 best are confirmed on 3 additional seeds" in note_text(plan)
    assert "the 2 best methods, ce and kd" in describe_plan(compare(tmp_path, confirmation=ASKED), [])


def test_a_dry_run_shows_what_would_be_confirmed_and_writes_nothing(tmp_path, command):
    finished(tmp_path).close()
    before = files_in(tmp_path)
    done = command(confirm_main, "planned", "--dry-run", "--confirm", "2", "--seeds", "4", "--output-dir", tmp_path)
    assert done.code == 0, done.said
    assert "on 4 fresh seeds each (replicates 3 to 6)" in done.said
    for words in (
        "choice 1: 1: w",
        "choice 2: 2: w",
        "lower bound",
        "control: ce",
        f"control: {PUBLISHED}",
        "28 trials, 0",
        "with 8 of",
    ):
        assert words in done.said
    done = command(confirm_main, "planned", "--dry-run", "--json", "--output-dir", tmp_path)
    shown = json.loads(done.out)
    assert (shown["tuning_trials"], shown["epochs"]) == (8, 4 * (8 + shown["trials"]))
    assert shown["confirmation"]["request"] == {"configs": 3, "seeds": 10}
    assert shown["trials"] == 10 * len(shown["confirmation"]["choices"])
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing",), "no study 'nothing'"),
        (("../planned",), "not a valid study name"),
        (("planned", "--confirm", "0"), "--confirm 0"),
        (("planned", "--confirm", "9"), "give a number up to 5"),
        (("planned", "--seeds", "1"), "--seeds 1"),
        (("planned", "--seeds", "some"), "--seeds"),
        ((), "NAME"),
    ],
)
def test_a_confirmation_that_cannot_be_is_refused_before_any_work(tmp_path, command, arguments, says):
    finished(tmp_path).close()
    before = files_in(tmp_path)
    done = command(confirm_main, *arguments, "--output-dir", tmp_path)
    assert done.code == 2, done.said
    assert says in done.said
    assert files_in(tmp_path) == before


def of_several_searches(folder, **values):
    plan = compare(folder, "method_tuned", methods=["ce", "kd", "dkd", "dist"], searches_per_method=2, **values)
    return StudyLedger(plan)


class LuckyFirst(PretendedSeeds):
    """Trials in which the published settings are the best only for dist, so that both searches of dist find them."""

    def finish(self, tune_id, settings):
        config = settings["config"]
        is_published = config["student_learning_rate"] == self.ledger.plan.base.student_learning_rate
        value = 0.5 + (config["seed"] % 1000) / 1e5
        value += 0.2 * is_published if config["method"] == "dist" else 0.1 * (not is_published)
        for epoch in range(1, config["epochs"] + 1):
            measures = {ACCURACY: value, "cost/seconds": 0.5}
            if settings["reads_test"] and epoch == config["epochs"]:
                measures["test/accuracy"] = value
            self.ledger.record_epoch(settings["trial_id"], epoch, measures)
        self.search.on_trial_complete(tune_id, {"finished": True})


def test_the_best_config_of_every_search_is_confirmed_and_one_that_both_found_once(tmp_path):
    ledger = of_several_searches(tmp_path, trials=4, confirmation={"configs": 1, "seeds": 3})
    ran = LuckyFirst(StudySearch(ledger, {}), ledger).run()
    choices = ledger.confirmation.choices
    by_method = {method: [c for c in choices if c.method == method] for method in ("ce", "kd", "dist")}
    assert sum(map(len, by_method.values())) == len(choices)  # dist is the one best method
    for method, own in by_method.items():
        assert sorted(search for choice in own for search in choice.searches) == [1, 2]
        for choice in own:
            assert choice.label == (method if len(own) == 1 else f"{method}, search {choice.searches[0]}")
            tried = [e for e in ledger.in_stage("search") if e.config.config_id == choice.config.config_id]
            found_by = {1 + ("search 2" in ledger.plan.search_of(e.config, e.search)) for e in tried}
            assert set(choice.searches) <= found_by
    (both,) = by_method["dist"]
    assert both.searches == (1, 2)
    assert [choice.rank for choice in choices if choice.rank] == [1]
    assert {len(by_method["ce"]), len(by_method["kd"])} == {2}
    confirmed = [trial for trial in ran if trial["stage"] == "confirm"]
    assert len(confirmed) == 3 * len(choices) <= confirm_trials(ledger.plan) == 3 * 3 * 2
    assert ledger.planned - len(ledger.entries) <= ledger.plan.replicates  # both searches of dist found one config
    again = StudyLedger(ledger.plan, read_only=True)
    assert again.confirmation == ledger.confirmation


def test_a_method_is_ranked_by_the_mean_of_its_searches_and_the_best_of_them_is_chosen_first(tmp_path):
    ledger = of_several_searches(tmp_path, trials=4, confirmation={"configs": 2, "seeds": 2})
    LuckyFirst(StudySearch(ledger, {}), ledger).run()
    choices = ledger.confirmation.choices
    ranks = {method: {c.rank for c in choices if c.method == method} for method in ("dist", "dkd")}
    assert ranks == {"dist": {1}, "dkd": {2}}
    own = [choice for choice in choices if choice.method == "dkd"]
    assert [choice.bound["low"] for choice in own] == sorted((c.bound["low"] for c in own), reverse=True)


def test_preview_and_dry_run_count_the_configs_of_all_searches(tmp_path, command):
    ledger = of_several_searches(tmp_path, trials=4)
    shown = describe_plan(ledger.plan.model_copy(update={"confirmation": ConfirmationRequest(configs=2, seeds=3)}), [])
    assert "the 2 best methods, ce and kd, by the best configs of all 2 searches of each, on 3 fresh seeds" in shown
    assert f"at most {4 * 2 * 3} additional trials" in shown
    LuckyFirst(StudySearch(ledger, {}), ledger).run()
    ledger.plan.save()
    ledger.close()
    done = command(confirm_main, "planned", "--dry-run", "--confirm", "2", "--seeds", "3", "--output-dir", tmp_path)
    assert done.code == 0, done.err
    assert "confirms   7 configs, of 4 methods with 2 searches each on 3 fresh seeds each" in done.out
    assert "cost       21 trials" in done.out
    assert "control: kd, search 2" in done.out


def test_the_choice_of_an_earlier_version_with_one_config_per_method_still_reads(tmp_path):
    ledger = of_several_searches(tmp_path, trials=4, confirmation={"configs": 1, "seeds": 2})
    LuckyFirst(StudySearch(ledger, {}), ledger).run()
    written = ledger.confirmation.model_dump(mode="json")
    first = {c["method"]: c for c in reversed(written["choices"])}
    written["choices"] = [{k: v for k, v in c.items() if k not in ("method", "searches")} for c in first.values()]
    earlier = Confirmation(**written)
    assert [(choice.method, choice.searches) for choice in earlier.choices] == [("", ())] * 3
    assert earlier.size == 2 * 3
