"""Check that a resumed study uses the same data as its earlier trials.

The journal holds a digest of the data and the split. A different digest means changed files, or another split by this
version. For example, earlier versions did not always draw GLUE validation splits by source.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from study.plan.plan import StudyPlan
from trainables.process.errors import StudyError
from trainables.spec.modality import is_text

if TYPE_CHECKING:
    from study.ledger.ledger import StudyLedger

_SHOWN: Final = 16
_SECONDS_BETWEEN_LOOKS: Final = 0.25


def check_same_data(ledger: "StudyLedger", *, stopped: Callable[[], bool]) -> None:
    """Check a resumed study's data in a Ray task, which also loads the data for the teacher's preparation.

    Args:
        ledger: study ledger.
        stopped: returns whether to end now, without a check.

    Raises:
        StudyError: the recorded trials used other data or another split, or the data cannot be read.
    """
    if ledger.dataset is None:
        return
    import ray

    from trainables.tune.tasks import dataset_digest

    plan = ledger.plan
    data_root = str(plan.data_root) if plan.data_root is not None else None
    config = plan.base.model_dump(mode="json")
    running = ray.remote(num_cpus=1)(dataset_digest).remote(config, data_root, str(plan.teachers_folder))
    try:
        while not ray.wait([running], timeout=_SECONDS_BETWEEN_LOOKS)[0]:
            if stopped():
                ray.cancel(running, force=True)
                return
        found: str = ray.get(running)
    except ray.exceptions.RayTaskError as error:
        raise StudyError(f"the dataset could not be read: {error.cause}") from None
    except ray.exceptions.RayError as error:
        raise StudyError(f"the dataset could not be read: {type(error).__name__}: {error}") from None
    refuse_other_data(plan, ledger.dataset["digest"], found)


def refuse_other_data(plan: StudyPlan, recorded: str, found: str) -> None:
    """Check that the current data are the data of the recorded trials.

    Args:
        plan: study plan.
        recorded: data digest of the recorded trials.
        found: digest of the current data.

    Raises:
        StudyError: the digests differ.
    """
    if found == recorded:
        return
    by_source = " Earlier versions drew validation splits of text row by row, not by source." * is_text(
        plan.base.dataset
    )
    raise StudyError(
        f"study {plan.name!r} ran on other data or another split: the digest of {plan.base.dataset} is "
        f"{found[:_SHOWN]} here, but {recorded[:_SHOWN]} in the recorded trials. Scores on different data cannot be "
        f"compared, so nothing was run. The records can still be read and reported.{by_source} Start a new study under "
        "another name, or restore the files and the version used at the start."
    )
