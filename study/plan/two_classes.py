"""Methods that lose a part of the loss, or all of it, on a dataset with two classes.

The number of classes is known before any sample is read: from a published dataset's name, or from the class folders in
an image folder. Errors and warnings therefore come before a download, and before any image is opened. Only a user's own
dataset is read for this.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from trainables.data.image_folder import list_image_folder
from trainables.data.own.opened import own_info
from trainables.process.errors import UsageError
from trainables.spec.datasets import DATASETS, FOLDER_PREFIX
from trainables.spec.methods import MethodSpec, is_known_method, method_spec
from trainables.spec.own_data import is_own_data
from trainables.spec.trial import TrialConfig


def class_count(dataset: str) -> int | None:
    """Return a dataset's number of classes without reading a sample; None if it cannot be known."""
    if dataset in DATASETS:
        return DATASETS[dataset].num_classes
    try:
        if is_own_data(dataset):
            return len(own_info(dataset).class_names)
        if not dataset.startswith(FOLDER_PREFIX):
            return None
        return len(list_image_folder(Path(dataset.removeprefix(FOLDER_PREFIX)).absolute()).classes)
    except ValueError:  # reported by the dataset checks
        return None


def two_class_refusal(config: TrialConfig) -> str | None:
    """Return why a new study cannot run a method on the dataset; None if it can, or if the dataset cannot be read.

    Args:
        config: trial config with this method.
    """
    return _refusal(config.method, config.dataset)


def _refusal(method: str, dataset: str) -> str | None:
    spec = _spec_of(method)
    if spec is None or not (spec.two_classes_refused and class_count(dataset) == 2):
        return None
    return (
        f"method {method!r} learns nothing from the teacher on two classes, as in {dataset!r}: {spec.two_classes}; "
        "choose kd, which is not affected"
    )


def _spec_of(method: str) -> MethodSpec | None:
    return method_spec(method) if is_known_method(method) else None


def check_two_classes(methods: Iterable[str], dataset: str, *, flag: str) -> None:
    """Check that each method named by the user learns something from the teacher.

    Args:
        methods: method names or row names, for example `dkd+adapter`. Unknown names are left to other checks.
        dataset: dataset name.
        flag: flag with the method names.

    Raises:
        UsageError: a method has no gradient on two classes.
    """
    for name in methods:
        if (reason := _refusal(name.partition("+")[0], dataset)) is not None:
            raise UsageError(f"{flag} {name}: {reason}" if flag == "--methods" else f"{flag}: {reason}")


def two_class_warnings(methods: Sequence[str], dataset: str, *, is_new: bool = False) -> list[str]:
    """Return one sentence per method that loses a part of the loss on two classes.

    Args:
        methods: method names or row names.
        dataset: dataset name.
        is_new: whether the study is new. A new study leaves out methods that lose all of the loss.
    """
    if class_count(dataset) != 2:
        return []
    specs = {method: _spec_of(method) for method in (name.partition("+")[0] for name in methods)}
    lost = {
        method: spec.two_classes
        for method, spec in specs.items()
        if spec is not None and spec.two_classes and not (is_new and spec.two_classes_refused)
    }
    return [f"With two classes, {method} is incomplete: {what}." for method, what in lost.items()]
