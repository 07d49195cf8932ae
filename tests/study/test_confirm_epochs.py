"""Confirmed trials with more epochs than the trials used to choose the configs."""

import json
import os
import re
import signal

import pytest

from analysis.questions.confirmation_words import confirmation_table, verdict
from analysis.questions.stability import rank_stability
from analysis.reading.landmark import at_landmark
from analysis.reading.trials import open_study
from analysis.wording.sentences import study_in_words
from study.cli.preview import describe_plan
from study.cli.request import keep_confirmation, resumed_plan
from study.cli.start_command import start_command
from study.confirm import main as confirm_main
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.plan.confirmation import ConfirmationRequest
from study.plan.notes import confirmation_notes
from study.plan.resolve import load_plan
from study.plan.size import epochs_total
from study.plan.teacher_storage import reckon_teacher_storage
from study.records import read_epochs, read_trials
from study.rerun import main as rerun_main
from study.result.confirmed import confirmed_tables
from study.search.searcher import StudySearch
from study.tracking.note import note_text
from study.tracking.trial_run import trial_params
from tests.study.confirmed import confirmed_study
from tests.study.factories import PretendedSeeds, compare, make_plan
from tests.study.inspection import assert_whole, read_journal, runs_of
from trainables.process.errors import UsageError
from trainables.steps.sgd import schedule_factor
from trainables.tune import session

pytestmark = pytest.mark.study

ASKED = {"configs": 2, "seeds": 3}
LONGER = {**ASKED, "epochs": 9}  # the other trials of these plans have four


def pretend(folder, **values):
    ledger = StudyLedger(make_plan(folder, **{"sampler": "random", "confirmation": LONGER, **values}))
    tune = PretendedSeeds(StudySearch(ledger, {}), ledger)
    return ledger, tune.run()


def test_confirmed_trials_alone_have_the_epochs_of_the_confirmation(tmp_path):
    ledger, ran = pretend(tmp_path / "long")
    usual, others = pretend(tmp_path / "usual", confirmation=ASKED)
    assert {(trial["stage"] == "confirm", trial["config"]["epochs"]) for trial in ran} == {(False, 4), (True, 9)}
    # Apart from the epochs, the trials equal those of a confirmation of four epochs: same choice, settings and seeds.
    assert [{**trial["config"], "epochs": 4} for trial in ran] == [trial["config"] for trial in others]
    pairs = zip(ledger.confirmation.choices, usual.confirmation.choices, strict=True)
    for long, short in pairs:
        assert long.config.config_id != short.config.config_id
        assert long.config.model_copy(update={"epochs": 4}) == short.config
        assert (long.label, long.rank, long.control, long.bound) == (
            short.label,
            short.rank,
            short.control,
            short.bound,
        )
        assert long.search_score == short.search_score
    tuned = next(each.config for each in ledger.confirmation.choices if each.control == "kd")
    assert tuned.temperature == 8.0  # tuned with four epochs
    assert {entry.config.epochs for entry in ledger.in_stage("tune")} == {4}
    assert {len(entry.epochs) for entry in ledger.in_stage("confirm")} == {9}
    names = [entry.name for entry in ledger.in_stage("confirm")]
    assert all(re.search(r"-e9-s\d+$", name) for name in names)
    assert not any("#" in name for name in names)
    assert "-e" not in "".join(entry.name for entry in ledger.in_stage("search"))
    assert ledger.plan.digest == usual.plan.digest
    again = StudyLedger(ledger.plan, read_only=True)
    assert again.confirmation == ledger.confirmation
    assert [entry.name for entry in again.in_stage("confirm")] == names


def test_schedules_of_the_published_settings_are_scaled_to_the_longer_training(tmp_path):
    ledger, _ = pretend(tmp_path)
    published = next(each.config for each in ledger.confirmation.choices if each.control == "pesf_kd as published")
    assert (published.epochs, published.adapter_schedule) == (9, "released")
    factors = [schedule_factor("step", epoch, published.epochs) for epoch in range(9)]
    assert factors[:6] == [1.0] * 6
    assert factors[6:] == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.parametrize("ran_before", [17, 24, 30])
def test_a_killed_confirmation_goes_on_with_its_epochs(tmp_path, ran_before):
    _, expected = pretend(tmp_path / "whole")
    plan = make_plan(tmp_path / "killed", sampler="random", confirmation=LONGER)
    first = StudyLedger(plan)
    ran = PretendedSeeds(StudySearch(first, {}), first).run(ran_before)
    rest = StudyLedger(plan)
    ran += PretendedSeeds(StudySearch(rest, {}), rest).run()
    assert [trial["config"] for trial in ran] == [trial["config"] for trial in expected]


def test_plan_preview_note_and_command_count_the_epochs_of_both_schedules(tmp_path):
    plan = make_plan(tmp_path, confirmation=LONGER)
    usual = make_plan(tmp_path, confirmation=ASKED)
    confirmed = 3 * (2 + 2 + 2)  # two choices, the search's winner, the published settings, ce and kd
    assert epochs_total(plan) - epochs_total(usual) == confirmed * (9 - 4)
    shown = describe_plan(plan, [])
    assert f"cost       at most {epochs_total(plan)} student epochs (4 per trial, 9 per confirmed trial)" in shown
    assert "each is trained for 9 epochs, after a choice by validation scores of 4 epochs" in shown
    assert "per confirmed trial" not in describe_plan(usual, [])
    assert note_text(plan).endswith("on 3 additional seeds, in 9 epochs each.")
    assert "--confirm-epochs 9" in start_command(plan)
    assert "--confirm-epochs" not in start_command(usual)
    assert ConfirmationRequest(**ASKED).model_dump() == ASKED  # the format of earlier versions
    # Digits have nine views, so the confirmed trials use five slots that the other trials do not use.
    storage, before = reckon_teacher_storage(plan), reckon_teacher_storage(usual)
    assert (storage.passes_stored, before.passes_stored) == (9, 4)
    taught = 3 * (3 + 1 + 1)  # all confirmed configs but ce
    assert storage.passes_live - before.passes_live == taught * (9 - 4)


def test_the_teacher_passes_of_a_comparison_include_those_of_its_confirmation(tmp_path):
    before = reckon_teacher_storage(compare(tmp_path))
    # ce needs no teacher. at needs feature maps, so the teacher runs live in every epoch.
    after = reckon_teacher_storage(compare(tmp_path, confirmation={"configs": 2, "seeds": 3, "epochs": 9}))
    assert after.passes_live - before.passes_live == 3 * 9 * 3  # kd, at and dkd
    assert after.passes_stored - before.passes_stored == (9 - 4) + 3 * 9


def test_settings_in_epochs_are_named_because_they_are_not_scaled(tmp_path):
    plan = compare(tmp_path, methods=["ce", "kd", "dkd"], confirmation={"configs": 1, "seeds": 3, "epochs": 40})
    (note,) = confirmation_notes(plan)
    assert note == (
        "Settings in epochs stay as they are in the 40 epochs of a confirmed trial, while schedules are scaled: dkd "
        "(warmup_epochs 20)."
    )
    assert note in describe_plan(plan, [])
    assert not confirmation_notes(
        compare(tmp_path, methods=["ce", "kd", "dkd"], confirmation={"configs": 1, "seeds": 3})
    )


def test_a_finished_study_is_confirmed_on_a_longer_schedule_once(tmp_path):
    plan = make_plan(tmp_path, sampler="random")
    ledger = StudyLedger(plan)
    PretendedSeeds(StudySearch(ledger, {}), ledger).run()
    plan.save()
    longer = resumed_plan("planned", tmp_path, {"confirm": 2, "seeds": "3", "confirm_epochs": 9}, confirms=True)
    assert longer.confirmation == ConfirmationRequest(**LONGER)
    keep_confirmation(longer)
    assert load_plan(plan.directory).confirm_epochs == 9
    assert resumed_plan("planned", tmp_path, {"seeds": "4"}).confirm_epochs == 9  # nothing is chosen yet
    again = StudyLedger(longer)
    PretendedSeeds(StudySearch(again, {}), again).run()
    assert resumed_plan("planned", tmp_path, {"confirm_epochs": 9}, confirms=True).confirmation == longer.confirmation
    for epochs in (4, 10):
        with pytest.raises(UsageError, match=f"confirmation, of trials of 9 epochs, but --confirm-epochs is {epochs}"):
            resumed_plan("planned", tmp_path, {"confirm_epochs": epochs}, confirms=True)


def test_the_cost_of_a_later_confirmation_is_shown_before_it_runs(command, tmp_path):
    ledger = StudyLedger(make_plan(tmp_path, sampler="random"))
    PretendedSeeds(StudySearch(ledger, {}), ledger).run()
    ledger.plan.save()
    asked = (
        "planned",
        "--confirm",
        "1",
        "--seeds",
        "3",
        "--confirm-epochs",
        "9",
        "--output-dir",
        tmp_path,
        "--dry-run",
    )
    done = command(confirm_main, *asked, "--json")
    assert done.code == 0, done.said
    shown = json.loads(done.out)
    assert shown["epochs"] == shown["trials"] * 9 + shown["tuning_trials"] * 4
    assert {each["config"]["epochs"] for each in shown["confirmation"]["choices"]} == {9}
    words = command(confirm_main, *asked).out
    assert (
        f"{shown['epochs']} student epochs (9 per confirmed trial; the scores and bounds below are those of 4" in words
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--confirm-epochs", "9"], "--confirm-epochs is the number of epochs of the trials of --confirm: give"),
        (["--confirm", "1", "--confirm-epochs", "0"], "--confirm-epochs 0: give a number from 1 to 100,000"),
        (["--confirm", "1", "--confirm-epochs", "100001"], "--confirm-epochs 100001: give a number from 1 to 100,000"),
    ],
)
def test_impossible_numbers_are_refused_before_any_work(command, tmp_path, arguments, expected):
    done = command(launch_main, "--space", "joint", *arguments, "--dry-run", "--output-dir", tmp_path / "out")
    assert done.code == 2
    assert expected in done.err
    assert not (tmp_path / "out").exists()
    make_plan(tmp_path).save()
    StudyLedger(make_plan(tmp_path)).close()
    with pytest.raises(UsageError, match="--confirm-epochs is the number of epochs of the trials"):
        resumed_plan("planned", tmp_path, {"confirm_epochs": 9})


def test_the_result_says_that_the_scores_before_are_of_the_shorter_training(tmp_path, run):
    _, usual = confirmed_study(tmp_path, run)
    assert usual.schedules is None
    assert usual.promised.optimism is not None
    ledger, result = confirmed_study(tmp_path, run, name="longer", epochs=9)
    assert result.schedules == (4, 9)
    assert all(each.optimism is each.optimism_on_test is None for each in result.configs)
    assert [each.test_accuracy for each in result.configs] == [each.test_accuracy for each in usual.configs]
    assert "score before (4 epochs) |\n" in confirmation_table(result)
    assert "optimism" not in confirmation_table(result)
    heads = [[str(column.header) for column in confirmed_tables(each)[0].columns] for each in (usual, result)]
    assert heads[0][-2:] == ["score\nbefore", "optimism"]
    assert heads[1] == [*heads[0][:-2], "score\n(4 ep.)"]
    *others, last = verdict(result)
    assert others == [text for text in verdict(usual) if "optimism" not in text]
    assert last.startswith(
        "Configs were chosen, and settings tuned, by validation scores after 4 epochs, and confirmed with 9."
    )
    (entry, *_) = ledger.in_stage("confirm")
    assert trial_params(ledger.plan, entry)["epochs"] == 9
    assert trial_params(ledger.plan, ledger.in_stage("search")[0])["epochs"] == 4


def test_a_longer_confirmation_is_resumed_repeated_to_the_bit_and_reported(command, monkeypatch, tmp_path):
    begin, stopped = session.begin_run, []

    def begin_run(settings, **options):
        begun = begin(settings, **options)
        if settings.get("stage") == "confirm" and len(stopped) < 2:
            inner = begun.train_epoch

            def train_epoch():
                if begun.epoch == 3 and stopped == ["one trial"]:
                    os.kill(os.getpid(), signal.SIGINT)
                    stopped.append(settings["trial_id"])
                if begun.epoch == 5 and not stopped:
                    stopped.append("one trial")
                return inner()

            begun.train_epoch = train_epoch
        return begun

    monkeypatch.setattr(session, "begin_run", begin_run)
    study = (
        "--space", "adapter_width", "--trials", "2", "--promising", "1", "--replicates", "1", "--epochs", "2",
        "--scheduler", "asha", "--confirm", "1", "--seeds", "2", "--confirm-epochs", "6", "--name", "long",
        "--teacher-epochs", "2", "--output-dir", tmp_path, "--executor", "in-process",
    )  # fmt: skip
    done = command(launch_main, *study)
    assert done.code == 130, done.said
    directory = tmp_path / "long"
    assert len(stopped) == 2
    half = StudyLedger(load_plan(directory), read_only=True).entries[stopped[1]]
    assert (half.status, half.config.epochs, len(half.epochs)) == (None, 6, 4)
    done = command(launch_main, "--resume", "long", "--output-dir", tmp_path, "--json")
    assert done.code == 0, done.said
    assert_whole(directory)

    rows = read_trials(directory).to_pylist()
    assert {(row["stage"] == "confirm", row["epochs"], row["epochs_planned"]) for row in rows} == {
        (False, 2, 2), (True, 6, 6),
    }  # fmt: skip
    read = {(row["epoch"], row["trial_id"]) for row in read_epochs(directory).to_pylist() if row["test/accuracy"]}
    assert read == {(6, row["trial_id"]) for row in rows if row["stage"] == "confirm"}
    # The confirmed trials use four further slots. They are filled before the first trial, not during trials.
    filled = [event["forwards"] for event in read_journal(directory / "journal.jsonl")[0] if event["event"] == "fill"]
    assert sum(filled) == 6 * 1077 + 360  # train and validation samples
    for trial_id in (stopped[1], rows[0]["trial_id"]):
        again = command(rerun_main, trial_id, "--output-dir", tmp_path, "--json")
        assert again.code == 0, again.said
        assert json.loads(again.out)["matches"]

    summary = json.loads(done.out)
    result = summary["confirmation"]
    assert (result["epochs"], result["chosen_by_epochs"]) == (6, 2)
    assert {config["fields"]["epochs"] for config in result["configs"]} == {6}
    assert {config["optimism"] for config in result["configs"]} == {None}
    sentence = "Configs were chosen, and settings tuned, by validation scores after 2 epochs, and confirmed with 6."
    assert sentence in " ".join(result["verdict"])
    report = re.sub(r"\s+", " ", (directory / "report.html").read_text())
    for words in (sentence, "score before (2 epochs)", "2 epochs", "6 epochs to confirm"):
        assert words in report
    note = runs_of(load_plan(directory))[0].data.tags["mlflow.note.content"]
    for words in (sentence, "score before (2 epochs)", "in 6 epochs each"):
        assert words in note
    card = (directory / "students" / f"{result['student']['trial_id']}.md").read_text()
    assert "chosen on the validation split, after 2 epochs of training instead of 6, before" in card
    records = open_study(directory)
    fresh = at_landmark(records, searched=False)
    assert fresh.epoch == 2
    assert set(fresh.trials["epochs_planned"].to_pylist()) == {2}
    assert "confirmation trials of another number of epochs are left out" in fresh.note
    assert rank_stability(records).note.startswith("7 configs on 1 fresh seeds")
    assert "2 epochs per trial, 6 per confirmed trial." in study_in_words(records.trials, "long")
