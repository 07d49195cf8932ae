"""What goes around a plan: its controls, and whether its data are there, its method answers, its study is the same."""

from typing import Any

from study.errors import UsageError
from study.plan import CONTROLS, EXECUTION_FIELDS, StudyPlan
from trainables.data.registry import check_files, dataset_info
from trainables.methods import METHODS


def controls_for(method: str, *, adapter: bool) -> tuple[str, ...]:
    """The controls of a new study: where the method has an adapter that it could do without, it stands beside it alone.

    Args:
        method: of the study; an unknown one is refused by the plan.
        adapter: whether the study gives it one.
    """
    alone = adapter and method in METHODS and METHODS.entry(method).takes_adapter
    return (*CONTROLS, method) if alone else CONTROLS


def refuse_differences(recorded: StudyPlan, asked: dict[str, Any]) -> None:
    """Check that the values asked for at a resume are those of the plan on disk.

    Args:
        recorded: the plan on disk.
        asked: plan fields (a config's fields under `base`) that the command line gave explicitly.

    Raises:
        UsageError: naming every field that differs, with both values.
    """
    differences = []
    flat = {**{k: v for k, v in asked.items() if k != "base"}, **asked.get("base", {})}
    for field, value in flat.items():
        if field in EXECUTION_FIELDS:
            continue
        source = recorded.base if field in asked.get("base", {}) else recorded
        if getattr(source, field) != value:
            differences.append(f"{field}: the study has {getattr(source, field)!r}, asked for {value!r}")
    current = StudyPlan(**{**recorded.model_dump(), "space_digest": ""}).space_digest
    if current != recorded.space_digest:
        differences.append(f"space: the bounds of {recorded.space!r} have changed since the study was started")
    if differences:
        raise UsageError(
            f"study {recorded.name!r} cannot be resumed with another plan:\n  "
            + "\n  ".join(differences)
            + "\nLeave those flags out to go on as planned, or start a new study under another name."
        )


def check_data_root(plan: StudyPlan) -> None:
    """Check that the dataset's files are there.

    Raises:
        UsageError: listing the files that are expected and missing, or saying what is wrong with an image folder.
    """
    if plan.data_root is not None and not plan.data_root.is_dir():
        raise UsageError(f"--data-root {plan.data_root} is not a folder")
    try:
        check_files(dataset_info(plan.base.dataset), plan.data_root)
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_space_fits_method(plan: StudyPlan) -> None:
    """Check that the method reads what the space asks about.

    Raises:
        UsageError: naming the parameters that the method ignores.
    """
    read = plan.base.method_entry.fields  # a comparison asks about no field
    ignored = [name for name in plan.search_space.scientific if name not in read]
    if ignored:
        asked = set(plan.search_space.scientific)
        able = [method for method in METHODS if asked <= METHODS.entry(method).fields]
        able += [
            f"{method} with --adapter"
            for method in METHODS
            if method not in able and asked <= METHODS.entry(method, adapter=True).fields
        ]
        raise UsageError(
            f"space {plan.space!r} asks about {', '.join(ignored)}, which method {plan.base.method!r} does not read; "
            f"methods that do: {', '.join(able) or 'none'}"
        )
