"""Simulated study with a confirmation."""

from analysis.questions.confirmation import summarise_confirmation
from study.ledger.ledger import StudyLedger
from study.ledger.rows import trial_row
from study.search.searcher import StudySearch
from tests.analysis.synthetic import trials_table
from tests.study.factories import PretendedSeeds, make_plan
from trainables.students.file import keep_student

GAINS = (0.03, 0.05, 0.04, 0.06, 0.05, 0.04)


def confirmed_study(folder, run, *, name="planned", gains=GAINS, base=(), epochs=None, configs=1):
    """Return the ledger and the result of a simulated study with a confirmation and real student files.

    The first choice exceeds kd by `gains`, seed by seed.
    """
    plan = make_plan(
        folder, name=name, confirmation={"configs": configs, "seeds": len(gains), "epochs": epochs}, base=dict(base)
    )
    ledger = StudyLedger(plan)
    tune = PretendedSeeds(StudySearch(ledger, {}), ledger)
    for settings in tune.run():
        if settings["student_path"] is not None:
            (folder / name / "students").mkdir(exist_ok=True)
            keep_student(run, folder / name / "students" / f"{settings['trial_id']}.safetensors")
    rows = [trial_row(ledger.plan, entry) for entry in ledger.entries.values()]
    first = next(choice for choice in ledger.confirmation.choices if choice.rank == 1)
    for row in rows:
        if row["stage"] == "confirm":
            own = row["config_id"] == first.config.config_id
            number = row["replicate"] - ledger.confirmation.first_replicate
            row["test/accuracy"] = 0.8 + number / 100 + (gains[number] if own else 0.0)
    rows = [{**row, "status": row["status"] or "finished"} for row in rows]
    chosen = [choice.as_row() for choice in ledger.confirmation.choices]
    result = summarise_confirmation(trials_table(rows), chosen, baseline=None)
    return ledger, result
