"""The resolved, frozen description of a study: what the command line asked for, checked before any work starts.

It imports neither torch nor ray nor mlflow, so that a mistake is refused at once. Whether the networks take the data,
`study.plan.network_checks` tries afterwards.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from search_spaces import MethodComparison, SearchSpace, find_space, space_names
from study.plan.confirmation import ConfirmationRequest
from study.plan.folder import with_home
from study.plan.methods import ComparedMethod, Search, row_name
from study.plan.outputs import DEFAULT_LIMIT, OutputsDtype, OutputsMode, OutputsSource
from study.plan.stages import PlannedTrial
from trainables.models.taken_weights import TakenWeights
from trainables.spec.architectures import is_known_to_draw_nothing, is_packable
from trainables.spec.measures import objective_of
from trainables.spec.methods import method_spec
from trainables.spec.modality import is_text
from trainables.spec.trial import SEEDS, TrialConfig
from trainables.storage.files import replace_file
from trainables.storage.uris import redact_place

Sampler = Literal["tpe", "random", "qmc", "gp", "cmaes", "nsga2"]
Scheduler = Literal["none", "asha"]

SAMPLERS: Final[tuple[str, ...]] = get_args(Sampler)
SCHEDULERS: Final[tuple[str, ...]] = get_args(Scheduler)
MOST_PACKED: Final = 64
MOST_TRIALS: Final = 1_000_000
LONGEST_SECONDS: Final = 1e9  # 31 years
_BYTES_PATTERN: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{0,20})?\s*[A-Za-z]{0,5}")
CONTROLS: Final = ("ce", "kd")
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Folders beside those of the studies.
_TAKEN_NAMES: Final = ("teachers", "teacher_outputs", "mlartifacts", "mlflow.db")

# How a study runs, not what it is: these may differ when it is resumed.
EXECUTION_FIELDS: Final = frozenset(
    {
        "max_concurrent",
        "cpus_per_trial",
        "gpus_per_trial",
        "workers_per_trial",
        "pack",
        "time_budget",
        "trial_timeout",
        "address",
        "data_root",
        "tracking_uri",
        "optuna_storage",
        "teacher_checkpoint",  # where it lies; what it is, the base says
        "teacher_weights",  # likewise
        "teacher_outputs_limit",
        "teacher_outputs_path",
        "storage_path",
        "ship_code",
    }
)


# What may be a URI, whose secrets are written nowhere.
URI_FIELDS: Final = ("tracking_uri", "teacher_outputs_path", "storage_path")


class StudyPlan(BaseModel):
    """One study, resolved: the same plan on the same code proposes the same first configs.

    The search proposes `trials` configs and trains each once (replicate 0). The controls `ce` and `kd`, and the
    `promising` best configs of the search, are trained on `replicates` fresh seeds each (replicates 1, 2, ...), so
    that no mean in the result contains the seed that a config was chosen by. Equal replicate numbers begin from equal
    weights and see equal batches, which pairs configs. `overrides` are config fields that hold for every trial, in
    place of what the base or the space holds them at; `base` has them laid over it.

    A study that compares methods (`compared`) has no controls. Where it tunes them, each method has a search of its own
    with `trials` configs, and its `promising` best are repeated; where it does not, nothing is searched, and the
    methods themselves are what is repeated.

    Trials find the frozen teacher's outputs in files or ask the teacher itself, which differs in the last digits of a
    result. What `teacher_outputs` leaves open is decided once, when the study is planned, and kept in
    `teacher_outputs_used`.

    A `confirmation` follows when all that is done (see `study.stages.confirmation`). It is no part of what the study
    is, and can be asked for later; its trials are in no count here but `confirm_trials`.

    A teacher that was given is known by its digest, `base.teacher_digest`, wherever its checkpoint lies later.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    study_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    space: str
    base: TrialConfig
    overrides: dict[str, bool | int | float | str] = Field(default_factory=dict)
    compared: tuple[ComparedMethod, ...] = ()
    trials: int = Field(24, ge=0, le=MOST_TRIALS)
    promising: int = Field(3, ge=0, le=MOST_TRIALS)
    replicates: int = Field(3, ge=1, le=10_000)
    controls: tuple[str, ...] = CONTROLS
    confirmation: ConfirmationRequest | None = None
    sampler: Sampler = "tpe"
    scheduler: Scheduler = "none"
    seed: int = Field(0, ge=0, lt=SEEDS)
    max_concurrent: int | None = Field(None, ge=1, le=100_000)
    cpus_per_trial: float = Field(1.0, gt=0, le=10_000)
    gpus_per_trial: float = Field(0.0, ge=0, le=1024)
    workers_per_trial: int = Field(1, ge=1, le=1024)
    pack: int | Literal["auto"] = 1
    time_budget: float | None = Field(None, gt=0, le=LONGEST_SECONDS)
    trial_timeout: float | None = Field(None, gt=0, le=LONGEST_SECONDS)
    address: str = "local"
    ship_code: bool = False
    output_dir: Path = Path("study_results")
    storage_path: str | None = None
    data_root: Path | None = None
    tracking_uri: str
    optuna_storage: Path | None = None
    space_digest: str = ""
    teacher_checkpoint: Path | None = None
    teacher_normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    teacher_weights: TakenWeights | None = None
    teacher_outputs: OutputsMode = "auto"
    teacher_outputs_dtype: OutputsDtype = "float16"
    teacher_outputs_limit: ByteSize = DEFAULT_LIMIT
    teacher_outputs_path: str | None = None
    teacher_outputs_used: OutputsSource | None = None

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME_PATTERN.fullmatch(name):
            raise ValueError(
                f"study name {name!r}: use 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit"
            )
        if name in _TAKEN_NAMES:
            raise ValueError(f"study name {name!r}: the output folder keeps something else under it; choose another")
        return name

    @field_validator("gpus_per_trial")
    @classmethod
    def _part_of_a_gpu_or_whole_ones(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise ValueError("a trial takes a part of one GPU, such as 0.25, or whole ones")
        return gpus

    @field_validator("cpus_per_trial", "gpus_per_trial")
    @classmethod
    def _a_number_that_ray_can_share_out(cls, count: float) -> float:
        if 0 < count < 0.0001 or abs(count - round(count, 4)) > 1e-9 * max(1.0, count):
            raise ValueError(f"Ray shares out cores and GPUs in steps of 0.0001: give {max(0.0001, round(count, 4)):g}")
        return count

    @field_validator("teacher_outputs_limit", mode="before")
    @classmethod
    def _bytes_that_can_be_counted(cls, limit: Any) -> Any:
        if isinstance(limit, str) and not _BYTES_PATTERN.fullmatch(limit.strip()):
            raise ValueError("give a number of bytes, such as 4GiB or 500MB")
        return limit

    @field_validator("teacher_outputs_limit")
    @classmethod
    def _bytes_that_files_can_have(cls, limit: ByteSize) -> ByteSize:
        if not 0 <= limit < 2**63:
            raise ValueError("give a number of bytes from 0 to 8EiB, such as 4GiB")
        return limit

    @field_validator("pack", mode="before")
    @classmethod
    def _count_or_auto(cls, count: Any) -> Any:
        if count == "auto" or (re.fullmatch("[0-9]{1,3}", str(count)) and 1 <= int(count) <= MOST_PACKED):
            return count
        raise ValueError(f"give a number from 1 to {MOST_PACKED}, or auto")

    @model_validator(mode="after")
    def _can_have_workers(self) -> Self:
        if self.workers_per_trial == 1:
            return self
        if self.pack != 1:
            raise ValueError("a trial is either packed with others or has several workers: leave out one of the two")
        if 0 < self.gpus_per_trial != 1:
            raise ValueError("each worker of a trial has one GPU: give --gpus-per-trial 1 with --workers-per-trial")
        batch_size = self.overrides.get("batch_size", self.base.batch_size)
        if isinstance(batch_size, int) and batch_size < self.workers_per_trial:
            raise ValueError(f"{self.workers_per_trial} workers cannot share batches of {batch_size} samples")
        return self

    @model_validator(mode="after")
    def _can_be_packed(self) -> Self:
        if self.pack != 1 and self.gpus_per_trial > 0:
            raise ValueError("packed trials of a study run on CPUs: leave out --pack or --gpus-per-trial")
        if self.pack != 1 and self.trial_timeout is not None:
            raise ValueError(
                "trials that train as one stop as one, and which of them hangs cannot be told: leave out --pack or "
                "--trial-timeout"
            )
        if self.pack not in (1, "auto") and (is_text(self.base.dataset) or not self.base.has_plain_steps):
            raise ValueError(
                "packed trials are of images, and learn by SGD at one rate an epoch, without clipping: leave out --pack"
            )
        if self.pack not in (1, "auto") and not is_packable(self.base.student):
            raise ValueError(
                f"students of architecture {self.base.student!r} cannot be packed, as their layers mix channels: "
                "leave out --pack"
            )
        beside = self.base.method_spec.companion
        if self.pack != 1 and beside is not None and not is_known_to_draw_nothing(getattr(self.base, beside)):
            raise ValueError(
                f"{getattr(self.base, beside)} learns beside the students by method {self.base.method!r}, and may draw "
                "random numbers that packed trials do not keep apart: leave out --pack"
            )
        return self

    @field_validator("space")
    @classmethod
    def _known_space(cls, name: str) -> str:
        return find_space(name).name

    @field_validator("trials", "promising")
    @classmethod
    def _none_where_nothing_is_searched(cls, count: int, info: ValidationInfo) -> int:
        if "space" not in info.data:  # refused already
            return count
        space = find_space(info.data["space"])
        if isinstance(space, MethodComparison) and not space.tuned:
            return 0
        if count < 1:
            raise ValueError("Input should be greater than or equal to 1")
        return count

    @model_validator(mode="after")
    def _methods_are_compared_evenly(self) -> Self:
        if isinstance(self.search_space, MethodComparison) != bool(self.compared):
            raise ValueError(f"space {self.space!r} and the methods to compare do not go together")
        if self.compared and self.scheduler != "none":
            raise ValueError(
                f"every trial of space {self.space!r} is trained to its end, so that all methods have the same budget: "
                "leave out --scheduler"
            )
        if self.compared and self.pack != 1:
            raise ValueError("trials of different methods cannot train as one: leave out --pack")
        for method in self.compared:
            self.configure(method.fields)
        return self

    @model_validator(mode="after")
    def _overrides_are_config_fields(self) -> Self:
        varied = sorted(self.overrides.keys() & set(self.search_space.varied))
        if varied:
            raise ValueError(f"space {self.space!r} varies {', '.join(varied)}: it cannot be set as well")
        TrialConfig(**{**self.base.model_dump(), **self.overrides})
        return self

    @field_validator("teacher_outputs_path", "storage_path")
    @classmethod
    def _folder_or_uri(cls, place: str | None) -> str | None:
        if place is not None and (not place or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", place)):
            raise ValueError("name a folder, or a URI with two slashes, such as s3://BUCKET/FOLDER")
        return place

    @model_validator(mode="before")
    @classmethod
    def _digest_the_space(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("space_digest") and values.get("space") in space_names():
            base = values.get("base")
            dataset = base.get("dataset", "") if isinstance(base, dict) else getattr(base, "dataset", "")
            space = find_space(values["space"], text=is_text(dataset))
            content = json.dumps(asdict(space), sort_keys=True, default=str)
            values = {**values, "space_digest": hashlib.sha256(content.encode()).hexdigest()[:12]}
        return values

    @property
    def directory(self) -> Path:
        """The study's folder."""
        return self.output_dir / self.name

    @property
    def teachers_folder(self) -> Path:
        """Where teachers are kept, for all studies of the output folder."""
        return self.output_dir.absolute() / "teachers"

    @property
    def teacher_outputs_location(self) -> str:
        """Where teachers' outputs are kept, for all studies of the output folder: a folder or a URI."""
        return self.teacher_outputs_path or str(self.output_dir / "teacher_outputs")

    @property
    def teachers(self) -> dict[str, TrialConfig]:
        """Every teacher to be trained, or given, before the trials begin, each as a trial that it teaches.

        By the method that has it to itself; the one that all others share is the empty name's.
        """
        found: dict[str, TrialConfig] = {}
        methods = (self.base.method, *self.controls)
        compared = [self.configure(method.fields) for method in self.compared]
        for config in compared or [self.control_config(method) for method in methods]:
            entry = method_spec(config.method)
            if entry.needs_teacher or self.base.begins_as_teacher:
                found.setdefault(config.method if entry.teacher_fields else "", config)
        return found

    @property
    def objective(self) -> str:
        """The measure that the search maximises and that decides between configs: the dataset's own."""
        return objective_of(self.base.dataset)

    @property
    def search_space(self) -> SearchSpace | MethodComparison:
        """The space, or the comparison, that `space` names."""
        return find_space(self.space, text=is_text(self.base.dataset))

    @property
    def searches(self) -> tuple[Search, ...]:
        """What is searched: the space, or for each method that is compared what is tuned of it."""
        space = self.search_space
        if isinstance(space, SearchSpace):
            return (Search("", {}, space.parameters),)
        return tuple(self._search_of(space, method) for method in self.compared) if space.tuned else ()

    def _search_of(self, space: MethodComparison, method: ComparedMethod) -> Search:
        config = self.configure(method.fields)
        parameters = space.parameters_for(config.model_dump(), config.method_spec.fields)
        return Search(method.name, method.fields, parameters, {each.name: each.value for each in parameters})

    def search_of(self, config: TrialConfig) -> str:
        """The name of the search that a config belongs to."""
        return row_name(config) if self.compared else ""

    @property
    def example_config(self) -> TrialConfig:
        """A config of the study, for what they all have in common: data, student, teacher, epochs."""
        return self.configure(self.search_space.default_point())

    @property
    def differing(self) -> tuple[str, ...]:
        """The fields in which the study's configs may differ, beside method and seeds."""
        own = (name for method in self.compared for name in method.fields if name != "method")
        return tuple(dict.fromkeys([*self.search_space.varied, *own]))

    @property
    def _num_searches(self) -> int:
        return len(self.compared) if self.compared and self.trials else 1

    @property
    def searched(self) -> int:
        """Trials of all searches."""
        return self.trials * self._num_searches

    @property
    def total_trials(self) -> int:
        """All trials of the study, unless the search finishes fewer configs than are to be repeated."""
        promising = self._num_searches * min(self.promising, self.trials)
        return self.searched + self.replicates * (len(self._fixed_configs) + promising)

    @property
    def digest(self) -> str:
        """Content digest of everything that defines the study."""
        left_out = set(EXECUTION_FIELDS) | {"study_id", "output_dir", "name", "confirmation"}
        if not self.compared:  # younger than the first studies
            left_out.add("compared")
        content = self.model_dump(mode="json", exclude=left_out) | {"base": self.base.content_of_plan}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def configure(self, suggested: dict[str, Any]) -> TrialConfig:
        """The base config with a point of the space, then the overrides, laid over it (checked)."""
        return TrialConfig(**{**self.base.model_dump(), **suggested, **self.overrides})

    def control_config(self, method: str) -> TrialConfig:
        """The point where the space starts, by another method, without an adapter that it could do without."""
        return self.configure({**self.search_space.default_point(), "method": method, "adapter": False})

    @property
    def _fixed_configs(self) -> list[TrialConfig]:
        """What is repeated whatever a search finds: the controls, or methods that nothing is searched for."""
        if self.compared:
            return [] if self.searches else [self.configure(method.fields) for method in self.compared]
        return [self.control_config(method) for method in self.controls]

    def control_trials(self) -> Iterator[PlannedTrial]:
        """The configs that do not depend on a search, replicate by replicate."""
        for replicate in range(1, self.replicates + 1):
            for config in self._fixed_configs:
                yield PlannedTrial("control", config.with_seeds(self.seed, replicate), replicate)

    def save(self) -> Path:
        """Write `plan.json` into the study's folder, without the secrets that a URI may hold."""
        path = self.directory / "plan.json"
        content = with_home(self.without_secrets().model_dump(mode="json"), self.directory, self.tracking_uri)
        replace_file(path, (json.dumps(content, indent=2) + "\n").encode(), durable=True)
        return path

    def without_secrets(self) -> Self:
        """The plan as it may be shown and written."""
        places = {name: getattr(self, name) for name in URI_FIELDS}
        return self.model_copy(update={name: redact_place(uri) for name, uri in places.items() if uri is not None})
