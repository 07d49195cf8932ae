"""A study as an object: results, tables and all operations on a study."""

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pesfkd.messages import python_errors
from pesfkd.options import as_arguments, checked_options
from pesfkd.running import conduct, deliver
from pesfkd.surroundings import restored_process
from study.confirm import OPTIONS_OF_CONFIRM
from study.plan.folder import PLAN_FILE
from trainables.process.errors import StudyError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.questions.confirmation import ConfirmationResult
    from study.ledger.ledger import StudyLedger
    from study.plan.plan import StudyPlan
    from study.result.best import BestConfig
    from study.result.reproduction import Reproduction

_NOT_IN_PYTHON: Final = ("output_dir", "dry_run", "as_json", "verbose")


class Report(type(Path())):  # type: ignore[misc]  # the class of paths of this system
    """Report path. A notebook shows the report itself."""

    def _repr_html_(self) -> str:
        page = html.escape(self.read_text(encoding="utf-8"), quote=True)
        return (
            f'<a href="{html.escape(self.absolute().as_uri())}">{html.escape(str(self))}</a>'
            f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="width:100%;height:40em;border:0"></iframe>'
        )


class Study:
    """A study, read from the study folder. Attributes are read at each access, so they are up to date.

    Args:
        directory: study folder.

    Raises:
        UsageError: the folder contains no study, or this version cannot read the study's plan.

    Examples:
        >>> study = pesfkd.open(folder / "ran")
        >>> study.complete, study.best.chosen_by
        (True, 'repetitions')
        >>> sorted(study.table["method"])
        ['ce', 'kd', 'pesf_kd']
        >>> len(study.trials)
        8
    """

    def __init__(self, directory: str | Path) -> None:
        with python_errors():
            self._plan = _plan_of(Path(directory).expanduser().absolute())  # the working directory may change

    @property
    def name(self) -> str:
        """Study name."""
        return self._plan.name

    @property
    def directory(self) -> Path:
        """Study folder."""
        return self._plan.directory

    @property
    def plan(self) -> "StudyPlan":
        """Study plan with the requested search and confirmation."""
        return self._plan

    @property
    def summary(self) -> dict[str, Any]:
        """Content of `summary.json`, written at the end of each run; empty before."""
        try:
            found: dict[str, Any] = json.loads((self.directory / "summary.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StudyError(f"{self.directory / 'summary.json'} cannot be read ({error})") from None
        return found

    @property
    def complete(self) -> bool:
        """Whether no trial is left to run."""
        return bool(self.summary.get("complete"))

    @property
    def best(self) -> "BestConfig | None":
        """Best config; None before a trial has finished.

        First choice of a complete confirmation, or else the best repeated config, or else the config with the highest
        search score.
        """
        from study.result.best import find_best

        with python_errors():
            _, configs = self._results()
            ledger, confirmed = self._confirmation()
            return find_best(self._plan, ledger, configs, confirmed)

    @property
    def table(self) -> "pd.DataFrame":
        """Result table with means over fresh seeds, intervals and paired differences; a row per repeated config."""
        import pandas as pd

        from analysis.questions.costs import config_costs

        with python_errors():
            records, configs = self._results()
            costs = config_costs(records) if configs else {}
        varied = dict.fromkeys(name for each in configs for name in each.varied)
        rows = []
        for each in configs:
            against = each.against_baseline
            rows.append(
                {
                    "config": each.name,
                    "method": each.method,
                    "stage": each.stage,
                    **dict.fromkeys(varied),
                    **each.varied,
                    "n": each.accuracy.n,
                    "mean": each.accuracy.value,
                    "low": each.accuracy.low,
                    "high": each.accuracy.high,
                    "gap": each.gap.value,
                    "minus_kd": None if against is None else against.value,
                    "minus_kd_low": None if against is None else against.low,
                    "minus_kd_high": None if against is None else against.high,
                    "p": None if against is None else against.p_value,
                    "p_holm": each.corrected_p,
                    "cost_to_ce": costs[each.config_id].flops_to_ce,
                    "in_search": each.search_accuracy,
                    "config_id": each.config_id,
                }
            )
        return pd.DataFrame(rows)

    @property
    def confirmed(self) -> "pd.DataFrame":
        """Confirmed configs with their means on the test split; empty before a confirmation is complete."""
        import pandas as pd

        with python_errors():
            _, found = self._confirmation()
        rows = [
            {
                "config": each.label,
                "method": each.method,
                "rank": each.rank,
                "control": each.control,
                "n": each.test_accuracy.n,
                "test": each.test_accuracy.value,
                "test_low": each.test_accuracy.low,
                "test_high": each.test_accuracy.high,
                "validation": each.accuracy.value,
                "score_before": each.search_score,
                "config_id": each.config_id,
            }
            for each in ([] if found is None else found.configs)
        ]
        return pd.DataFrame(rows)

    @property
    def comparisons(self) -> "pd.DataFrame":
        """Planned comparisons on the test split; empty before the confirmation is complete."""
        import pandas as pd

        with python_errors():
            _, found = self._confirmation()
        rows = [
            {
                "config": each.label,
                "minus": each.against_label,
                "difference": each.difference.value,
                "low": each.difference.low,
                "high": each.difference.high,
                "n": each.difference.n,
                "p": each.difference.p_value,
                "p_holm": each.corrected_p,
            }
            for each in ([] if found is None else found.comparisons)
        ]
        return pd.DataFrame(rows)

    @property
    def trials(self) -> "pd.DataFrame":
        """All ended trials, one per row, by start time."""
        from study.records import read_trials

        return self._read(read_trials)

    @property
    def epochs(self) -> "pd.DataFrame":
        """Epochs of all ended trials, one per row."""
        from study.records import read_epochs

        return self._read(read_epochs)

    def report(self, out: str | Path | None = None, *, thorough: bool = False) -> Report:
        """Write the report and return the path. A notebook shows the report.

        Args:
            out: report path. Default: `report.html` in the study folder.
            thorough: add importances by fANOVA, which takes a minute or more.
        """
        from analysis.report.__main__ import check_out
        from analysis.report.writing import write_report

        with python_errors(), restored_process(computes=False):
            path = None if out is None else Path(out).expanduser()
            check_out(path)
            return Report(write_report(self.directory, path, thorough=thorough))

    def confirm(
        self, top: int | None = None, seeds: int | str | None = None, *, quiet: bool = False, **options: Any
    ) -> "Study":
        """Train the best configs and the controls on fresh seeds, and compare them on the test split.

        The same call resumes an interrupted confirmation. Returns this study. The attributes `confirmed` and
        `comparisons` then hold the result.

        Args:
            top: number of configs, chosen by the lower bound of the score.
            seeds: number of fresh seeds for each config, or "auto".
            quiet: show no progress.
            options: further options for confirmation, e.g. `detect` or `confirm_epochs`, and for execution.

        Raises:
            UsageError: the study is not finished, or another confirmation was chosen before.
            StudyInterrupted: the user interrupted the confirmation.
        """
        given = self._options(top, seeds, options)
        call = f"pesfkd.open({str(self.directory)!r}).confirm({as_arguments(given)})"
        with python_errors(), restored_process():
            plan = self._resumed(given)
            sets_aside = given.get("set_aside_records", False)
            conduct(plan, resumed=True, call=call, quiet=quiet, sets_aside=sets_aside)
        self._plan = _plan_of(self.directory)
        return self

    def plan_confirmation(
        self, top: int | None = None, seeds: int | str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return the plan and cost of `confirm` with the same arguments. Nothing is written."""
        from study.confirm import preview_confirmation

        with python_errors(), restored_process():
            return preview_confirmation(self._resumed(self._options(top, seeds, options)))

    def export(
        self,
        path: str | Path | None = None,
        *,
        format: str | None = None,  # noqa: A002
        force: bool = False,
        int8: bool = False,
        max_drop: float | None = None,
        threads: int | None = None,
        config: str | None = None,
        trial: str | None = None,
    ) -> Path:
        """Export the confirmed student as a program independent of this package. Return the program's path.

        Args:
            path: file ending in .onnx or .pt2. Default: next to the student's weights.
            format: "onnx" or "torch-export". Default: by the suffix in `path`, or else onnx.
            force: replace an existing file, after the new one has passed the check.
            int8: quantise the program to int8, and write a card with accuracy, size and latency in the same folder.
            max_drop: with `int8`, largest allowed mean loss in test accuracy over the confirmed seeds.
            threads: with `int8`, number of CPU threads for measuring latency. Default: 1.
            config: confirmed config identifier, or a prefix, e.g. for another point on the Pareto front. Default: the
                best config.
            trial: confirmed trial identifier. Default: the config's first seed.

        Raises:
            UsageError: the study is not confirmed, does not have this config or trial, or the file cannot be written.
            StudyError: the exported program does not return the student's logits, or loses more than `max_drop`.
        """
        from study.export import FormatName, export_study

        out = None if path is None else Path(path).expanduser()
        with python_errors(), restored_process():
            kinds = {each.value: each for each in FormatName}
            by_ending = {each.suffix: each for each in FormatName}
            if format is not None and format not in kinds:
                raise UsageError(f"format={format!r}: give one of {', '.join(map(repr, kinds))}")
            if format is not None:
                kind = kinds[format]
            else:
                kind = by_ending.get("" if out is None else out.suffix, FormatName.ONNX)
            found = export_study(
                self._plan,
                kind,
                out,
                force=force,
                int8=int8,
                max_drop=max_drop,
                threads=_checked_threads(threads),
                config=config,
                trial=trial,
            )
            return Path(found["file"])

    def power(self, detect: float | Sequence[float] = 0.005, *, power: float = 0.8) -> "pd.DataFrame":
        """Return the number of seeds needed to show a difference, given the study's own paired spread.

        Args:
            detect: differences to show, in the objective's unit: 0.005 is half a point of accuracy.
            power: probability of showing a true difference this large.

        Returns:
            A row per difference: `difference`, `seeds`, and `seeds_after_holm`, corrected for all comparisons in the
                study. The attribute `attrs` has the spread and the least detectable differences.
        """
        import pandas as pd

        from study.power import differences_in, resolution_of

        asked = list(detect) if isinstance(detect, list | tuple) else [detect]
        with python_errors(), restored_process(computes=False):
            differences = differences_in(",".join(map(str, asked)))
            _, found = resolution_of(self.name, self._plan.output_dir, power)
            facts = found.as_dict(differences, power=power)
        table = pd.DataFrame(facts.pop("needed"))
        table.attrs = facts
        return table

    def rerun(self, trial_id: str | int, *, data_root: str | Path | None = None, quiet: bool = False) -> "Reproduction":
        """Run a recorded trial again, and compare all measures with the records bit for bit.

        Nothing is written to the study. The result's attribute `matches` is true if all bits are equal.

        Args:
            trial_id: trial identifier in the records, or trial number.
            data_root: folder with the dataset's files, if the folder has moved.
            quiet: show no progress.
        """
        from study.plan.checks import check_data_root
        from study.result.reproduction import find_trial, reproduce
        from trainables.process.threads import use_one_thread

        with python_errors(), restored_process():
            if isinstance(trial_id, bool) or not isinstance(trial_id, int | str) or str(trial_id).startswith("-"):
                raise UsageError(f"trial_id={trial_id!r}: give a trial_id of the records, or the number of a trial")
            full = f"{self.name}-{trial_id:04d}" if isinstance(trial_id, int) else trial_id
            plan, entry = find_trial(full, self.name, self._plan.output_dir)
            if data_root is not None:
                plan = plan.model_copy(update={"data_root": Path(data_root).expanduser().absolute()})
            check_data_root(plan)
            use_one_thread()
            return reproduce(plan, entry, _silent if quiet else _print)

    def sync(self, tracking_uri: str | None = None, *, set_aside_records: bool = False, quiet: bool = False) -> None:
        """Deliver all missing parts of this study to MLflow. Nothing is run.

        Args:
            tracking_uri: another store or server.
            set_aside_records: if the journal has lost trials, move the records away first.
            quiet: show no progress.

        Raises:
            StudyError: MLflow does not answer, or did not accept everything.
        """
        from study.cli.request import resumed_plan

        with python_errors(), restored_process():
            given = {} if tracking_uri is None else {"tracking_uri": tracking_uri}
            plan = resumed_plan(self.name, self._plan.output_dir, given, runs=False)
            deliver(
                plan, call=f"pesfkd.open({str(self.directory)!r}).sync()", sets_aside=set_aside_records, quiet=quiet
            )

    def __repr__(self) -> str:
        trials = self.summary.get("trials", {})
        ended = sum(trials.get(status, 0) for status in ("finished", "pruned", "failed"))
        counted = f"{ended} of {trials['planned']} trials" if trials else "not run yet"
        return f"<Study {self.name}: {self._plan.space} on {self._plan.base.dataset}, {counted}>"

    def _repr_html_(self) -> str:
        best = (self.summary.get("best") or {}).get("line")
        line = f"<p>best: <code>{html.escape(best)}</code></p>" if best else ""
        table = self.table
        shown = table.to_html(index=False, float_format="%.4f", na_rep="") if len(table) else ""
        return f"<p>{html.escape(repr(self))}</p>{shown}{line}"

    def _records(self) -> Any:
        from analysis.report.folder import read_folder

        return read_folder(self.directory).records

    def _confirmation(self) -> "tuple[StudyLedger, ConfirmationResult | None]":
        """Return the ledger, and the confirmation result if complete."""
        from study.ledger.ledger import StudyLedger
        from study.result.confirmed import find_confirmed

        ledger = StudyLedger(self._plan, read_only=True)
        return ledger, find_confirmed(ledger, self._records().trials) if ledger.is_confirmed else None

    def _results(self) -> tuple[Any, list[Any]]:
        from analysis.reading.trials import compare_methods, summarise_configs

        records = self._records()
        summarise = compare_methods if self._plan.compared else summarise_configs
        return records, summarise(records.trials, seed=self._plan.seed) if records.trials.num_rows else []

    def _read(self, reader: Callable[[Path], Any]) -> "pd.DataFrame":
        from study.records import DamagedRecordsError

        with python_errors():
            try:
                table: pd.DataFrame = reader(self.directory).to_pandas()
            except FileNotFoundError:
                raise StudyError(f"study {self.name!r} has no records yet: no trial has ended") from None
            except DamagedRecordsError as error:
                raise StudyError(str(error)) from None
            return table

    def _options(self, top: int | None, seeds: int | str | None, options: dict[str, Any]) -> dict[str, Any]:
        accepted = [name for name in OPTIONS_OF_CONFIRM if name not in _NOT_IN_PYTHON]
        with python_errors():
            given = {"confirm": top, "seeds": seeds} | options
            return checked_options(given, accepted=accepted, call="Study.confirm")[1]

    def _resumed(self, given: dict[str, Any]) -> "StudyPlan":
        from study.cli.request import resumed_plan

        return resumed_plan(self.name, self._plan.output_dir, given, confirms=True)


def _plan_of(directory: Path) -> "StudyPlan":
    from study.plan.resolve import load_plan  # imports pydantic

    return load_plan(directory)


def is_study(directory: Path) -> bool:
    """Return whether a folder contains a study."""
    return (directory / PLAN_FILE).is_file()


def _checked_threads(threads: int | None) -> int | None:
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise UsageError(f"threads={threads!r}: give a whole number from 1")
    return threads


def _print(text: str) -> None:
    print(text, flush=True)


def _silent(_: str) -> None:
    pass
