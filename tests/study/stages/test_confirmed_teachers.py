"""Confirmations over several teachers and splits: assignment, planned trials and rejected requests; without Ray."""

import json
from types import SimpleNamespace

import pytest

from study.cli.preview import describe_plan
from study.cli.request import keep_confirmation, resumed_plan
from study.cli.start_command import start_command
from study.confirm import main as confirm_main
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.ledger.rows import trial_row
from study.plan.confirmation import ConfirmationRequest
from study.plan.resolve import load_plan
from study.plan.teacher_storage import reckon_teacher_storage
from study.running.recorder import TrialRecorder
from study.search.searcher import StudySearch
from study.tracking.note import note_text
from study.tracking.trial_run import trial_params
from tests.study.factories import PretendedSeeds, compare, make_plan
from tests.trainables.data.conftest import random_images, write_images
from trainables.data import load_dataset
from trainables.process.errors import UsageError
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.study

ASKED = {"configs": 2, "seeds": 5, "teachers": 3}


def begin(folder, **values):
    ledger = StudyLedger(make_plan(folder, **{"sampler": "random", "confirmation": ASKED, **values}))
    return ledger, PretendedSeeds(StudySearch(ledger, {}), ledger)


def test_a_repetition_has_the_same_teacher_in_every_config_and_seeds_are_divided_evenly(tmp_path):
    ledger, tune = begin(tmp_path)
    tune.run()
    entries, first = ledger.in_stage("confirm"), ledger.confirmation.first_replicate
    assert len(entries) == ledger.confirmation.size == 5 * len(ledger.confirmation.choices)
    for place in range(5):
        own = [entry.config for entry in entries if entry.replicate == first + place]
        assert {config.teacher_number for config in own} == {place % 3}
        assert len({(config.seed, config.data_seed) for config in own}) == 1
        assert len(own) == len(ledger.confirmation.choices)
    assert len({entry.config.seed for entry in entries}) == 5, "each seed runs with one teacher"
    assert {entry.config.teacher_number for entry in ledger.entries.values() if entry.stage != "confirm"} == {0}
    assert ledger.confirmation.request.seeds_per_cell == (2, 2, 1)
    assert {entry.config_id for entry in entries} == {choice.config_id for choice in ledger.confirmation.choices}
    rows = [trial_row(ledger.plan, entry) for entry in entries]
    assert [row["teacher_number"] for row in rows] == [entry.config.teacher_number for entry in entries]
    assert {trial_params(ledger.plan, entry)["teacher_number"] for entry in entries} == {0, 1, 2}


def test_only_the_teacher_differs_from_a_confirmation_with_one(tmp_path):
    several, one = begin(tmp_path / "several"), begin(tmp_path / "one", confirmation={"configs": 2, "seeds": 5})
    configs = [[TrialConfig(**each["config"]) for each in tune.run()] for _, tune in (several, one)]
    assert [each.with_numbers(teacher=0, split=0) for each in configs[0]] == configs[1]
    assert several[0].plan.digest == one[0].plan.digest
    assert [each.config_id for each in configs[0]] == [each.config_id for each in configs[1]]


def test_seeds_are_divided_over_pairs_of_split_and_teacher(tmp_path):
    request = {"configs": 2, "seeds": 9, "teachers": 2, "splits": 3}
    ledger, tune = begin(tmp_path, confirmation=request)
    tune.run()
    entries, first = ledger.in_stage("confirm"), ledger.confirmation.first_replicate
    cells = {}
    for entry in entries:
        numbers = entry.config.teacher_number, entry.config.split_number
        cells.setdefault(entry.replicate - first, set()).add(numbers)
    assert [cells[place] for place in range(9)] == [
        {each} for each in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 0), (0, 1), (0, 2))
    ]
    assert ledger.confirmation.request.seeds_per_cell == (2, 2, 2, 1, 1, 1)
    assert {entry.config.split_number for entry in ledger.entries.values() if entry.stage != "confirm"} == {0}
    assert {entry.config_id for entry in entries} == {choice.config_id for choice in ledger.confirmation.choices}
    plan = ledger.plan
    assert set(trial_params(plan, entries[0])) >= {"teacher_number", "split_number"}
    numbers = [(e[""].teacher_number, e[""].split_number) for e in (plan.teachers, *plan.further_teachers)]
    assert numbers == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    shown = describe_plan(plan, [])
    assert "divided over 3 splits into train and validation with 2 teachers each (1 or 2 seeds with each of 6" in shown
    assert "the test split stays, so nothing is tested that was trained on or chosen by" in shown
    assert "intervals for new splits rest on 3 splits" in shown
    assert "5 further teachers for the confirmation, trained alike with seeds 0 and 1 in all, on each of 3" in shown
    assert "--teachers 2 --splits 3" in start_command(plan)
    assert "divided over 3 splits x 2 teachers" in note_text(plan)
    assert ConfirmationRequest(**request).model_dump() == request


def test_a_study_is_described_by_its_own_split_and_not_by_that_of_a_confirmed_trial(tmp_path):
    ledger, tune = begin(tmp_path, confirmation={"configs": 1, "seeds": 2, "splits": 2})
    tune.run()
    registered = []
    tracker = SimpleNamespace(register_dataset=registered.append, deliver=lambda entry: None)
    progress = SimpleNamespace(trial_changed=lambda *_: None)
    recorder = TrialRecorder(ledger, tracker, lambda entry: None, progress, SimpleNamespace())
    entries = {entry.config.split_number: entry.trial_id for entry in ledger.in_stage("confirm")}
    for number in (1, 0):
        data = {"digest": f"{number}" * 64, "train": 1077, "validation": 360, "test": 360}
        recorder.reported(entries[number], {"dataset": data, "epochs": []})
    assert [each["digest"] for each in registered] == ["0" * 64]
    assert ledger.dataset["digest"] == "0" * 64


def test_a_study_without_teachers_may_have_several_splits(tmp_path):
    plan = make_plan(
        tmp_path, space="temperature", base={"method": "dml"}, controls=("ce",),
        confirmation={"configs": 1, "seeds": 4, "splits": 2},
    )  # fmt: skip
    assert plan.further_teachers == []
    assert "further teacher" not in describe_plan(plan, [])


@pytest.mark.parametrize("ran_before", [0, 13, 18, 27])
def test_a_confirmation_that_was_killed_goes_on_with_its_teachers(tmp_path, ran_before):
    expected = [trial["config"] for trial in begin(tmp_path / "whole")[1].run()]
    _, first = begin(tmp_path / "killed")
    ran = first.run(ran_before)
    if (interrupted := first.next()) is not None:
        first.report(interrupted[1], 1, 0.5)
    ran += begin(tmp_path / "killed")[1].run()
    assert [trial["config"] for trial in ran] == expected


def test_the_plan_holds_one_more_set_of_teachers_for_each_number(tmp_path):
    plan = make_plan(tmp_path, space="temperature", base={"method": "sftn", "teacher_seed": 7}, confirmation=ASKED)
    assert [set(each) for each in (plan.teachers, *plan.further_teachers)] == [{"", "sftn"}] * 3
    seeds = [{trial.seed_of_teacher for trial in each.values()} for each in (plan.teachers, *plan.further_teachers)]
    assert seeds == [{7}, {8}, {9}]
    held = make_plan(tmp_path, overrides={"teacher_seed": 4, "split_seed": 3}, confirmation=ASKED)
    assert [each[""].seed_of_teacher for each in (held.teachers, *held.further_teachers)] == [4, 5, 6]
    assert "trained alike with seeds 4, 5 and 6 in all" in describe_plan(held, [])
    assert "stratified, seed 3" in describe_plan(held, [])
    alone = make_plan(tmp_path, space="temperature", base={"method": "sftn"}, confirmation={"configs": 2, "seeds": 5})
    assert alone.further_teachers == []
    one, three = (reckon_teacher_storage(each) for each in (alone, plan))
    assert (three.size, three.passes_stored) == (3 * one.size, 3 * one.passes_stored)
    assert three.passes_live == one.passes_live
    plan.save()
    assert load_plan(plan.directory).confirmation == plan.confirmation


def test_a_plan_with_one_teacher_is_stored_as_by_earlier_versions():
    assert ConfirmationRequest(configs=1, seeds=4, teachers=1).model_dump() == {"configs": 1, "seeds": 4}
    assert ConfirmationRequest(**ASKED).model_dump(mode="json") == ASKED


def test_preview_command_and_note_name_the_teachers_and_say_what_their_number_means(tmp_path):
    plan = make_plan(tmp_path, confirmation={"configs": 2, "seeds": 12, "teachers": 3})
    shown = describe_plan(plan, [])
    assert "the 12 seeds of each config are divided over 3 teachers (4 seeds with each of 3" in shown
    assert "so there are no more trials than without" in shown
    assert "intervals for new teachers rest on 3 teachers: about 2.0 times as wide as those over seeds" in shown
    assert "they are wide for so few, and 5 teachers or more are better" in shown
    assert "2 further teachers for the confirmation, trained alike with seeds 0, 1 and 2 in all" in shown
    assert f"{2 * plan.base.teacher_epochs} more teacher epochs" in shown
    assert "--seeds 12 --teachers 3" in start_command(plan)
    assert "confirmed on 12 additional seeds, divided over 3 teachers" in note_text(plan)
    many = describe_plan(make_plan(tmp_path, confirmation={"configs": 2, "seeds": 12, "teachers": 12}), [])
    assert "divided over 12 teachers (one seed with each of 12" in many
    assert "11 further teachers for the confirmation, trained alike with seeds 0 to 11 in all" in many
    assert "so few" not in many
    assert "times as wide" not in many
    one = describe_plan(make_plan(tmp_path, confirmation={"configs": 2, "seeds": 12}), [])
    assert "divided" not in one
    assert "further teacher" not in one


def test_a_finished_study_is_confirmed_with_several_teachers_and_with_no_other_number(tmp_path, command):
    ledger, tune = begin(tmp_path, confirmation=None)
    tune.run()
    ledger.plan.save()
    ledger.close()
    plan = resumed_plan("planned", tmp_path, {"confirm": 2, "seeds": 5, "teachers": 3}, confirms=True)
    assert plan.confirmation == ConfirmationRequest(**ASKED)
    done = command(confirm_main, "planned", "--seeds", "5", "--teachers", "3", "--dry-run", "--output-dir", tmp_path)
    assert done.code == 0, done.err
    assert "2 further teachers for the confirmation" in done.out
    done = command(
        confirm_main, "planned", "--seeds", "5", "--teachers", "3", "--dry-run", "--json", "--output-dir", tmp_path
    )
    assert json.loads(done.out)["teacher_seeds"] == [0, 1, 2]
    assert load_plan(plan.directory).confirmation is None, "a dry run writes nothing"
    keep_confirmation(plan)
    again = StudyLedger(resumed_plan("planned", tmp_path, {}))
    PretendedSeeds(StudySearch(again, {}), again).run()
    assert {entry.config.teacher_number for entry in again.in_stage("confirm")} == {0, 1, 2}
    assert resumed_plan("planned", tmp_path, {"teachers": 3}, confirms=True).confirmation == plan.confirmation
    for confirms in (True, False):
        with pytest.raises(UsageError, match="with 3 teachers and 1 split, but 2 teachers and 1 split were requested"):
            resumed_plan("planned", tmp_path, {"teachers": 2}, confirms=confirms)


def test_before_the_choice_a_resume_may_ask_for_another_number_of_teachers(tmp_path):
    ledger, tune = begin(tmp_path, confirmation={"configs": 2, "seeds": 5})
    ledger.plan.save()
    tune.run(3)
    plan = resumed_plan("planned", tmp_path, {"teachers": 3})
    assert plan.confirmation == ConfirmationRequest(**ASKED)
    keep_confirmation(plan)
    assert resumed_plan("planned", tmp_path, {"seeds": 6}).confirmation == ConfirmationRequest(**{**ASKED, "seeds": 6})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--teachers", "3"], "--teachers 3 is for --confirm: give --confirm too"),
        (["--confirm", "1", "--teachers", "0"], "--teachers 0: give a number from 1 to 1,000"),
        (["--confirm", "1", "--seeds", "4", "--teachers", "5"], "so give at most 4 of them, or more --seeds"),
        (["--confirm", "1", "--seeds", "auto", "--teachers", "2"], "give a number of --seeds, or leave out the others"),
        (["--confirm", "1", "--set", "teacher_number=2"], "use the option --teachers instead"),
        (["--splits", "2"], "--splits 2 is for --confirm: give --confirm too"),
        (["--splits", "1"], "--splits 1 is for --confirm: give --confirm too"),
        (["--confirm", "1", "--splits", "1001"], "--splits 1001: give a number from 1 to 1,000"),
        (
            ["--confirm", "1", "--seeds", "4", "--splits", "2", "--teachers", "3"],
            "the 4 seeds of each config are divided over 6 pairs of split and teacher, so give at most 4 of them",
        ),
        (["--confirm", "1", "--set", "split_number=2"], "use the option --splits instead"),
    ],
)
def test_impossible_numbers_are_refused_before_any_work(command, tmp_path, arguments, says):
    done = command(launch_main, "--space", "joint", *arguments, "--dry-run", "--output-dir", tmp_path / "out")
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_is_given_or_that_nobody_needs_cannot_be_several(tmp_path):
    given = {"teacher_recipe": "checkpoint", "teacher_epochs": 0, "teacher_digest": "0" * 16}
    with pytest.raises(UsageError, match=r"the study's teacher is one given checkpoint: leave out --teachers"):
        make_plan(tmp_path, base=given, confirmation=ASKED)
    with pytest.raises(UsageError, match="may have been trained on samples that another split validates with"):
        make_plan(tmp_path, base=given, confirmation={"configs": 1, "seeds": 4, "splits": 2})
    with pytest.raises(ValueError, match="may have seen its validation samples"):
        TrialConfig(**given, split_number=1)
    with pytest.raises(UsageError, match="no method of the study uses a trained teacher"):
        make_plan(tmp_path, space="temperature", base={"method": "dml"}, controls=("ce",), confirmation=ASKED)
    with pytest.raises(UsageError, match=r"--teachers 3: teacher_seed \d+ is too large"):
        make_plan(tmp_path, base={"teacher_seed": 2**63 - 2}, confirmation=ASKED)
    with pytest.raises(ValueError, match="teacher_number is for teachers that are trained"):
        TrialConfig(**given, teacher_number=1)
    with pytest.raises(ValueError, match="is too large: give a smaller teacher_seed"):
        TrialConfig(teacher_seed=2**63 - 1, teacher_number=1)


def test_a_folder_with_a_validation_part_has_no_other_split(tmp_path):
    for part in ("train", "val", "test"):
        for number, name in enumerate(("cat", "dog")):
            write_images(tmp_path / "images" / part / name, random_images(4, 3, 32, 32, seed=number))
    base = {"dataset": f"image_folder:{tmp_path / 'images'}"}
    with pytest.raises(UsageError, match="has a validation part, so no split is drawn that could change: leave it out"):
        make_plan(tmp_path, base=base, confirmation={"configs": 1, "seeds": 4, "splits": 2})
    with pytest.raises(ValueError, match="its split cannot be drawn again: give split_number 0"):
        load_dataset(base["dataset"], None, split_number=1)


def test_methods_are_compared_over_teachers_too(tmp_path):
    ledger = StudyLedger(compare(tmp_path, confirmation={"configs": 2, "seeds": 4, "teachers": 2}))
    PretendedSeeds(StudySearch(ledger, {}), ledger).run()
    of = {choice.label: [] for choice in ledger.confirmation.choices}
    for entry in ledger.in_stage("confirm"):
        (label,) = (c.label for c in ledger.confirmation.choices if c.config.config_id == entry.config.config_id)
        of[label].append(entry.config.teacher_number)
    assert set(map(tuple, of.values())) == {(0, 1, 0, 1)}
