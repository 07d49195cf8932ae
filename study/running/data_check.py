"""Check of a study's data before any work."""

from study.ledger.ledger import StudyLedger
from study.ledger.same_data import refuse_earlier_of_other_data, refuse_other_data
from study.running.executor import Executor
from study.running.task_errors import TaskFailedError, TaskLostError, on_node
from trainables.process.errors import StudyError


def check_data(executor: Executor, ledger: StudyLedger) -> None:
    """Check that a node can read the data. In a resumed study, the data must equal those of the recorded trials.

    The task also loads the data for the teacher's preparation. See `study.ledger.same_data`.

    Args:
        executor: computes the study. If the study stops meanwhile, nothing is checked.
        ledger: study ledger.

    Raises:
        StudyError: the recorded trials used other data or another split, or the data cannot be read.
    """
    plan = ledger.plan
    data_root = str(plan.data_root) if plan.data_root is not None else None
    config = plan.example_config.model_dump(mode="json")  # with the split seed for all trials
    try:
        found = executor.dataset_digest(config, data_root, str(plan.teachers_folder))
    except (TaskFailedError, TaskLostError) as error:
        raise StudyError(f"the dataset could not be read{on_node(error)}: {error}") from None
    if found is not None and ledger.dataset is not None:
        refuse_other_data(plan, ledger.dataset["digest"], found)
    elif found is not None:
        refuse_earlier_of_other_data(plan, found)
