"""Best config of a report: from the summary, or from the records of studies of earlier versions."""

import json
import shlex
from itertools import pairwise

import pytest

from analysis.reading.trials import EXAMPLES, compare_methods, summarise_configs
from analysis.report.best import best_line
from analysis.report.content import make_report
from analysis.report.folder import read_folder
from analysis.report.page import page
from tests.analysis.report.studies import PLAN, SUMMARY, Page, write_study
from tests.analysis.synthetic import epochs_table, trial, trials_table, whole_study
from trainables.spec.trial import SEED_FIELDS, TrialConfig

pytestmark = pytest.mark.study
OPTIONS = (
    "--method", "--dataset", "--student", "--teacher", "--epochs", "--precision", "--teacher-recipe", "--teacher-epochs"
)  # fmt: skip
SHIPPED = sorted(path for path in EXAMPLES.iterdir() if (path / "summary.json").is_file())


def best_of(directory):
    """Return the best config of a study folder, and the folder."""
    study = read_folder(directory)
    summarise = compare_methods if study.compares_methods else summarise_configs
    return best_line(study, summarise(study.records.trials, seed=study.seed), study.confirmation()), study


def config_of(line):
    """Return the config that a line of options describes, as far as records have its fields."""
    words = shlex.split(line)
    fields = {"adapter": "--adapter" in words}
    for flag, value in pairwise(words):
        if flag == "--set":
            fields |= dict([value.split("=", 1)])
        elif flag in OPTIONS:
            fields[flag[2:].replace("-", "_")] = value
    return TrialConfig.model_validate(fields)


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_study_names_its_best_config_and_the_options_give_the_recorded_fields(directory):
    best, study = best_of(directory)
    assert best.about.startswith("Best config, by ")
    # Summaries of earlier versions have no best config.
    assert ("computed from the records" in best.about) == ("best" not in study.summary)
    rows = study.records.trials.to_pylist()
    if study.chosen:
        assert "by confirmation" in best.about
        chosen = next(each for each in study.chosen if each["rank"] == 1)["config_id"]
    else:
        repeated = (compare_methods if study.compares_methods else summarise_configs)(study.records.trials, seed=0)
        own = [each for each in repeated if study.compares_methods or each.stage == "replicate"]
        chosen = max(own, key=lambda each: each.accuracy.value).config_id
    row = next(each for each in rows if each["config_id"] == chosen)
    config = config_of(best.line)
    read = config.method_spec.fields.union(TrialConfig.model_fields) - SEED_FIELDS
    if "--teacher-checkpoint" in best.line:
        read -= {"teacher_digest", "teacher_recipe", "teacher_epochs"}
    known = [name for name in read & row.keys() if row[name] is not None]
    assert {"method", "student", "dataset"} <= set(known)
    assert {name: getattr(config, name) for name in known} == {name: row[name] for name in known}


def test_the_summary_has_the_last_word_and_its_line_is_shown_unchanged(tmp_path):
    trials, epochs = whole_study()
    named = {"chosen_by": "confirmation", "name": "w3", "line": "--set adapter_width=3"}
    folder = write_study(tmp_path / "s", trials, epochs, plan=PLAN, summary=SUMMARY | {"best": named})
    best, _ = best_of(folder)
    assert (best.about, best.line) == ("Best config, by confirmation: w3", "--set adapter_width=3")


def test_without_repetitions_it_is_the_best_of_the_search_and_says_that_one_seed_chose_it(tmp_path):
    rows = [trial(n, adapter_width=n + 2, name=f"w{n + 2}", **{"val/accuracy": 0.5 + 0.1 * n}) for n in range(3)]
    rows.append(trial(9, adapter_width=99, status="pruned", **{"val/accuracy": 0.99}))
    best, _ = best_of(write_study(tmp_path / "s", trials_table(rows), epochs_table([]), plan=PLAN, summary=SUMMARY))
    assert "by search, from one seed that also selected it: w4" in best.about
    assert shlex.split(best.line)[-2:] == ["--set", "adapter_width=4"]
    assert config_of(best.line).student == "cnn_3_4"


def test_records_alone_have_a_best_config_too(tmp_path):
    trials, epochs = whole_study()
    best, study = best_of(write_study(tmp_path / "s", trials, epochs))
    own = [each for each in summarise_configs(study.records.trials) if each.stage == "replicate"]
    width = max(own, key=lambda each: each.accuracy.value).varied["adapter_width"]
    assert f"--set adapter_width={width}" in best.line
    assert "by repetitions" in best.about


def test_a_study_without_a_finished_candidate_says_why_there_is_no_best_config(tmp_path):
    rows = [trial(0, status="failed"), trial(1, stage="control", method="kd", **{"val/accuracy": 0.9})]
    folder = write_study(tmp_path / "s", trials_table(rows), epochs_table([]), plan=PLAN, summary=SUMMARY)
    assert best_of(folder)[0].line == ""
    shown = Page(page(make_report(read_folder(folder))))
    assert "No best config: no trial of a candidate has finished." in shown.said["answer"]
    assert json.loads((folder / "summary.json").read_text())["question"] in shown.said[""]
