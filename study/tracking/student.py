"""Registration of the confirmed student in MLflow: logged with signature and input example, registered, and described.

The student belongs to the first choice of the confirmation. Among the finished fresh seeds with a kept student, the
first one is used, not the one with the best test score. The registered version becomes `champion` if the first choice
beats `kd` on the test split and the interval excludes zero. Otherwise the version becomes `challenger`. Another study's
champion keeps the alias if the mean test score of the champion's config is higher.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, packages_distributions
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Final

from trainables.storage import mlflow_store  # before mlflow, which reads environment variables at import

# isort: split
import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking._tracking_service import utils as tracking
from mlflow.types import Schema, TensorSpec

from analysis.questions.confirmation import ConfirmationResult, ConfirmedConfig
from study.ledger.entry import TrialEntry
from study.ledger.ledger import StudyLedger
from study.ledger.students import first_confirmed, student_path
from study.ledger.study_data import data_of
from study.plan.methods import BASELINE
from study.plan.plan import StudyPlan
from study.tracking.student_card import card_of, card_path
from trainables.display.numbers import format_number
from trainables.models import CheckpointError
from trainables.process.errors import StudyError
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.own_data import ARRAYS_PREFIX, HUB_PREFIX, is_own_data, short_name
from trainables.storage.atomic import StoredFileError, write_atomically
from trainables.storage.uris import redact
from trainables.students.file import Student, load_kept
from trainables.user_code.loading import sources_of
from trainables.user_code.reference import is_canonical

LOADER: Final = "trainables.student_file"
# Model version tags: the config's mean test score, the assigned alias, and the champion if it kept the alias.
_SCORE: Final = "test_score"
_ALIAS_GIVEN: Final = "alias_given"
_STAYS: Final = "champion_stays"
_DIGEST: Final = 8  # characters of a digest in a name
_LONGEST_NAME: Final = 250  # characters; MLflow's stores accept 256
_LONGEST_DESCRIPTION: Final = 5_000  # characters; PostgreSQL rejects more
_TRACKING_URI: Final = "MLFLOW_TRACKING_URI"


def publish_student(
    plan: StudyPlan, ledger: StudyLedger, result: ConfirmationResult, *, parent_id: str
) -> dict[str, Any] | None:
    """Write the model card of the first choice's student. Log and register the student, once.

    Args:
        plan: the study.
        ledger: the study's trials, all ended.
        result: result of the confirmation.
        parent_id: MLflow run of the study.

    Returns:
        `model` (URI), `alias`, `file`, `card`, `trial_id` and `champion`. `champion` is None unless another version
        keeps the alias although this student beats `kd`. It then describes the other version. The return value is None
        if no trial of the first choice finished.

    Raises:
        StudyError: the student file is missing or damaged, the card cannot be written, or MLflow rejects the student.
    """
    first, entry = result.first, first_confirmed(ledger)
    if first is None or entry is None:
        return None
    path = student_path(plan, entry.trial_id)
    beats = any(each.clear for each in result.of_first(control=BASELINE))
    name = model_name(plan, entry.config.student, (ledger.dataset or {}).get("digest"))
    card = _card(ledger, entry, first, result, registered_as=name)
    published = {"file": str(path), "card": str(card_path(path)), "trial_id": entry.trial_id}
    try:
        write_atomically(card_path(path), card.encode())  # first, the card must exist even if MLflow fails
        client = mlflow_store.open_client(plan.tracking_uri)
        version = _registered(client, plan)
        if version is None:
            version = _register(client, plan, entry, path, card, parent_id, name=name, score=first.test_accuracy.value)
        alias, better = version.tags.get(_ALIAS_GIVEN), version.tags.get(_STAYS)
        if alias is None:  # only once: a later study may hold the alias by now
            better = _better_champion(client, version) if beats else None
            alias = "champion" if beats and better is None else "challenger"
            client.set_registered_model_alias(version.name, alias, version.version)
            if better is not None:
                client.set_model_version_tag(version.name, version.version, _STAYS, better)
            client.set_model_version_tag(version.name, version.version, _ALIAS_GIVEN, alias)
        return {"model": f"models:/{version.name}/{version.version}", "alias": alias, "champion": better, **published}
    except (CheckpointError, StoredFileError, OSError, MlflowException, mlflow_store.TrackingError) as error:
        raise StudyError(
            f"the best student could not be logged to MLflow: {redact(str(error), plan.tracking_uri)}"
        ) from error


def _card(
    ledger: StudyLedger, entry: TrialEntry, first: ConfirmedConfig, result: ConfirmationResult, *, registered_as: str
) -> str:
    """Return the model card.

    If the images are gone and the journal does not describe them, the existing card is returned.
    """
    plan = ledger.plan
    try:
        data = data_of(plan, ledger.dataset)
    except ValueError as error:
        try:
            return card_path(student_path(plan, entry.trial_id)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise StudyError(
                f"the best student could not be described and logged to MLflow, because its images cannot be read "
                f"({error}). Restore them, and run python -m study.sync"
            ) from None
    return card_of(plan, entry, first, result, data=data, registered_as=registered_as)


def model_name(plan: StudyPlan, architecture: str, data_digest: str | None = None) -> str:
    """Return the registered-model name for students with the same dataset and architecture.

    Two image folders with the same name may hold different images. The name for a folder therefore also contains a
    digest of images and split. Moving the folder does not change the name. Other images change the name, because test
    scores on different images cannot be compared.

    Args:
        plan: the study.
        architecture: architecture of the student.
        data_digest: digest of the folder's content, as reported by the trials. Default: digest of the path.
    """
    dataset = plan.base.dataset
    if dataset.startswith(FOLDER_PREFIX):
        content = data_digest or hashlib.sha256(dataset.encode()).hexdigest()
        dataset = f"{Path(dataset.removeprefix(FOLDER_PREFIX)).name}-{content[:_DIGEST]}"
    elif is_own_data(dataset):
        content = data_digest or hashlib.sha256(dataset.encode()).hexdigest()
        place = short_name(dataset).partition(",")[0].partition("@")[0]
        dataset = f"{place.removeprefix(ARRAYS_PREFIX).removeprefix(HUB_PREFIX)}-{content[:_DIGEST]}"
    else:  # `sst2` of `glue:sst2`
        dataset = dataset.rpartition(":")[2]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"pesfkd-{dataset}-{architecture}")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - _DIGEST - 1]}-{hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]}"


def _better_champion(client: MlflowClient, version: ModelVersion) -> str | None:
    """Describe the current champion version if the mean test score is higher; else return None."""
    holders = client.search_model_versions(f"name = '{version.name}'")
    aliases = client.get_registered_model(version.name).aliases
    holder = next((each for each in holders if str(each.version) == str(aliases.get("champion"))), None)
    if holder is None or holder.version == version.version or _SCORE not in holder.tags.keys() & version.tags.keys():
        return None
    best, own = float(holder.tags[_SCORE]), float(version.tags[_SCORE])
    if not best > own:
        return None
    study = holder.tags.get("study", "another study")
    means = f"mean {format_number(best)} on the test split, here {format_number(own)}"
    return f"version {holder.version} of {study}, with {means}"


def _registered(client: MlflowClient, plan: StudyPlan) -> ModelVersion | None:
    """Return the version already registered by the study, or None."""
    own = client.search_model_versions(f"tags.study_id = '{plan.study_id}'")  # not by name: older releases used others
    return own[0] if own else None


def _register(
    client: MlflowClient,
    plan: StudyPlan,
    entry: TrialEntry,
    path: Path,
    card: str,
    parent_id: str,
    *,
    name: str,
    score: float,
) -> ModelVersion:
    kept = load_kept(path)
    with tracking_at(plan.tracking_uri), mlflow.start_run(run_id=parent_id, log_system_metrics=False):
        logged = mlflow.pyfunc.log_model(
            name="student",
            loader_module=LOADER,
            data_path=str(path),
            signature=_signature(kept.student, tuple(kept.images.shape[1:])),
            input_example=kept.images[:1].numpy(),
            pip_requirements=_requirements(plan.base.student, text=bool(kept.student.about)),
            tags={"trial_id": entry.trial_id, "study": plan.name, "config_id": entry.config_id},
            metadata={"class_names": list(kept.student.class_names)} if kept.student.class_names else None,
        )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(
            name, description=f"Students {entry.config.student} for {short_name(plan.base.dataset)}."
        )
    tags = {"study": plan.name, "study_id": plan.study_id, "trial_id": entry.trial_id, _SCORE: f"{score!r}"}
    with tracking_at(plan.tracking_uri):  # MLflow looks up the model by identifier in the current store
        return client.create_model_version(
            name,
            logged.model_uri,
            parent_id,
            tags=tags,
            description=card[:_LONGEST_DESCRIPTION],
            model_id=logged.model_id,
        )


def _signature(student: Student, shape: tuple[int, ...]) -> ModelSignature:
    tokens = bool(student.about)
    inputs = TensorSpec(np.dtype(np.int32), (-1, 2, -1)) if tokens else TensorSpec(np.dtype(np.uint8), (-1, *shape))
    return ModelSignature(
        inputs=Schema([inputs]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, student.info.num_classes))]),
    )


def _requirements(student: str, *, text: bool) -> list[str]:
    """Return the packages needed for loading a student, with the installed versions.

    Args:
        student: architecture name. A user's own network also needs the packages imported in the network's sources.
        text: whether the student reads text.
    """
    from trainables.process.versions import running_versions

    versions = running_versions()
    named = ("pesfkd", "torch", "transformers") if text else ("pesfkd", "torch")
    known = {name: versions[f"version.{name}"] for name in named if f"version.{name}" in versions}
    if is_canonical(student):
        imported = (each for module in sources_of(student).libraries for each in _packages_of(module))
        known = dict(imported) | known
    return [f"{name}=={number}" for name, number in known.items() if number[0].isdigit()]


def _packages_of(module: str) -> list[tuple[str, str]]:
    """Return the packages providing a module, with versions."""
    try:
        return [(module, installed_version(module))]
    except PackageNotFoundError:  # the package has another name; searching all packages takes seconds
        return [(name, installed_version(name)) for name in dict.fromkeys(packages_distributions().get(module, ()))]


@contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """Set MLflow's global tracking URI, which model logging uses, and restore it afterwards.

    Setting a URI also sets an environment variable. The process's own previous setting is restored, not the URI in
    effect.
    """
    own, variable = tracking._tracking_uri, os.environ.get(_TRACKING_URI)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(own)  # type: ignore[arg-type] # None: not set
        os.environ.pop(_TRACKING_URI, None)
        if variable is not None:
            os.environ[_TRACKING_URI] = variable
