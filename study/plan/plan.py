"""Resolved, frozen description of a study, checked before any work starts.

The module imports neither torch nor Ray nor MLflow, so mistakes on the command line are reported at once.
`study.plan.network_checks` checks later whether the models accept the data.
"""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from search_spaces import Bounds, MethodComparison, SearchSpace, with_bounds
from search_spaces.space import definition_of
from study.plan.beliefs import Belief
from study.plan.confirmation import FIRST_LOOK, ConfirmationRequest
from study.plan.executor import check_executor, check_packing
from study.plan.folder import recorded_digest, with_home
from study.plan.gpus import AUTO as AUTO_GPUS
from study.plan.gpus import GpusPerTrial, on_grid
from study.plan.methods import BASELINE, ComparedMethod, Search, row_name
from study.plan.objectives import Limit, check_objectives
from study.plan.options import default_of, names_of
from study.plan.outputs import OutputsDtype, OutputsMode, OutputsSource
from study.plan.spaces import space_named, with_space_bounds
from study.plan.stages import PlannedTrial
from study.plan.travel import default_outputs_location
from study.plan.until import Until, check_until
from study.plan.warm_start import EarlierStudy
from trainables.models.taken_weights import TakenWeights
from trainables.spec.architectures import LAYERS_PATTERN
from trainables.spec.bounds import SEEDS
from trainables.spec.digest import DIGEST_VERSION, digest_of
from trainables.spec.measures import objective_of
from trainables.spec.methods import is_own, method_spec
from trainables.spec.modality import is_text
from trainables.spec.searchable import ALWAYS_READ, is_nuisance
from trainables.spec.trial import Augmentation, TrialConfig, own_fields
from trainables.storage.files import replace_file
from trainables.storage.uris import redact_place

Sampler = Literal["tpe", "random", "qmc", "gp", "cmaes", "nsga2"]
Scheduler = Literal["none", "asha"]
ExecutorName = Literal["auto", "ray", "processes", "in-process"]

MOST_PACKED: Final = 64
MOST_TRIALS: Final = 1_000_000
MOST_THREADS: Final = 1024
LONGEST_SECONDS: Final = 1e9  # 31 years
_BYTES_PATTERN: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{0,20})?\s*[A-Za-z]{0,5}")
CONTROLS: Final = ("ce", "kd")
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Names in the output folder that are not studies.
_TAKEN_NAMES: Final = ("teachers", "teacher_outputs", "mlartifacts", "mlflow.db")

# Value left out of a plan's digest. It was the default of --replicates when digest version 2 was defined.
_REPLICATES_OF_DIGESTS: Final = 3

# Fields for execution only. They may change at a resume.
EXECUTION_FIELDS: Final = frozenset(names_of("execution")) - {"output_dir"}
# Fields that may hold a URI. Secrets in a URI are never written to disk.
URI_FIELDS: Final = ("tracking_uri", "teacher_outputs_path", "storage_path")


class StudyPlan(BaseModel):
    """Plan of one study. The same plan with the same code proposes the same first configs.

    The search proposes `trials` configs and trains each config once (replicate 0). The controls `ce` and `kd`, and the
    `promising` best searched configs, are trained on `replicates` fresh seeds each (replicates 1, 2, ...). The seed
    used for choosing a config therefore never enters a reported mean. Replicate k of every repeated config uses the
    same initial weights and batches, so differences are paired. Search trials share only the batches.

    With `replicates_detect`, repetitions are added until every comparison with `kd` is decided to this difference, and
    `replicates` is the maximum number (`study.ledger.repetitions`).

    With several `objectives`, or with `limits`, the promising configs are the best on the Pareto front
    (`study.plan.objectives`). `latency` is the number of threads for measuring students before the search.

    `search` has bounds given by the user. They replace the space's bounds, or add fields to the search.

    `prior` has beliefs about good values, which guide the search (`study.plan.beliefs`). `warm_start` has earlier
    studies for the start of the search (`study.plan.warm_start`). `until` may end the search early
    (`study.plan.until`).

    `overrides` are config fields fixed in every trial, replacing values from the base and the space. `configure`
    applies the overrides last.

    A study comparing methods (`compared`) has no controls. If the study tunes the methods, each method has
    `searches_per_method` separate searches with `trials` configs each, and the `promising` best configs from each
    search are repeated. Otherwise nothing is searched and each method's starting config is repeated.

    Trials read the frozen teacher's outputs from files or run the teacher live. The results of both ways differ in the
    last digits. With `teacher_outputs="auto"`, the choice is made once, at planning time, and stored in
    `teacher_outputs_used`.

    A `confirmation` runs after all other trials (see `study.stages.confirmation`). A confirmation is not part of the
    plan's digest and can be requested later. `total_trials` does not count confirmation trials, `confirm_trials` does.
    Confirmation trials may have another number of epochs (`confirm_epochs`). All earlier trials have `base.epochs`.

    `digest_version` is the digest version for plan and config identifiers; see `trainables.spec.digest`. A plan with
    another version can be read, but not resumed.

    A teacher from a checkpoint is identified by `base.teacher_digest`, so the checkpoint file may move.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    study_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    digest_version: int = Field(DIGEST_VERSION, ge=1, le=1_000_000)
    space: str
    base: TrialConfig
    overrides: dict[str, bool | int | float | str] = Field(default_factory=dict)
    search: tuple[Bounds, ...] = ()
    compared: tuple[ComparedMethod, ...] = ()
    trials: int = Field(default_of("trials"), ge=0, le=MOST_TRIALS)
    promising: int = Field(default_of("promising"), ge=0, le=MOST_TRIALS)
    searches_per_method: int = Field(default_of("searches_per_method"), ge=1, le=100)
    budget: Literal["trials", "flops"] = default_of("budget")
    replicates: int = Field(_REPLICATES_OF_DIGESTS, ge=1, le=10_000)
    replicates_detect: float | None = Field(None, gt=0, lt=1)
    controls: tuple[str, ...] = CONTROLS
    confirmation: ConfirmationRequest | None = None
    sampler: Sampler = default_of("sampler")
    scheduler: Scheduler = default_of("scheduler")
    objectives: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    prior: tuple[Belief, ...] = ()
    warm_start: tuple[EarlierStudy, ...] = ()
    until: Until | None = default_of("until")
    latency: int | None = Field(default_of("latency"), ge=1, le=MOST_THREADS)
    seed: int = Field(default_of("seed"), ge=0, lt=SEEDS)
    executor: ExecutorName = default_of("executor")
    max_concurrent: int | None = Field(default_of("max_concurrent"), ge=1, le=100_000)
    cpus_per_trial: float = Field(default_of("cpus_per_trial"), gt=0, le=10_000)
    gpus_per_trial: GpusPerTrial = default_of("gpus_per_trial")
    workers_per_trial: int = Field(default_of("workers_per_trial"), ge=1, le=1024)
    pack: int | Literal["auto"] | None = Field(default_of("pack"), validate_default=True)
    time_budget: float | None = Field(default_of("time_budget"), gt=0, le=LONGEST_SECONDS)
    trial_timeout: float | None = Field(default_of("trial_timeout"), gt=0, le=LONGEST_SECONDS)
    address: str = default_of("address")
    ship_code: bool = default_of("ship_code")
    output_dir: Path = default_of("output_dir")
    storage_path: str | None = default_of("storage_path")
    data_root: Path | None = default_of("data_root")
    tracking_uri: str
    optuna_storage: Path | None = default_of("optuna_storage")
    tensorboard: bool = default_of("tensorboard")
    wandb_offline: bool = default_of("wandb_offline")
    space_digest: str = ""
    teacher_checkpoint: Path | None = default_of("teacher_checkpoint")
    teacher_normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    teacher_weights: TakenWeights | None = None
    teacher_outputs: OutputsMode = default_of("teacher_outputs")
    teacher_outputs_dtype: OutputsDtype = default_of("teacher_outputs_dtype")
    teacher_outputs_limit: ByteSize = Field(default_of("teacher_outputs_limit"), validate_default=True)
    teacher_outputs_path: str | None = default_of("teacher_outputs_path")
    teacher_outputs_used: OutputsSource | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not NAME_PATTERN.fullmatch(name):
            raise ValueError(
                f"study name {name!r}: use 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit"
            )
        if name in _TAKEN_NAMES:
            raise ValueError(f"study name {name!r}: this name is reserved in the output folder; choose another")
        return name

    @field_validator("cpus_per_trial")
    @classmethod
    def _check_cpus(cls, count: float) -> float:
        return on_grid(count)

    @field_validator("teacher_outputs_limit", mode="before")
    @classmethod
    def _check_bytes_format(cls, limit: Any) -> Any:
        if isinstance(limit, str) and not _BYTES_PATTERN.fullmatch(limit.strip()):
            raise ValueError("give a number of bytes, such as 4GiB or 500MB")
        return limit

    @field_validator("teacher_outputs_limit")
    @classmethod
    def _check_bytes_range(cls, limit: ByteSize) -> ByteSize:
        if not 0 <= limit < 2**63:
            raise ValueError("give a number of bytes from 0 to 8EiB, such as 4GiB")
        return limit

    @field_validator("pack", mode="before")
    @classmethod
    def _check_pack(cls, count: Any) -> Any:
        if count in (None, "auto") or (re.fullmatch("[0-9]{1,3}", str(count)) and 1 <= int(count) <= MOST_PACKED):
            return count
        raise ValueError(f"give a number from 1 to {MOST_PACKED}, or auto")

    @model_validator(mode="after")
    def _check_search(self) -> Self:
        fields = [each.field for each in self.search]
        if len(set(fields)) < len(fields):
            raise ValueError(f"--search gives a field more than once: {', '.join(fields)}")
        space = space_named(self.space)
        if isinstance(space, SearchSpace) and space.needs_bounds and not fields:
            raise ValueError(
                f"space {self.space!r} searches nothing of its own: give at least one --search, such as --search "
                "temperature=1:32:log"
            )
        if fields and isinstance(space, MethodComparison) and not space.tuned:
            raise ValueError(
                f"space {self.space!r} compares methods at published settings and searches nothing: leave out "
                "--search, or choose --space method_tuned"
            )
        return self

    @model_validator(mode="after")
    def _digest_the_space(self) -> Self:
        if not self.space_digest:
            space = space_named(self.space, text=is_text(self.base.dataset))
            digest = digest_of({**space.definition, **definition_of(self.search)})
            object.__setattr__(self, "space_digest", digest)
        return self

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.workers_per_trial == 1:
            return self
        if self.pack not in (1, None):
            raise ValueError("a trial is either packed or has several workers: leave out --pack or --workers-per-trial")
        if self.gpus_per_trial not in (0, 1, AUTO_GPUS):
            raise ValueError("each worker of a trial uses one GPU: give --gpus-per-trial 1 with --workers-per-trial")
        batch_size = self.overrides.get("batch_size", self.base.batch_size)
        if isinstance(batch_size, int) and batch_size < self.workers_per_trial:
            raise ValueError(
                f"{self.workers_per_trial} workers cannot share a batch of {batch_size} samples: use fewer workers"
            )
        return self

    @model_validator(mode="after")
    def _check_execution(self) -> Self:
        check_packing(self)
        check_executor(self)
        return self

    @field_validator("space")
    @classmethod
    def _check_space(cls, name: str) -> str:
        space_named(name)
        return name

    @field_validator("trials", "promising")
    @classmethod
    def _check_search_counts(cls, count: int, info: ValidationInfo) -> int:
        if "space" not in info.data:  # the space failed validation
            return count
        space = space_named(info.data["space"])
        if isinstance(space, MethodComparison) and not space.tuned:
            return 0
        if count < 1:
            raise ValueError("Input should be greater than or equal to 1")
        return count

    @model_validator(mode="after")
    def _check_comparison(self) -> Self:
        if isinstance(self.search_space, MethodComparison) != bool(self.compared):
            raise ValueError(f"space {self.space!r} and the list of methods to compare do not match")
        if self.compared and self.scheduler != "none":
            raise ValueError(
                f"every trial of space {self.space!r} is trained for all epochs, so all methods have the same budget: "
                "leave out --scheduler"
            )
        if self.compared and self.pack not in (1, None):
            raise ValueError("trials of different methods cannot be packed together: leave out --pack")
        if self.searches_per_method > 1 and not self.searches:
            raise ValueError(f"space {self.space!r} tunes no methods, so it has no searches per method")
        if self.searches_per_method > 1 and not self.compared:
            raise ValueError(
                f"--searches is the number of searches per method, and space {self.space!r} compares no methods: leave "
                "it out"
            )
        if self.budget != "trials" and not (self.compared and self.searches):
            raise ValueError(f"space {self.space!r} tunes no methods that could share FLOPs: leave out --budget")
        for method in self.compared:
            self.configure(method.fields)
        return self

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        check_objectives(self)
        check_until(self)
        return self

    @model_validator(mode="after")
    def _check_sequential_replicates(self) -> Self:
        if self.replicates_detect is None:
            return self
        if self.replicates < FIRST_LOOK:
            raise ValueError(f"repetitions that are added by results number at least {FIRST_LOOK}: raise --most-seeds")
        if not self.compared and BASELINE not in self.controls:
            raise ValueError(
                f"repetitions are added to compare configs with {BASELINE}, and the study has no {BASELINE}: give a "
                "number of --replicates"
            )
        if self.compared and len(self.compared) < 2:
            raise ValueError(
                f"repetitions are added to compare methods with {BASELINE}, and the study has only {BASELINE}: give "
                "another method, or a number of --replicates"
            )
        return self

    @model_validator(mode="after")
    def _check_overrides(self) -> Self:
        varied = sorted(self.overrides.keys() & set(self.search_space.varied))
        if varied:
            raise ValueError(f"space {self.space!r} varies {', '.join(varied)}, so a fixed value cannot be set")
        self.configure({})
        return self

    @model_validator(mode="after")
    def _check_confirm_epochs(self) -> Self:
        if self.confirm_epochs != self.base.epochs:
            TrialConfig(**{**self.configure({}).model_dump(), "epochs": self.confirm_epochs})
        return self

    @field_validator("teacher_outputs_path", "storage_path")
    @classmethod
    def _check_place(cls, place: str | None) -> str | None:
        if place is not None and (not place or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", place)):
            raise ValueError("give a folder, or a URI with two slashes, such as s3://BUCKET/FOLDER")
        return place

    @property
    def directory(self) -> Path:
        """Study folder."""
        return self.output_dir / self.name

    @property
    def teachers_folder(self) -> Path:
        """Folder with teachers, shared by all studies in the output folder."""
        return self.output_dir.absolute() / "teachers"

    @property
    def teacher_outputs_location(self) -> str:
        """Folder or URI with teacher outputs, by default shared by all studies in the output folder or storage."""
        return self.teacher_outputs_path or default_outputs_location(self)

    @property
    def teachers(self) -> dict[str, TrialConfig]:
        """Teachers trained or loaded before the trials begin, each represented by a trial config using the teacher.

        Keys are names of methods with their own teacher. The shared teacher has the empty string as key.
        """
        found: dict[str, TrialConfig] = {}
        begin_as_teacher = any(map(LAYERS_PATTERN.fullmatch, self.students))
        methods = (self.base.method, *self.controls)
        compared = [self.configure(method.fields) for method in self.compared]
        for config in compared or [self.control_config(method) for method in methods]:
            entry = method_spec(config.method)
            if entry.needs_teacher or begin_as_teacher:
                found.setdefault(config.method if entry.teacher_fields else "", config)
        return found

    @property
    def confirm_epochs(self) -> int:
        """Number of training epochs of confirmation trials."""
        asked = None if self.confirmation is None else self.confirmation.epochs
        return self.base.epochs if asked is None else asked

    @property
    def teacher_seeds(self) -> list[int]:
        """Teacher seeds: first the study's own teacher, then further teachers in the confirmation."""
        first = self.example_config.teacher_seed
        return [*range(first, first + (1 if self.confirmation is None else self.confirmation.teachers))]

    @property
    def further_teachers(self) -> list[dict[str, TrialConfig]]:
        """Teachers used only by the confirmation, one mapping per pair of teacher and split. Keys as in `teachers`."""
        request = self.confirmation
        cells = [] if request is None or not self.teachers else [request.cell_of(each) for each in range(request.cells)]
        return [
            {whose: trial.with_numbers(teacher=teacher, split=split) for whose, trial in self.teachers.items()}
            for teacher, split in cells[1:]
        ]

    @property
    def objective(self) -> str:
        """Measure maximised by the search and used for ranking configs, given by the dataset."""
        return objective_of(self.base.dataset)

    @property
    def search_space(self) -> SearchSpace | MethodComparison:
        """Search space or comparison with the name `space`, with the user's bounds."""
        space = space_named(self.space, text=is_text(self.base.dataset))
        if not self.search:
            return space
        if isinstance(space, MethodComparison):
            return space.with_bounds(self.search)
        return with_bounds(space, self.search, self.base.model_dump(), is_nuisance)

    @property
    def own_methods(self) -> tuple[str, ...]:
        """The user's own methods, by canonical name."""
        methods = (self.base.method, *(str(each.fields["method"]) for each in self.compared))
        return tuple(dict.fromkeys(filter(is_own, methods)))

    @property
    def given_bounds(self) -> tuple[Bounds, ...]:
        """Bounds given by the user, from `search` and from a user space."""
        return with_space_bounds(self.space, self.search)

    @property
    def students(self) -> tuple[str, ...]:
        """Student architectures: the base config's student, or the students to search over."""
        searched = [each.choices for each in self.given_bounds if each.field == "student"]
        return tuple(map(str, searched[0])) if searched else (self.base.student,)

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """Trial augmentations: the example config's augmentation, or the augmentations to search over."""
        searched = [each.choices for each in self.given_bounds if each.field == "augmentation"]
        return cast("tuple[Augmentation, ...]", searched[0]) if searched else (self.example_config.augmentation,)

    @property
    def searches(self) -> tuple[Search, ...]:
        """The study's searches: one over the space, or one per compared method, or none."""
        space = self.search_space
        if isinstance(space, SearchSpace):
            return (Search("", {}, space.parameters),)
        numbers = range(self.searches_per_method if space.tuned else 0)
        return tuple(self._search_of(space, method, number) for number in numbers for method in self.compared)

    def _search_of(self, space: MethodComparison, method: ComparedMethod, number: int) -> Search:
        config = self.configure(method.fields)
        parameters = space.parameters_for(config.model_dump(), config.method_spec.fields | ALWAYS_READ)
        name = f"{method.name}, search {number + 1}" if number else method.name
        first = {each.name: each.value for each in parameters}
        return Search(name, method.fields, parameters, first, method=method.name, number=number)

    def search_of(self, config: TrialConfig, recorded: str | None = None) -> str:
        """Return the name of a trial's search.

        Args:
            config: trial config.
            recorded: name in the journal, written by a study with several searches per method.
        """
        return recorded or (row_name(config) if self.compared else "")

    @property
    def example_config(self) -> TrialConfig:
        """Config at the space's default point, for values shared by all configs: data, student, teacher and epochs."""
        return self.configure(self.search_space.default_point())

    @property
    def differing(self) -> tuple[str, ...]:
        """Fields that may differ between the study's configs, except method and seeds."""
        own = (name for method in self.compared for name in method.fields if name != "method")
        return tuple(dict.fromkeys([*self.search_space.varied, *own]))

    @property
    def _num_searches(self) -> int:
        return len(self.compared) * self.searches_per_method if self.compared and self.trials else 1

    @property
    def searched(self) -> int:
        """Number of trials in all searches. An upper bound if they share FLOPs."""
        return self.trials * self._num_searches

    @property
    def total_trials(self) -> int:
        """Number of trials in the study, without the confirmation.

        The actual number is lower if the search finishes fewer configs than `promising`.
        """
        return self.searched + self.repeated

    @property
    def repeated(self) -> int:
        """Maximum number of trials on fresh seeds, for promising configs and for controls or methods."""
        promising = self._num_searches * min(self.promising, self.trials)
        return self.replicates * (len(self.fixed_configs) + promising)

    @property
    def sure_replicates(self) -> int:
        """Minimum number of repetitions per repeated config, before any look at the results."""
        return self.replicates if self.replicates_detect is None else FIRST_LOOK

    @property
    def digest(self) -> str:
        """Versioned digest of the non-default fields that define the study.

        Other digest versions give other digests. For a study with another version, this is the digest in the study's
        summary, or `unknown` if there is none.
        """
        if self.digest_version != DIGEST_VERSION:
            return recorded_digest(self.directory) or "unknown"
        left_out = EXECUTION_FIELDS | {"study_id", "digest_version", "output_dir", "name", "confirmation", "base"}
        places: dict[str, Any] = {"warm_start": {"__all__": {"place"}}}  # an earlier study may move
        content = self.model_dump(mode="json", exclude=dict.fromkeys(left_out, True) | places, exclude_defaults=True)
        return digest_of({**content, "base": self.base.changed_fields})

    def configure(self, suggested: dict[str, Any]) -> TrialConfig:
        """Return a validated config: the base config, updated with a point in the space and then with the overrides."""
        values = {**self.base.model_dump(), **suggested, **self.overrides}
        if not (own := self.own_methods):
            return TrialConfig(**values)
        return TrialConfig(**own_fields(str(values["method"]), values, own))

    def control_config(self, method: str, student: str | None = None) -> TrialConfig:
        """Return the space's default point for another method, without an optional adapter.

        Args:
            method: method for the control.
            student: one of several students. Default: the default point's student.
        """
        own = {} if student is None else {"student": student}
        return self.configure({**self.search_space.default_point(), **own, "method": method, "adapter": False})

    @property
    def fixed_configs(self) -> list[TrialConfig]:
        """Configs repeated regardless of a search: the controls, or the compared methods if nothing is searched.

        Each control is trained with each student, so that configs are compared with controls on the same student.
        """
        if self.compared:
            return [] if self.searches else [self.configure(method.fields) for method in self.compared]
        return [self.control_config(method, student) for student in self.students for method in self.controls]

    def control_trials(self) -> Iterator[PlannedTrial]:
        """Yield the trials independent of any search or results, replicate by replicate."""
        for replicate in range(1, self.sure_replicates + 1):
            for config in self.fixed_configs:
                yield PlannedTrial("control", config.with_seeds(self.seed, replicate), replicate)

    def save(self) -> Path:
        """Write `plan.json` to the study's folder, without secrets in URIs. Return the path."""
        path = self.directory / "plan.json"
        content = with_home(self.without_secrets().model_dump(mode="json"), self.directory, self.tracking_uri)
        replace_file(path, (json.dumps(content, indent=2) + "\n").encode(), durable=True)
        return path

    def without_secrets(self) -> Self:
        """Return a copy of the plan without secrets in URIs, for display and storage."""
        places = {name: getattr(self, name) for name in URI_FIELDS}
        return self.model_copy(update={name: redact_place(uri) for name, uri in places.items() if uri is not None})
