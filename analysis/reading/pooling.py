"""Pool the records of several studies into one table, from folders or from storage URIs.

The result has the same type as the records of one study (`analysis.reading.trials.StudyRecords`), so all of `analysis`
accepts it. The column `study` names the study for each row. Three questions need an answer before pooling, each with a
function here: do the studies share their setting (`unequal_settings`), do they share runs (`distinct_runs`), and how
does each study look alone (`of_study`)?

Studies recorded by different versions have different columns. Missing columns are filled with null.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from analysis.reading.landmark import Landmark, at_landmark
from analysis.reading.scales import find_log_fields, log_fields_of
from analysis.reading.trials import (
    BASELINE,
    REPEATED,
    SPLIT_NUMBER,
    TEACHER_NUMBER,
    ConfigSummary,
    StudyRecords,
    Value,
    holm_of,
    objective_note,
    select,
    summarise_configs,
    varied_fields,
)
from study.records import SCHEMAS, DamagedRecordsError
from trainables.storage.uris import is_uri, redact, redact_place

Place: TypeAlias = str | Path
Answer = TypeVar("Answer")

# Differences in these settings change the reachable accuracy, whatever else is varied.
SETTINGS: Final = (
    "dataset", "student", "teacher", "teacher_recipe", "teacher_epochs", "teacher_digest", "teacher_seed",
    "split_seed", "epochs_planned", "batch_size", "precision", "augmentation",
)  # fmt: skip

_KEYS: Final = {"trials": ("trial_id",), "epochs": ("trial_id", "epoch")}
_ORDER: Final = {"trials": ("started", "trial_id"), "epochs": ("trial_id", "epoch")}
_FORMAT: Final = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


@dataclass(frozen=True)
class _Source:
    """Location of a study.

    Args:
        shown: name in messages, without secrets.
        system: file system or object store.
        path: path to the study folder in the file system.
        name: study name in the pool; None keeps the recorded name.
    """

    shown: str
    system: pafs.FileSystem
    path: str
    name: str | None = None

    def folder(self, kind: str) -> str:
        return f"{self.path}/records/{kind}"


def pool_studies(places: Sequence[Place] | Mapping[str, Place]) -> StudyRecords:
    """Pool the records of several studies, in the given order.

    Args:
        places: study folders, or URIs supported by `pyarrow.fs`, such as `s3://BUCKET/STUDY`. With a mapping, each key
            becomes the value in the `study` column and a prefix of the trial identifiers.

    Returns:
        Trials and epochs, both with the column `study`. A trial stored in several files appears once.

    Raises:
        FileNotFoundError: a place has no records.
        ValueError: no place is given, a study is given twice, two studies have the same name, or a column has
            incompatible types.
        DamagedRecordsError: a file is damaged.
        OSError: a storage does not respond, or denies access.
    """
    named = places.items() if isinstance(places, Mapping) else [(None, place) for place in places]
    sources = [_source(place, name) for name, place in named]
    if not sources:
        raise ValueError("no study is given: name at least one study's folder, or a URI of one")
    trials, epochs = _read(sources, "trials"), _read(sources, "epochs")
    _check_distinct(sources, trials)
    for number, (source, own) in enumerate(zip(sources, trials, strict=True)):
        names = {row["trial_id"]: source.name or row["study"] for row in own.select(["trial_id", "study"]).to_pylist()}
        trials[number], epochs[number] = (
            _named(table, names, prefixed=source.name is not None) for table in (own, epochs[number])
        )
    return StudyRecords(pa.concat_tables(trials), pa.concat_tables(epochs), _log_fields(sources, trials))


def studies_in(place: Place) -> list[str]:
    """List the studies with a folder in the given folder or URI, sorted by name, as input for `pool_studies`.

    Raises:
        FileNotFoundError: there is no study.
        OSError: a storage does not respond, or denies access.
    """
    source = _source(place, None)
    found = _studies_under(source)
    if not found:
        raise FileNotFoundError(f"{source.shown} has no folder of a study with records; is it a folder of studies?")
    base, mark, parameters = str(place).partition("?") if is_uri(str(place)) else (str(place), "", "")
    return [f"{base.rstrip('/')}/{name}{mark}{parameters}" for name in found]


def of_study(records: StudyRecords, name: str) -> StudyRecords:
    """Return the records of one study in a pool."""
    trials, epochs = (table.filter(pc.equal(table["study"], name)) for table in (records.trials, records.epochs))
    return replace(records, trials=trials, epochs=epochs)


def study_names(records: StudyRecords) -> list[str]:
    """Return the names of the studies in a pool, in pool order."""
    return list(dict.fromkeys(records.trials["study"].to_pylist()))


def distinct_runs(records: StudyRecords) -> StudyRecords:
    """Drop repeated runs from a pool.

    Studies with equal seeds train equal controls, bit for bit on one machine: same config, initial weights and batch
    order. These runs are a single observation, however many studies contain them. The first finished run is kept, or
    the first run if none finished.
    """
    trials = records.trials
    identity = ("config_id", "seed", "data_seed", TEACHER_NUMBER, SPLIT_NUMBER)
    # Records from earlier versions have no numbers, and one teacher and split.
    keys = [
        tuple(row.get(name) or 0 for name in identity)
        for row in trials.select([name for name in identity if name in trials.column_names]).to_pylist()
    ]
    chosen: dict[tuple[Any, ...], int] = {}
    statuses = trials["status"].to_pylist()
    for number, key in enumerate(keys):
        kept = chosen.setdefault(key, number)
        if statuses[kept] != "finished" and statuses[number] == "finished":
            chosen[key] = number
    trials = trials.take(pa.array(sorted(chosen.values()), pa.int64()))
    epochs = records.epochs
    epochs = epochs.filter(pc.is_in(epochs["trial_id"], trials["trial_id"].combine_chunks()))
    return replace(records, trials=trials, epochs=epochs)


def landmark_by_study(records: StudyRecords, *, searched: bool) -> Landmark:
    """Return the trials in a pool, with a separate landmark for each study.

    A common landmark would be the earliest over all studies. A single study with early stopping would move all other
    studies to this epoch.

    Args:
        records: a pool.
        searched: take the trials proposed by searches, each config once; else configs over fresh seeds.
    """
    found = {name: at_landmark(of_study(records, name), searched=searched) for name in study_names(records)}
    present = {name: each for name, each in found.items() if each.trials.num_rows}
    if not present:
        return at_landmark(records, searched=searched)
    note = "; ".join(f"{name}: {each.note}" for name, each in present.items())
    evidence = next(iter(present.values())).evidence
    trials = pa.concat_tables(each.trials for each in present.values())
    epoch = max(each.epoch for each in present.values())
    return Landmark(trials, epoch, evidence, note, log_fields=records.searched_in_logs)


def fields_varied(records: StudyRecords) -> tuple[str, ...]:
    """Return the fields varied by any study's search, without fields that differ only between studies."""
    varied = (varied_fields(of_study(records, name).trials) for name in study_names(records))
    return tuple(dict.fromkeys(field for fields in varied for field in fields))


def unequal_settings(trials: pa.Table) -> dict[str, dict[str, list[Value]]]:
    """Return the values, by setting and study, for settings that affect accuracy and differ between studies.

    A missing value is unknown, and is not counted as a difference.
    """
    found: dict[str, dict[str, list[Value]]] = {}
    for setting in (name for name in SETTINGS if name in trials.column_names):
        values: dict[str, list[Value]] = {}
        for study, value in zip(trials["study"].to_pylist(), trials[setting].to_pylist(), strict=True):
            if value is not None and value not in values.setdefault(study, []):
                values[study].append(value)
        if len({frozenset(each) for each in values.values() if each}) > 1:
            found[setting] = values
    return found


def compare_within_studies(
    records: StudyRecords, *, baseline: str = BASELINE, seed: int = 0
) -> list[tuple[str, ConfigSummary]]:
    """Compare the repeated configs in every study with the study's baseline, with p-values corrected over all of them.

    Replicates are paired only within a study: replicate 1 of another study may use another seed.

    Args:
        records: a pool, before `distinct_runs`, so that each study has its own controls.
        baseline: control method.
        seed: random seed for the bootstrap intervals.

    Returns:
        Pairs (study, config), in pool order, without controls.
    """
    found = [
        (name, summary)
        for name in study_names(records)
        for summary in summarise_configs(of_study(records, name).trials, baseline=baseline, seed=seed)
        if summary.stage != "control"
    ]
    against = [summary.against_baseline for _, summary in found]
    corrected, equivalence = holm_of(against, "p_value"), holm_of(against, "equivalence_p")
    return [
        (name, replace(summary, corrected_p=p_value, corrected_equivalence=equivalent))
        for (name, summary), p_value, equivalent in zip(found, corrected, equivalence, strict=True)
    ]


def pool_table(records: StudyRecords) -> str:
    """Format the studies in a pool as a Markdown table, with their settings and numbers of trials."""
    lines = ["| study | space | dataset | teacher → student | epochs | searched | repeated | controls |"]
    lines.append("|" + " --- |" * 8)
    for name in study_names(records):
        trials = of_study(records, name).trials
        said = [_values(trials, "space"), _values(trials, "dataset")]
        said += [f"{_values(trials, 'teacher')} → {_values(trials, 'student')}", _values(trials, "epochs_planned")]
        searched = select(trials, stages=["search"], statuses=None)
        stages = [select(trials, stages=[stage]) for stage in reversed(REPEATED)]
        said += [str(searched.num_rows), *map(_configs_and_trials, stages)]
        lines.append("| " + " | ".join([name, *said]) + " |")
    note = objective_note(records.trials)
    return "\n".join([*lines, "", note] if note else lines)


def _values(trials: pa.Table, name: str) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(trials[name].to_pylist()) if value is not None) or "unknown"


def _configs_and_trials(trials: pa.Table) -> str:
    return f"{pc.count_distinct(trials['config_id']).as_py()} configs, {trials.num_rows} trials"


def _source(place: Place, name: str | None) -> _Source:
    text = str(place)
    if not is_uri(text):
        return _Source(text, pafs.LocalFileSystem(), Path(text).absolute().as_posix(), name)
    shown = redact_place(text).partition("?")[0].rstrip("/")
    try:
        system, path = pafs.FileSystem.from_uri(text)
    except (ValueError, OSError, pa.ArrowException) as error:
        # The error is not chained: pyarrow's message repeats the URI, secrets included.
        raise ValueError(
            f"{shown} cannot be read ({redact(str(error), text)}): give a folder, or a URI such as s3://BUCKET/STUDY "
            "(?endpoint_override=HOST:PORT&scheme=http for a server of your own)"
        ) from None
    return _Source(shown, system, path.rstrip("/"), name)


def _infos(source: _Source, folder: str) -> list[pafs.FileInfo]:
    try:
        return list(source.system.get_file_info(pafs.FileSelector(folder, allow_not_found=True)))
    except OSError as error:
        raise OSError(
            f"{source.shown} cannot be read ({redact(str(error))}): is it a study's folder, and are there credentials "
            "for its storage in the environment?"
        ) from error


def _files(source: _Source, kind: str) -> list[str]:
    """List a study's record files, single-trial files first, because these contain a trial's newest row."""
    folder = source.folder(kind)
    names = [info.base_name for info in _infos(source, folder) if info.type == pafs.FileType.File]
    known = (name for name in names if name.endswith(".parquet"))
    loose_first = sorted(
        (name.startswith("segment-"), name) for name in known if name.startswith(("trial-", "segment-"))
    )
    if not loose_first:
        under = _studies_under(source)
        hint = f"It contains studies ({', '.join(under[:3])}): pass studies_in(…) of this folder" if under else ""
        raise FileNotFoundError(
            f"{source.shown} contains no records (no Parquet file in records/{kind}). "
            + (hint or "Is it a study's folder, and has a trial of it ended?")
        )
    return [f"{folder}/{name}" for _, name in loose_first]


def _studies_under(source: _Source) -> list[str]:
    """List the names of folders with records in a place."""
    folders = [info for info in _infos(source, source.path) if info.type == pafs.FileType.Directory]
    with_records = (info.base_name for info in folders if _infos(source, f"{info.path}/records/trials"))
    return sorted(with_records)


def _read(sources: Sequence[_Source], kind: str) -> list[pa.Table]:
    """Read the rows from each study, all with one schema."""
    datasets = [ds.dataset(_files(each, kind), SCHEMAS[kind], _FORMAT, each.system) for each in sources]
    schema: pa.Schema = SCHEMAS[kind]
    for source, dataset in zip(sources, datasets, strict=True):
        schemas = _guarded(source, kind, partial(_schemas, dataset))
        try:
            schema = pa.unify_schemas([schema, *schemas], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise ValueError(
                f"the {kind} of {source.shown} do not match the records of this version and of the studies before it "
                f"({error}): were they written by pesfkd?"
            ) from error
    tables = []
    for source, dataset in zip(sources, datasets, strict=True):
        table = _guarded(source, kind, dataset.replace_schema(schema).to_table)
        tables.append(_once(table, _KEYS[kind]).sort_by([(name, "ascending") for name in _ORDER[kind]]))
    return tables


def _log_fields(sources: Sequence[_Source], trials: Sequence[pa.Table]) -> frozenset[str]:
    """Return the fields searched on a logarithmic scale by any study in the pool.

    A regression over a pool needs one scale for all studies.
    """
    found: frozenset[str] = frozenset()
    for source, table in zip(sources, trials, strict=True):
        own = find_log_fields(partial(_content_of, source), source.shown)
        found |= log_fields_of(table["space"].unique().to_pylist()) if own is None else own
    return found


def _content_of(source: _Source, name: str) -> bytes | None:
    """Return a file's content from a study folder; None without the file."""
    path = f"{source.path}/{name}"
    try:
        if source.system.get_file_info(path).type != pafs.FileType.File:
            return None
        with source.system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except OSError as error:
        raise OSError(f"{source.shown}/{name} cannot be read ({redact(str(error))})") from error


def _schemas(dataset: ds.Dataset) -> list[pa.Schema]:
    """Return each file's schema. A study resumed by a later version contains files with different schemas."""
    return [fragment.physical_schema for fragment in dataset.get_fragments()]


def _guarded(source: _Source, kind: str, action: Callable[[], Answer]) -> Answer:
    """Run a read action, and convert errors to messages that name the study."""
    try:
        return action()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"a file of {source.shown} vanished while it was read, as happens while a study runs: try again"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise DamagedRecordsError(
            f"a file in {source.shown}/records/{kind} is damaged or cannot be read ({redact(str(error)).strip()}); "
            "restore it from a copy"
        ) from error


def _once(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Keep the first row for each key; a crash during a file merge can leave a trial in two files."""
    seen: dict[tuple[Any, ...], int] = {}
    for number, key in enumerate(zip(*(table[name].to_pylist() for name in names), strict=True)):
        seen.setdefault(key, number)
    return table if len(seen) == table.num_rows else table.take(pa.array(list(seen.values()), pa.int64()))


def _check_distinct(sources: Sequence[_Source], trials: Sequence[pa.Table]) -> None:
    """Raise ValueError if a study is given twice or two studies have the same name."""
    starts: dict[tuple[Any, ...], _Source] = {}
    studies: dict[str, _Source] = {}
    for source, table in zip(sources, trials, strict=True):
        for key in zip(table["trial_id"].to_pylist(), table["started"].to_pylist(), strict=True):
            other = starts.setdefault(key, source)
            if other is not source:
                raise ValueError(
                    f"{other.shown} and {source.shown} both have trial {key[0]}, started at {key[1]}: they are "
                    "the same study, whose trials would count twice; give one of them"
                )
        for study in _own_names(source, table):
            other = studies.setdefault(study, source)
            if other is not source:
                raise ValueError(
                    f"{other.shown} and {source.shown} are different studies of one name, {study!r}: name them "
                    f"apart, as in pool_studies({{'first': {other.shown!r}, 'second': {source.shown!r}}})"
                )


def _own_names(source: _Source, trials: pa.Table) -> Iterable[str]:
    return [source.name] if source.name is not None else dict.fromkeys(trials["study"].to_pylist())


def _named(table: pa.Table, names: Mapping[str, str], *, prefixed: bool) -> pa.Table:
    """Set the `study` column, and prefix trial identifiers with the study name if the caller gave this name."""
    ids = table["trial_id"].to_pylist()
    studies = pa.array([names.get(trial_id) for trial_id in ids], pa.string())
    if prefixed:
        ids = [f"{names.get(trial_id)}/{trial_id}" for trial_id in ids]
        table = table.set_column(table.column_names.index("trial_id"), "trial_id", pa.array(ids, pa.string()))
    if "study" in table.column_names:
        return table.set_column(table.column_names.index("study"), "study", studies)
    return table.add_column(1, "study", studies)
