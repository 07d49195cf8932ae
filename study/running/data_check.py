"""Check of a resumed study's data before the trials; see `study.ledger.same_data`."""

from study.ledger.ledger import StudyLedger
from study.ledger.same_data import refuse_other_data
from study.running.executor import Executor
from study.running.task_errors import TaskFailedError, TaskLostError
from trainables.process.errors import StudyError


def check_same_data(executor: Executor, ledger: StudyLedger) -> None:
    """Check a resumed study's data by a task, which also loads the data for the teacher's preparation.

    Args:
        executor: computes the study. If the study stops meanwhile, nothing is checked.
        ledger: study ledger.

    Raises:
        StudyError: the recorded trials used other data or another split, or the data cannot be read.
    """
    if ledger.dataset is None:
        return
    plan = ledger.plan
    data_root = str(plan.data_root) if plan.data_root is not None else None
    config = plan.example_config.model_dump(mode="json")  # with a split seed that is set for all trials
    try:
        found = executor.dataset_digest(config, data_root, str(plan.teachers_folder))
    except (TaskFailedError, TaskLostError) as error:
        raise StudyError(f"the dataset could not be read: {error}") from None
    if found is not None:
        refuse_other_data(plan, ledger.dataset["digest"], found)
