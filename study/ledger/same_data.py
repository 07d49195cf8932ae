"""Check that a resumed study uses the same data as the earlier trials.

The journal holds a digest of the data and the split. A different digest means changed files, or another split by this
version. For example, earlier versions did not always draw GLUE validation splits by source.
"""

from typing import Final

from study.plan.plan import StudyPlan
from trainables.process.errors import StudyError
from trainables.spec.modality import is_text

_SHOWN: Final = 16


def refuse_other_data(plan: StudyPlan, recorded: str, found: str) -> None:
    """Check that the current data match the data of the recorded trials.

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


def refuse_earlier_of_other_data(plan: StudyPlan, found: str) -> None:
    """Check that a new study uses the same data as the earlier trials given to the sampler with their values.

    Args:
        plan: study plan.
        found: digest of the current data.

    Raises:
        StudyError: the digests differ.
    """
    for each in plan.warm_start:
        if each.used and each.dataset_digest != found:
            raise StudyError(
                f"--warm-start {each.place}: study {each.name!r} ran on other data or another split: the digest of "
                f"{plan.base.dataset} is {found[:_SHOWN]} here, but {str(each.dataset_digest)[:_SHOWN]} there. Scores "
                "on different data cannot be compared: leave out --warm-start, or restore the files"
            )
