"""The student of a confirmation's first choice in MLflow: logged with signature and example, registered, and described.

It is the student of the first confirmed seed, not of the seed that did best on the test split. It is registered as
`champion` where the first choice beats `kd` on the test split with the interval clear of zero, else as `challenger`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from trainables import mlflow_store  # before mlflow, which reads its environment when it is imported

# isort: split
import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from analysis.confirmation import ConfirmationResult, ConfirmedConfig, with_interval
from study.comparison import BASELINE
from study.confirmation import student_path
from study.errors import StudyError
from study.ledger import StudyLedger, TrialEntry
from study.plan import StudyPlan
from trainables.models import CheckpointError
from trainables.storage import StoredFileError
from trainables.student_file import Student, load_student, read_example

LOADER: Final = "trainables.student_file"
_ALIAS_GIVEN: Final = "alias_given"
_TOLERANCE: Final = 1e-4  # in logits, between two machines' convolutions


def publish_student(
    plan: StudyPlan, ledger: StudyLedger, result: ConfirmationResult, *, parent_id: str
) -> dict[str, Any] | None:
    """Log and register the first choice's student, once.

    Args:
        plan: the study.
        ledger: its trials, all of them ended.
        result: of its confirmation.
        parent_id: the study's run.

    Returns:
        `model` (its URI), `alias`, `file` and `trial_id`; None where no trial of the first choice finished.

    Raises:
        StudyError: the file is not there or is damaged, or MLflow does not take it.
    """
    first = result.first
    entries = [] if first is None else _finished(ledger, first.config_id)
    if first is None or not entries:
        return None
    kept = [entry for entry in entries if student_path(plan, entry.trial_id).is_file()]
    entry = (kept or entries)[0]
    path = student_path(plan, entry.trial_id)
    alias = "champion" if any(each.clear for each in result.of_first(control=BASELINE)) else "challenger"
    published = {"alias": alias, "file": str(path), "trial_id": entry.trial_id}
    try:
        client = mlflow_store.open_client(plan.tracking_uri)
        version = _registered(client, plan)
        if version is None:
            version = _register(client, plan, entry, path, card_of(plan, entry, first, result), parent_id)
        if _ALIAS_GIVEN not in version.tags:  # once: a later study may have it since
            client.set_registered_model_alias(version.name, alias, version.version)
            client.set_model_version_tag(version.name, version.version, _ALIAS_GIVEN, alias)
        return {"model": f"models:/{version.name}/{version.version}", **published}
    except (CheckpointError, StoredFileError, OSError, MlflowException, mlflow_store.TrackingError) as error:
        raise StudyError(f"the best student could not be logged to MLflow: {error}") from error


def _finished(ledger: StudyLedger, config_id: str) -> list[TrialEntry]:
    own = [entry for entry in ledger.in_stage("confirm") if entry.config.config_id == config_id]
    return sorted((entry for entry in own if entry.status == "finished"), key=lambda entry: entry.replicate)


def model_name(plan: StudyPlan) -> str:
    """Under which the students of a dataset and an architecture are registered."""
    dataset = plan.base.dataset
    if ":" in dataset:  # a folder of images: its own name
        dataset = Path(dataset.partition(":")[2]).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"pesfkd-{dataset}-{plan.base.student}")


def _registered(client: MlflowClient, plan: StudyPlan) -> ModelVersion | None:
    """The version that the study has registered already."""
    own = client.search_model_versions(f"name = '{model_name(plan)}' and tags.study_id = '{plan.study_id}'")
    return own[0] if own else None


def _register(
    client: MlflowClient, plan: StudyPlan, entry: TrialEntry, path: Path, card: str, parent_id: str
) -> ModelVersion:
    student = load_student(path)
    images, logits = read_example(path)
    if not np.allclose(student.logits(images).numpy(), logits.numpy(), atol=_TOLERANCE, rtol=_TOLERANCE):
        raise StoredFileError(f"{path}: the student that was read says something else than the one that was kept")
    with _tracking_at(plan.tracking_uri), mlflow.start_run(run_id=parent_id, log_system_metrics=False):
        logged = mlflow.pyfunc.log_model(
            name="student",
            loader_module=LOADER,
            data_path=str(path),
            signature=_signature(student, tuple(images.shape[1:])),
            input_example=images[:1].numpy(),
            pip_requirements=_requirements(),
            tags={"trial_id": entry.trial_id, "study": plan.name, "config_id": entry.config.config_id},
        )
    name = model_name(plan)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=f"Students {plan.base.student} for {plan.base.dataset}.")
    tags = {"study": plan.name, "study_id": plan.study_id, "trial_id": entry.trial_id}
    with _tracking_at(plan.tracking_uri):  # where the model is looked up by its identifier
        return client.create_model_version(
            name, logged.model_uri, parent_id, tags=tags, description=card, model_id=logged.model_id
        )


def _signature(student: Student, shape: tuple[int, ...]) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, student.info.num_classes))]),
    )


def _requirements() -> list[str]:
    from trainables.versions import running_versions

    versions = running_versions()
    known = {name: versions[f"version.{name}"] for name in ("pesfkd", "torch")}
    return [f"{name}=={version}" for name, version in known.items() if version[0].isdigit()]


@contextmanager
def _tracking_at(uri: str) -> Iterator[None]:
    """Models are logged by MLflow's global state, which is left as it was."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def card_of(plan: StudyPlan, entry: TrialEntry, first: ConfirmedConfig, result: ConfirmationResult) -> str:
    """The model card, in Markdown."""
    config, base = entry.config, plan.base
    read = sorted(config.method_entry.fields | {name for name in type(config).model_fields if name[:8] == "student_"})
    settings = ", ".join(f"{name} {getattr(config, name)}" for name in read)
    compared = [
        f"| {each.against_label} | {with_interval(each.difference, sign='+')} | {each.difference.n} | "
        f"{'' if each.corrected_p is None else f'{each.corrected_p:.2g}'} |"
        for each in result.of_first()
    ]
    name = model_name(plan)
    lines = [
        f"# {base.student} on {base.dataset}, distilled from {base.teacher} by {config.method}",
        "",
        f"Over {first.test_accuracy.n} seeds this config reaches {with_interval(first.test_accuracy)} on the test "
        f"split and {with_interval(first.accuracy)} on the validation split ({first.test_accuracy.method}). These "
        f"weights are of the first of those seeds, whichever did best: test accuracy "
        f"{entry.last.get('test/accuracy', float('nan')):.3f}. "
        "The config was chosen on the validation split, before the test split was read.",
        "",
        "| test accuracy less that of | difference | n | p (Holm) |",
        "| --- | --- | --- | --- |",
        *compared,
        "",
        "## Use",
        "",
        "Takes uint8 images (N, channels, height, width), pixels 0 to 255, not normalised; gives logits (N, classes).",
        "",
        "```python",
        f'mlflow.pyfunc.load_model("models:/{name}@ALIAS").predict(images)  # needs pesfkd to be installed',
        f'trainables.student_file.load_student(Path("{entry.trial_id}.safetensors")).logits(torch.from_numpy(images))',
        "```",
        "",
        "## Training",
        "",
        f"{config.epochs} epochs, batches of {config.batch_size}, seed {config.seed}, data seed {config.data_seed}; "
        f"{settings}.",
        "",
        f"Study `{plan.name}`, trial `{entry.trial_id}`. Nothing is known of it beyond images like those of "
        f"{base.dataset}; it was tested for accuracy alone.",
    ]
    return "\n".join(lines)
