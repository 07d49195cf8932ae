"""Dataset lines in the plan shown to the user: class names, and warnings about small splits."""

from pathlib import Path

from study.plan.plan import StudyPlan
from study.plan.two_classes import two_class_warnings
from trainables.data.class_names import in_words, with_class_names
from trainables.data.image_folder import list_image_folder
from trainables.data.own.opened import own_info
from trainables.data.registry import class_sizes, dataset_info
from trainables.data.splits import class_shares, small_validation
from trainables.spec.datasets import FOLDER_PREFIX, DatasetInfo
from trainables.spec.modality import samples_of
from trainables.spec.own_data import is_own_data


def class_names(plan: StudyPlan) -> tuple[str, ...]:
    """Return the class names in label order, or an empty tuple if they are not known yet."""
    return with_class_names(dataset_info(plan.base.dataset), plan.data_root).class_names


def classes_line(plan: StudyPlan) -> str:
    """Return the number of classes and the class names, shortening a long list."""
    names, number = class_names(plan), dataset_info(plan.base.dataset).num_classes
    return f"{number}: {in_words(names)}" if names else f"{number}"


def data_warnings(plan: StudyPlan) -> list[str]:
    """Return warnings about small splits, and about methods unsuitable for two classes, as sentences."""
    info = dataset_info(plan.base.dataset)
    small = small_validation(info.split_sizes[1], samples_of(info.name))
    methods = [str(method.fields["method"]) for method in plan.compared] or [plan.base.method]
    lost = two_class_warnings(methods, plan.base.dataset)
    return [*([small] if small is not None else []), *_missing_classes(info), *lost]


def _missing_classes(info: DatasetInfo) -> list[str]:
    """Return a warning for each drawn split without images of some classes."""
    train, validation, test = info.split_sizes
    if info.name.startswith(FOLDER_PREFIX):
        listed = list_image_folder(Path(info.name.removeprefix(FOLDER_PREFIX)))
        sizes, has_test = class_sizes(listed), bool(listed.test)
    elif is_own_data(info.name):
        own = own_info(info.name)
        sizes, has_test = own.class_sizes, "test" in own.sizes
    else:
        return []
    drawn = 0 if has_test else test
    if sum(sizes) != train + validation + drawn:  # no split is drawn
        return []
    shares = class_shares(sizes, (train, validation, drawn), names=info.class_names)
    warnings = []
    for place, split in ((1, "validation"), *(((2, "test"),) if drawn else ())):
        none = tuple(
            f"{name} ({size} image{'s' if size > 1 else ''})"
            for name, size, share in zip(info.class_names, sizes, shares, strict=True)
            if not share[place]
        )
        if none:
            warnings.append(f"The {split} split has no image of these classes: {in_words(none)}.")
    return warnings
