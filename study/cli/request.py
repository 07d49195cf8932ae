"""Conversion of command-line values to a plan, for a new or a resumed study.

Modules that load the plan are imported inside the functions, so `--help` and usage errors appear at once.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from search_spaces import COMPARISONS, MethodComparison
from study.cli.commands import resume_command
from study.cli.fixed_fields import comparison_asked, fixed_fields, space_asked
from study.plan.options import OPTIONS, default_of, names_into
from trainables.data.own.fetch import fetch_for_command
from trainables.process.errors import UsageError
from trainables.spec.architectures import absolute_name
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.modality import is_text
from trainables.spec.naming import describe_other_text
from trainables.spec.own_data import absolute_files, is_own_data
from trainables.storage.sqlite_uri import SQLitePathError, absolute_uri
from trainables.storage.uris import REDACTED, is_uri

if TYPE_CHECKING:
    from search_spaces import Bounds
    from study.plan.confirmation import Factors, SeedsAsked
    from study.plan.plan import StudyPlan

# Options with image-specific defaults. For text, the text defaults of the trial config apply.
_IMAGE_DEFAULTS: Final = ("student", "teacher", "epochs")
_SMOKE: Final = {"trials": 2, "promising": 1, "replicates": 1}
_SMOKE_SEEDS: Final = 2


def _plan_values(values: dict[str, Any], methods: Sequence[str] = ()) -> dict[str, Any]:
    """Return plan fields.

    Args:
        values: options by name.
        methods: the user's own methods in the study, by canonical name.
    """
    from study.plan.beliefs import read_beliefs
    from study.plan.bounds import given_bounds
    from study.plan.objectives import given_objectives

    plain: dict[str, Any] = dict(values)
    hold: list[str] = plain.get("hold") or []
    search = given_bounds(plain, methods)
    searched = [each.field for each in search]
    overrides = fixed_fields(hold, plain.get("temperature"), str(plain.get("space") or ""), searched, methods)
    # Make paths absolute, because other processes and nodes have other working directories.
    for flag in ("data_root", "optuna_storage"):
        if isinstance(path := plain.get(flag), Path):
            plain[flag] = path.absolute()
    if uri := plain.get("tracking_uri"):
        try:
            plain["tracking_uri"] = absolute_uri(uri)
        except SQLitePathError as error:
            raise UsageError(f"--tracking-uri: {error}") from None
    if (place := plain.get("storage_path")) and not is_uri(place) and ":/" not in place:  # mistyped URIs fail later
        plain["storage_path"] = str(Path(place).absolute())
    if (dataset := plain.get("dataset", "")).startswith(FOLDER_PREFIX) and dataset != FOLDER_PREFIX:
        plain["dataset"] = f"{FOLDER_PREFIX}{Path(dataset.removeprefix(FOLDER_PREFIX)).absolute()}"
    elif dataset:
        plain["dataset"] = absolute_files(dataset)
    if is_text(plain.get("dataset", "")):
        plain |= {name: absolute_name(plain[name]) for name in ("student", "teacher") if plain.get(name) is not None}
    try:
        objectives = given_objectives(plain)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return {
        **({"search": search} if search else {}),
        **objectives,
        **({"overrides": overrides} if overrides else {}),
        **({"prior": read_beliefs(plain["prior"], methods)} if plain.get("prior") else {}),
        **{flag: plain[flag] for flag in (*names_into("plan"), "replicates_detect") if flag in plain},
        "base": {flag: plain[flag] for flag in names_into("config") if plain.get(flag) is not None},
    }


def _check_text(given: dict[str, Any]) -> None:
    if (found := describe_other_text(given)) is not None:
        raise UsageError(found)


def _precision(values: dict[str, Any], search: "Sequence[Bounds]") -> str:
    """Return `fp32` or `bf16`, resolved at planning time so a trial is the same on every machine.

    With several students or several devices, bf16 is chosen only if it is faster for all.
    """
    from study.plan.gpus import planned_devices
    from trainables.data.registry import dataset_info
    from trainables.spec.precision import resolve_precision

    devices = planned_devices(values["gpus_per_trial"], str(values["address"]))
    try:
        size = dataset_info(values["dataset"]).image_size
    except ValueError as error:
        raise UsageError(f"--dataset: {error}") from None
    try:
        students = [str(name) for each in search if each.field == "student" for name in each.choices]
        found = {
            resolve_precision(values["precision"], student=student, image_size=size, device=device)
            for student in students or [values["student"]]
            for device in devices
        }
        return found.pop() if len(found) == 1 else "fp32"
    except ValueError as error:
        raise UsageError(f"--precision: {error}") from None


def _download(dataset: str, root: Path | None, tracking_uri: str | None, *, dry_run: bool) -> None:
    """Fetch a dataset's missing files. A dry run only checks that a data root is given."""
    from trainables.data.registry import dataset_info

    info = dataset_info(dataset)
    if info.layouts and root is None:
        raise UsageError("--download needs --data-root (or PESFKD_DATA_ROOT), the folder for the files")
    if not info.missing_files(root) or dry_run:
        return
    assert root is not None, "a dataset that lacks files has layouts"
    if tracking_uri is not None:  # detect an unreachable server before a download that may take hours
        from trainables.storage.mlflow_store import check_tracking_uri

        check_tracking_uri(tracking_uri)
    from trainables.data.download import download_files  # imports torchvision

    try:
        download_files(info, root)
    except ValueError as error:
        raise UsageError(f"--download: {error}") from None


def new_plan(values: dict[str, Any], given: dict[str, Any]) -> "StudyPlan":
    """Return a new study's checked plan.

    Args:
        values: values of all options.
        given: options given by the user.

    Raises:
        UsageError: values are out of bounds or contradict each other, or a study with the same name exists.
    """
    from study.ledger.earlier import with_earlier
    from study.plan.beliefs import check_beliefs
    from study.plan.bounds import refuse_given_twice, with_start
    from study.plan.bounds_checks import check_bounds
    from study.plan.checks import (
        check_data_root,
        check_images,
        check_optuna_storage,
        check_space_fits_method,
        check_trial_files,
        controls_for,
    )
    from study.plan.cluster_address import check_address_form
    from study.plan.folder import check_is_free, check_study_name, own_store
    from study.plan.methods import choose_methods
    from study.plan.network_checks import check_networks
    from study.plan.own_code import with_canonical_code
    from study.plan.own_space import check_own_space
    from study.plan.places import check_store_place
    from study.plan.repetitions import with_replicates
    from study.plan.resolve import resolve_plan
    from study.plan.spaces import bounds_in, study_name_of, with_space_bounds
    from study.plan.teacher_choice import choose_teacher

    _check_text(given)
    output_dir: Path = values["output_dir"]
    values, given = (with_canonical_code(each, dataset=values["dataset"]) for each in (values, given))
    values = with_replicates(_with_text_defaults(values, given))
    if values["download"]:
        fetch_for_command(values["dataset"], dry_run=values["dry_run"])
    methods = _own_methods(values)
    check_own_space(space_asked(values["space"]), values["space"], methods)
    _check_class_count(values)
    asked = _plan_values(values, methods)
    search = with_space_bounds(values["space"], asked.get("search", ()))
    refuse_given_twice(search, given, bounds_in(values["space"]))
    values = with_start(values, search)
    asked["base"]["student"] = values["student"]
    if values["smoke"]:
        asked |= {flag: number for flag, number in _SMOKE.items() if flag not in given}
        asked["base"] |= {} if "epochs" in given else {"epochs": 1}
    asked["base"]["precision"] = _precision(values, search)
    comparison = comparison_asked(values["space"])
    if comparison is not None and comparison.tuned:
        comparison = comparison.with_bounds(asked.get("search", ()))
    if comparison is None:
        if values["methods"] is not None:
            raise UsageError(f"--methods is only for --space {' or '.join(COMPARISONS)}; give --method for one method")
        asked["controls"] = controls_for(values["method"], adapter=values["adapter"])
    else:
        asked = _as_comparison(comparison, asked, given)
    if values["download"]:
        _download(values["dataset"], values["data_root"], values["tracking_uri"], dry_run=values["dry_run"])
    asked["name"] = values["name"] or f"{study_name_of(values['space'])}-{time.strftime('%Y%m%d-%H%M%S')}"
    asked["output_dir"] = output_dir
    asked["tracking_uri"] = asked.get("tracking_uri") or own_store(output_dir)
    asked["confirmation"] = _confirmation(values)
    chosen = choose_teacher(values, given)
    asked = {**asked, **chosen, "base": {**asked["base"], **chosen.get("base", {})}}
    if comparison is not None:
        asked["compared"] = choose_methods(
            _names(values["methods"]), asked["base"], asked.get("overrides", {}), comparison.arms
        )
    plan = resolve_plan(asked)
    check_study_name(plan.name)
    check_store_place(plan, is_new=True)
    check_address_form(plan.address)
    check_space_fits_method(plan)
    check_bounds(plan)
    check_beliefs(plan)
    plan = with_earlier(plan, values["warm_start"])
    check_optuna_storage(plan)
    check_trial_files(plan)
    if not (values["dry_run"] and values["download"]):  # a dry run has not downloaded the files
        check_data_root(plan)
    check_is_free(plan.directory, resume_command(plan))
    left_out = check_networks(
        plan,
        fetched_later=values["dry_run"] and values["download"],
        leaves_out=comparison is not None and values["methods"] is None,
    )
    if left_out:
        fitting = tuple(method for method in plan.compared if method.name not in left_out)
        plan = resolve_plan({**asked, "compared": fitting})
    check_images(plan, runs=not values["dry_run"])  # last, because this may take minutes
    return plan


def _own_methods(values: dict[str, Any]) -> tuple[str, ...]:
    """Return the user's own methods in the options, by canonical name, after loading them."""
    from study.plan.methods import check_own_methods, named_methods

    compares = comparison_asked(values["space"]) is not None
    found = named_methods((_names(values["methods"]) or ()) if compares else [values["method"]])
    check_own_methods(found, "--methods" if compares else "--method")
    return found


def _check_class_count(values: dict[str, Any]) -> None:
    """Reject methods without any use on two classes, and warn about others before a download or an image scan.

    Raises:
        UsageError: a method chosen by the user learns nothing from the teacher on two classes.
    """
    from study.plan.methods import known_methods
    from study.plan.two_classes import check_two_classes, two_class_warnings

    dataset, comparison = values["dataset"], comparison_asked(values["space"])
    flag = "--method" if comparison is None else "--methods"
    named = [values["method"]] if comparison is None else _names(values["methods"]) or list(comparison.arms)
    check_two_classes(named, dataset, flag=flag)
    takes_long = values["download"] or dataset.startswith(FOLDER_PREFIX) or is_own_data(dataset)
    if takes_long and not values["dry_run"]:  # a dry run shows the warnings in the plan at once
        for warning in two_class_warnings(named or list(known_methods(dataset)), dataset, is_new=True):
            typer.echo(f"warning: {warning}", err=True)


def _with_text_defaults(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the options with image-specific defaults replaced for text datasets."""
    from trainables.spec.text_defaults import text_defaults

    if not is_text(values["dataset"]):
        if "student_layers" in given:
            raise UsageError(
                "--student-layers is only for a student bert:N on a text dataset, such as --dataset glue:sst2"
            )
        return {**values, "student_layers": None}
    own = text_defaults({})
    return {**values, **{name: own[name] for name in _IMAGE_DEFAULTS if name not in given}}


def _confirmation(values: dict[str, Any]) -> dict[str, int] | None:
    """Return the confirmation requested for a new study."""
    from study.plan.confirmation import DEFAULT_SEEDS, Factors, SeedsAsked, request_of, seeds_asked

    configs, seeds = values["confirm"], seeds_asked(values["seeds"], values["detect"], values["most_seeds"])
    epochs, factors = values["confirm_epochs"], Factors(values["teachers"], values["splits"])
    if configs is None:
        if seeds is not None or epochs is not None or factors.is_given:
            raise UsageError(_without_confirm(seeds, epochs, factors))
        return None
    usual = _SMOKE_SEEDS if values["smoke"] else DEFAULT_SEEDS
    return request_of(configs, seeds or SeedsAsked(usual), epochs, factors).model_dump()


def _without_confirm(seeds: "SeedsAsked | None", epochs: int | None, factors: "Factors") -> str:
    """Return why confirmation options are rejected without --confirm; one of them is given."""
    if epochs is not None:
        what = "--confirm-epochs is the number of epochs of the trials of"
    elif seeds is not None:
        what = "--seeds is the number of fresh seeds for"
    else:
        what = f"{factors.flags} is for"
    return f"{what} --confirm: give --confirm too"


def _as_comparison(comparison: MethodComparison, asked: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return plan values for a study comparing methods."""
    from study.plan.methods import BASELINE

    for flag in ("method", "adapter"):
        if flag in given:
            raise UsageError(
                f"--{flag} is only for a study of one method; --space {comparison.name} compares several, given by "
                "--methods, such as --methods ce,kd,dkd+adapter"
            )
    meaningless = (
        ("promising",) if comparison.tuned else ("trials", "promising", "sampler", "searches_per_method", "budget")
    )
    for flag in meaningless:
        if flag in given:
            why = "repeats only the best config of each method" if comparison.tuned else "has no search"
            raise UsageError(f"--space {comparison.name} {why}: leave out {OPTIONS[flag].long_flag}")
    counts = {"promising": 1} if "replicates" in given else {"promising": 1, "replicates": comparison.replicates}
    if comparison.tuned and not {"searches_per_method", "smoke"} & given.keys():
        counts["searches_per_method"] = comparison.searches
    if given.get("smoke"):
        counts["replicates"] = asked["replicates"]
    return {**asked, **counts, "controls": (), "base": {**asked["base"], "method": BASELINE, "adapter": False}}


def _names(methods: str | None) -> list[str] | None:
    if methods is None:
        return None
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise UsageError("--methods contains no method: give names, such as --methods ce,kd,dkd")
    return names


def existing_plan(name: str, output_dir: Path) -> "StudyPlan":
    """Return an existing study's plan.

    Args:
        name: study name.
        output_dir: output folder with the study.

    Raises:
        UsageError: the study does not exist, or this version cannot read the plan.
    """
    from study.plan.plan import NAME_PATTERN
    from study.plan.resolve import load_plan

    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"{name!r} is not a valid study name")
    return load_plan(output_dir / name)


def resumed_plan(
    name: str, output_dir: Path, given: dict[str, Any], *, confirms: bool = False, runs: bool = True
) -> "StudyPlan":
    """Return a study's recorded plan, updated with the options that may change at a resume.

    Args:
        name: study name.
        output_dir: output folder with the study.
        given: options given by the user.
        confirms: whether the command confirms a finished study.
        runs: whether trials will run. If so, data, storage and cluster address are checked too.

    Raises:
        UsageError: the study does not exist, an option contradicts the recorded plan, or the requested confirmation is
            not possible.
    """
    from study.plan.bounds_checks import check_bounds
    from study.plan.checks import (
        check_data_root,
        check_images,
        check_optuna_storage,
        check_teacher_outputs,
        check_trial_files,
        refuse_differences,
    )
    from study.plan.cluster_address import check_address_form
    from study.plan.confirmation import Factors, seeds_asked
    from study.plan.folder import refuse_copies
    from study.plan.network_checks import check_networks
    from study.plan.own_code import with_canonical_code
    from study.plan.places import check_store_place
    from study.plan.plan import EXECUTION_FIELDS, URI_FIELDS
    from study.plan.ray_only import RAY_ONLY
    from study.plan.repetitions import with_replicates
    from study.plan.resolve import resolve_plan
    from study.plan.teacher_choice import check_same_teacher
    from study.plan.warm_start import check_same_earlier

    _check_text(given)
    given = with_replicates(given)
    plan = existing_plan(name, output_dir)
    refuse_copies(plan.directory)
    given = with_canonical_code(given, dataset=plan.base.dataset)
    if runs:
        _refuse_other_digests(plan)
    asked = _plan_values(given, plan.own_methods)
    if given.get("name") not in (None, name):
        raise UsageError(
            f"--name {given['name']} and --resume {name} differ: a study cannot be renamed, so leave out --name"
        )
    if given.get("smoke"):
        raise UsageError("--smoke is only for a new study: a resumed study keeps its plan")
    if given.get("precision") not in (None, "auto"):
        asked["base"]["precision"] = given["precision"]
    refuse_differences(plan, asked)
    check_same_earlier(plan, given.get("warm_start"))
    _refuse_other_methods(plan, _names(given.get("methods")))
    asked |= check_same_teacher(plan, given)
    # A time budget applies to one run. A resumed run has no budget unless the user gives one. When the executor changes
    # from Ray to this process, Ray-only options return to their defaults.
    execution = {"time_budget": None, **{field: asked[field] for field in EXECUTION_FIELDS & asked.keys()}}
    if execution.get("executor") == "in-process" != plan.executor:
        execution = {**{field: default_of(field) for field in RAY_ONLY}, **execution}
    confirmation = _confirmation_at_resume(
        plan,
        given.get("confirm"),
        seeds_asked(given.get("seeds"), given.get("detect"), given.get("most_seeds")),
        Factors(given.get("teachers"), given.get("splits")),
        epochs=given.get("confirm_epochs"),
        confirms=confirms,
        sets_aside=given.get("set_aside_records", False),
    )
    plan = resolve_plan({**plan.model_dump(), **execution, "confirmation": confirmation})
    for field in URI_FIELDS if runs else ("tracking_uri",):
        if REDACTED in (getattr(plan, field) or ""):
            flag = field.replace("_", "-")
            raise UsageError(f"give --{flag} again: a plan does not store secrets of a URI")
    check_store_place(plan, is_new=False)
    if runs:
        if given.get("download"):
            fetch_for_command(plan.base.dataset, dry_run=given.get("dry_run", False))
            dry_run = given.get("dry_run", False)
            _download(plan.base.dataset, plan.data_root, plan.tracking_uri, dry_run=dry_run)
        check_data_root(plan)
    check_optuna_storage(plan)
    check_trial_files(plan)
    if runs:
        check_bounds(plan)
        check_address_form(plan.address)
        check_teacher_outputs(plan)
        check_networks(plan, leaves_out=True)
        check_images(plan, runs=not given.get("dry_run", False))
    return plan


def _confirmation_at_resume(
    plan: "StudyPlan",
    configs: int | None,
    seeds: "SeedsAsked | None",
    factors: "Factors",
    *,
    epochs: int | None,
    confirms: bool,
    sets_aside: bool,
) -> dict[str, int] | None:
    """Return an existing study's confirmation: as requested, or else as recorded in the plan."""
    from study.ledger.derivable import check_records
    from study.ledger.ledger import StudyLedger
    from study.plan.confirmation import DEFAULT_SEEDS, SeedsAsked, request_of
    from study.plan.repetitions import check_not_sequential
    from study.stages.confirmation import confirmation_request, describe_unfinished

    recorded = plan.confirmation
    if not confirms and configs is None and seeds is None and epochs is None and not factors.is_given:
        return recorded.model_dump() if recorded is not None else None
    ledger = StudyLedger(plan, read_only=True, sets_aside=sets_aside)
    if not sets_aside:
        check_records(ledger)
    is_finished = describe_unfinished(ledger) is None
    if ledger.confirmation is None and not confirms:
        check_not_sequential(plan, is_finished=is_finished)
    if confirms or ledger.confirmation is not None or is_finished:
        return confirmation_request(ledger, configs, seeds, epochs, factors).model_dump()
    if configs is None:
        if recorded is None:
            raise UsageError(_without_confirm(seeds, epochs, factors))
        configs = recorded.configs
    usual = SeedsAsked(recorded.seeds, recorded.detect) if recorded is not None else SeedsAsked(DEFAULT_SEEDS)
    if recorded is not None:
        epochs = recorded.epochs if epochs is None else epochs
        factors = factors.or_else(recorded.factors)
    return request_of(configs, seeds or usual, epochs, factors).model_dump()


def _refuse_other_digests(plan: "StudyPlan") -> None:
    """Check that the study's config identifiers equal those computed by this version.

    Configs, search seeds and repetitions are matched by these identifiers, so new trials would not match the old ones.

    Raises:
        UsageError: another version identifies configs differently.
    """
    from study.cli.start_command import start_command
    from trainables.spec.digest import DIGEST_VERSION

    if plan.digest_version == DIGEST_VERSION:
        return
    other = "an earlier" if plan.digest_version < DIGEST_VERSION else "a later"
    raise UsageError(
        f"study {plan.name!r} was started by {other} version, which identifies configs differently (digests of version "
        f"{plan.digest_version}, here {DIGEST_VERSION}): it cannot be resumed or confirmed. Its report, export, rerun "
        "and delivery by study.sync still work. Resume it with that version, or start it again:\n  "
        f"{start_command(plan)}"
    )


def keep_confirmation(plan: "StudyPlan") -> "StudyPlan | None":
    """Write the requested confirmation to an existing study's plan, for the next resume.

    Returns:
        The previous plan; None if nothing was written, because the plan already has this confirmation.

    Raises:
        UsageError: another process runs the study, or another confirmation was chosen in the meantime.
    """
    from study.ledger.ledger import StudyLedger
    from study.plan.lock import StudyLock
    from study.plan.resolve import load_plan
    from study.stages.confirmation import check_same_request

    recorded = load_plan(plan.directory)
    if plan.confirmation is None or recorded.confirmation == plan.confirmation:
        return None
    with StudyLock(plan.directory):
        chosen = StudyLedger(recorded, read_only=True).confirmation
        if chosen is not None:
            request = plan.confirmation
            check_same_request(plan, chosen, request.configs, request.asked, plan.confirm_epochs, request.factors)
        recorded.model_copy(update={"confirmation": plan.confirmation}).save()
    return recorded


def withdraw_confirmation(plan: "StudyPlan", recorded: "StudyPlan") -> None:
    """Restore the plan from before `keep_confirmation`, because the request was rejected before any work.

    Args:
        plan: the study, with the requested confirmation.
        recorded: plan before the request.
    """
    from study.ledger.ledger import StudyLedger
    from study.plan.lock import StudyLock
    from study.plan.resolve import load_plan

    with StudyLock(plan.directory):
        now = load_plan(plan.directory)
        if now.confirmation == plan.confirmation and StudyLedger(now, read_only=True).confirmation is None:
            recorded.save()


def _refuse_other_methods(plan: "StudyPlan", names: list[str] | None) -> None:
    from study.plan.methods import BASELINE, row_of

    compared = [method.name for method in plan.compared]
    if names is not None and {*map(row_of, names), BASELINE} != set(compared):
        raise UsageError(
            f"study {plan.name!r} cannot be resumed with other methods: it compares {', '.join(compared) or 'none'}, "
            f"but --methods gives {', '.join(names)}. Leave out --methods, or start a new study under another name."
        )
