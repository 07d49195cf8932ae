"""Methods that lose a part of their loss, or all of it, on a dataset with two classes."""

from collections.abc import Sequence

from trainables.data.registry import dataset_info
from trainables.process.errors import UsageError
from trainables.spec.trial import TrialConfig


def two_class_refusal(config: TrialConfig) -> str | None:
    """Return why a new study cannot run a method on its dataset; None if it can, or if the dataset cannot be read.

    Args:
        config: config of a trial with this method.
    """
    spec = config.method_spec
    if not (spec.two_classes_refused and _has_two(config.dataset)):
        return None
    return (
        f"method {config.method!r} learns nothing from the teacher on two classes, as in {config.dataset!r}: "
        f"{spec.two_classes}; choose kd, which is not affected"
    )


def check_two_classes(config: TrialConfig) -> None:
    """Check that the only method of a new study learns something from the teacher.

    Raises:
        UsageError: the method has no gradient on two classes.
    """
    if (reason := two_class_refusal(config)) is not None:
        raise UsageError(f"--method: {reason}")


def two_class_warnings(configs: Sequence[TrialConfig]) -> list[str]:
    """Return one sentence for each method that loses a part of its loss on two classes.

    Args:
        configs: a config of each method of a study, all on one dataset.
    """
    if not _has_two(configs[0].dataset):
        return []
    lost = {config.method: config.method_spec.two_classes for config in configs}
    return [f"With two classes, {method} is incomplete: {what}." for method, what in lost.items() if what]


def _has_two(dataset: str) -> bool:
    try:
        return dataset_info(dataset).num_classes == 2
    except ValueError:  # reported by the checks of the dataset
        return False
