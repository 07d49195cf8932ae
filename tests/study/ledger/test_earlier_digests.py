"""Studies with digests of an earlier version: records keep their identifiers, and trials cannot be added."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from study.cli.request import existing_plan, resumed_plan
from study.confirm import main as confirm_main
from study.launch import main as launch_main
from study.ledger.config_ids import ConfigIds
from study.ledger.journal import Journal
from study.ledger.ledger import StudyLedger
from study.ledger.rows import trial_row
from study.ledger.students import first_confirmed
from study.records import TRIALS_SCHEMA, read_trials
from study.result.confirmed import confirmation_summary, find_confirmed
from trainables.process.errors import UsageError
from trainables.spec.trial import config_fields

pytestmark = pytest.mark.study

EXAMPLES = Path(__file__).parents[3] / "analysis" / "examples"
NAMES = sorted(
    path.parent.name for path in EXAMPLES.glob("*/plan.json") if "digest_version" not in json.loads(path.read_bytes())
)
CONFIRMED = [name for name in NAMES if "confirmation" in json.loads((EXAMPLES / name / "summary.json").read_bytes())]


def fields_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a recorded trial, without columns that the version lacked."""
    values = {name: row["epochs_planned" if name == "epochs" else name] for name in config_fields()}
    return {name: value for name, value in values.items() if value is not None}


def with_journal(folder: Path) -> list[dict[str, Any]]:
    """Write a journal in the format of the study's version, without config identifiers. Return the recorded trials."""
    rows = sorted(read_trials(folder).to_pylist(), key=lambda row: row["trial_id"])
    journal, summary = Journal(folder / "journal.jsonl"), json.loads((folder / "summary.json").read_bytes())
    chosen = summary.get("confirmation")
    for row in rows:
        if row["stage"] == "confirm" and chosen is not None:
            journal.append({"event": "confirmation", "confirmation": _choice_of(chosen)})
            chosen = None
        empty: dict[str, Any] = {"params": {}, "distributions": {}, "system_attrs": {}, "study_attrs": {}}
        journal.append({
            "event": "trial", "trial_id": row["trial_id"], "ordinal": int(row["trial_id"].rpartition("-")[2]),
            "stage": row["stage"], "replicate": row["replicate"], "config": fields_of(row),
            "started": row["started"].timestamp(), "optuna": empty if row["stage"] == "search" else None,
        })  # fmt: skip
    journal.close()
    return rows


def _choice_of(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the journal's record of a confirmation from a summary."""
    kept = ("label", "rank", "control", "winner", "search_score", "bound")
    choices = [{**{name: each[name] for name in kept}, "config": each["fields"]} for each in summary["configs"]]
    request = {"configs": sum(each["rank"] is not None for each in summary["configs"]), "seeds": summary["seeds"]}
    facts = {name: summary[name] for name in ("first_replicate", "chosen_at")}
    return {"request": request, "choices": choices, **facts}


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES / request.param, tmp_path / request.param))


def test_a_plan_without_a_version_is_of_the_first_and_keeps_the_digest_of_its_summary(folder):
    plan = existing_plan(folder.name, folder.parent)
    assert plan.digest_version == 1
    assert plan.digest == json.loads((folder / "summary.json").read_bytes())["plan_digest"]
    (folder / "summary.json").unlink()
    assert plan.digest == "unknown"


def test_trials_keep_their_recorded_identifiers(folder):
    rows = with_journal(folder)
    ledger = StudyLedger(existing_plan(folder.name, folder.parent), read_only=True)
    assert not ledger.damage
    derived = [trial_row(ledger.plan, entry) for entry in ledger.entries.values()]
    same = ("trial_id", "study", "config_id", "method", "seed", "data_seed")
    assert [[row[name] for name in same] for row in derived] == [[row[name] for name in same] for row in rows]
    unnumbered = [re.sub(r"#\d+", "", row["name"]) for row in derived]  # some examples are older than the numbers
    assert unnumbered == [re.sub(r"#\d+", "", row["name"]) for row in rows]
    assert len({row["config_id"] for row in rows}) > 1
    assert derived[0].keys() == set(TRIALS_SCHEMA.names)


def test_a_row_that_is_lost_gets_the_identifier_of_the_same_config_on_other_seeds(folder):
    rows = with_journal(folder)
    plan = existing_plan(folder.name, folder.parent)
    entries = StudyLedger(plan, read_only=True).entries
    repeated = [row for row in rows if sum(row["config_id"] == other["config_id"] for other in rows) > 1]
    assert repeated
    ids = ConfigIds(plan)
    for row in rows:
        assert ids.of_trial(row["trial_id"], entries[row["trial_id"]].config) == row["config_id"]
    for row in repeated:
        assert ids.of_trial("lost-0000", entries[row["trial_id"]].config) == row["config_id"]


@pytest.mark.parametrize("name", CONFIRMED)
def test_a_confirmation_is_derived_again_with_the_identifiers_of_its_summary(name, tmp_path):
    folder = Path(shutil.copytree(EXAMPLES / name, tmp_path / name))
    with_journal(folder)
    ledger = StudyLedger(existing_plan(name, tmp_path), read_only=True)
    recorded = json.loads((folder / "summary.json").read_bytes())["confirmation"]
    result = find_confirmed(ledger, read_trials(folder))
    assert result is not None
    found = confirmation_summary(ledger, result)
    assert [each["config_id"] for each in found["configs"]] == [each["config_id"] for each in recorded["configs"]]
    assert [each["test_accuracy"]["value"] for each in found["configs"]] == pytest.approx(
        [each["test_accuracy"]["value"] for each in recorded["configs"]]
    )
    assert first_confirmed(ledger) is None  # in the journal written here, no trial has ended


def test_resuming_and_confirming_are_refused_in_words_and_delivering_is_not(folder, command):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    where = ("--output-dir", folder.parent)
    for done in (
        command(launch_main, "--resume", folder.name, *where),
        command(launch_main, "--resume", folder.name, "--dry-run", *where),
        command(confirm_main, folder.name, *where),
    ):
        assert done.code == 2, done.said
        assert f"study '{folder.name}' was started by an earlier version" in done.err
        assert "(digests of version 1, here 2)" in done.err
        assert "start it again:\n  python -m study.launch --space " in done.err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert resumed_plan(folder.name, folder.parent, {}, runs=False).digest_version == 1


def test_a_study_of_a_later_version_is_refused_too(tmp_path):
    folder = Path(shutil.copytree(EXAMPLES / NAMES[0], tmp_path / NAMES[0]))
    content = json.loads((folder / "plan.json").read_bytes()) | {"digest_version": 3}
    (folder / "plan.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UsageError, match=r"started by a later version.*digests of version 3, here 2"):
        resumed_plan(folder.name, tmp_path, {})
