"""Small plans and trials for tests that need no Ray."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study.ledger.ledger import StudyLedger
from study.plan.methods import choose_methods
from study.plan.plan import StudyPlan
from study.plan.resolve import resolve_plan
from study.search.schedulers import SearchASHA
from study.search.searcher import StudySearch
from trainables.spec.measures import ACCURACY

FEW = ["ce", "kd", "dkd", "dkd+adapter", "at"]


def make_plan(folder: Path, **values: Any) -> StudyPlan:
    """Return a small plan of the space `adapter_width`, with changed values."""
    base = {"epochs": 4, **values.pop("base", {})}
    plan = resolve_plan(
        {
            "name": "planned",
            "space": "adapter_width",
            "trials": 5,
            "promising": 2,
            "replicates": 2,
            "output_dir": folder,
            "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            "base": base,
            **values,
        }
    )
    plan.directory.mkdir(parents=True, exist_ok=True)
    return plan


def compare(folder: Path, space: str = "method", methods: list[str] | None = FEW, **values: Any) -> StudyPlan:
    """Return the plan of a comparison of methods."""
    base = {"epochs": 4, "method": "kd", **values.pop("base", {})}
    compared = choose_methods(methods, base, values.get("overrides", {}))
    counts = {"promising": 1, "trials": 3}
    return make_plan(folder, space=space, base=base, compared=compared, controls=(), **{**counts, **values})


def accuracy_of(config: dict[str, Any], epoch: int) -> float:
    """Return a simulated accuracy that depends on the config and grows with the epochs."""
    return 1.0 / (1.0 + abs(config["adapter_width"] - 20) / 20 + 1.0 / epoch)


class PretendedTune:
    """Drive a search as Tune does, one trial at a time, without processes."""

    def __init__(self, search: StudySearch, ledger: StudyLedger) -> None:
        self.search = search
        self.ledger = ledger
        self._number = 0

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """Return Tune's name of the next trial and the settings, or None."""
        tune_id = f"tune{id(self)}-{self._number}"
        settings = self.search.suggest(tune_id)
        if not isinstance(settings, dict):
            return None
        self._number += 1
        return tune_id, settings

    def report(self, settings: dict[str, Any], epoch: int, value: float | None = None) -> None:
        accuracy = accuracy_of(settings["config"], epoch) if value is None else value
        self.ledger.record_epoch(settings["trial_id"], epoch, {ACCURACY: accuracy, "cost/seconds": 0.5})

    def finish(self, tune_id: str, settings: dict[str, Any]) -> None:
        for epoch in range(1, settings["config"]["epochs"] + 1):
            self.report(settings, epoch)
        self.search.on_trial_complete(tune_id, {"finished": True})

    def run(self, count: int | None = None) -> list[dict[str, Any]]:
        """Run `count` trials to the end, or all of them."""
        ran = []
        while (count is None or len(ran) < count) and (got := self.next()) is not None:
            self.finish(*got)
            ran.append(got[1])
        return ran


class PretendedSeeds(PretendedTune):
    """Trials with an accuracy that depends on config and seed."""

    def __init__(self, search: StudySearch, ledger: StudyLedger, lucky: str | None = None) -> None:
        super().__init__(search, ledger)
        self.lucky = lucky
        self.ran: list[dict[str, Any]] = []

    def finish(self, tune_id: str, settings: dict[str, Any]) -> None:
        config = settings["config"]
        accuracy = 0.9 - abs(config["adapter_width"] - 20) / 1000 + (config["seed"] % 1000) / 1e5
        if config["method"] == "kd":
            accuracy -= abs(config["temperature"] - 8.0) / 1000
        if self.lucky is not None and settings["trial_id"].endswith(self.lucky):
            accuracy = 0.99
        for epoch in range(1, config["epochs"] + 1):
            measures = {ACCURACY: accuracy, "cost/seconds": 0.5}
            if settings["reads_test"] and epoch == config["epochs"]:
                measures["test/accuracy"] = accuracy - 0.01
            self.ledger.record_epoch(settings["trial_id"], epoch, measures)
        self.search.on_trial_complete(tune_id, {"finished": True})


class TuneTrial:
    """The attributes of a Tune trial that ASHA reads."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.config = settings
        self.trial_id = "tune's own"


def search_with_asha(
    ledger: StudyLedger,
    *,
    slots: int = 1,
    proposals: int | None = None,
    fails: Callable[[int], bool] = lambda ordinal: False,
) -> tuple[StudySearch, list[dict[str, Any]]]:
    """Run the search of a study, with trials stopped by ASHA.

    Args:
        ledger: ledger of the study. An interrupted study continues.
        slots: concurrent trials. They take turns to report an epoch.
        proposals: number of trials to start; all trials if None. The last one stays running after an epoch.
        fails: returns whether the trial with this number fails in the first epoch.

    Returns:
        The search, and the config of each started trial.
    """
    search, scheduler = StudySearch(ledger, {}), SearchASHA(ledger)
    tune, running, configs = PretendedTune(search, ledger), deque[tuple[str, dict[str, Any], int]](), []
    while True:
        while len(running) < slots and (proposals is None or len(configs) < proposals):
            got = tune.next()
            if got is None or got[1]["stage"] != "search":
                break
            scheduler.on_trial_add(None, TuneTrial(got[1]))
            configs.append(got[1]["config"])
            running.append((*got, 1))
        if not running:
            return search, configs
        tune_id, settings, epoch = running.popleft()
        trial, score = TuneTrial(settings), accuracy_of(settings["config"], epoch)
        if fails(ledger.entries[settings["trial_id"]].ordinal):
            scheduler.on_trial_error(None, trial)
            search.on_trial_complete(tune_id, {"finished": False, "failed": "why"})
            continue
        tune.report(settings, epoch, score)
        if len(configs) == proposals:
            return search, configs
        result = {"epoch": epoch, ACCURACY: score}
        is_last = epoch == settings["config"]["epochs"]
        if scheduler.on_trial_result(None, trial, result) == "CONTINUE" and not is_last:
            running.append((tune_id, settings, epoch + 1))
            continue
        scheduler.on_trial_complete(None, trial, result)
        search.on_trial_complete(tune_id, {"finished": is_last})
