"""The best config: which it is, and the options that give it again."""

import math
import shlex

import pytest

from analysis.reading.trials import open_study, summarise_configs
from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.result.best import find_best, options_of
from tests.study.factories import make_plan
from tests.study.given_back import given_back
from trainables.spec.trial import TrialConfig


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"epochs": 3, "temperature": 1.5, "adapter_width": 31, "adapter_learning_rate": 0.1 + 0.2},
        {"method": "dkd", "adapter": True, "dkd_alpha": 1 / 3, "student_learning_rate": 1e-5},
        {"method": "kd", "student": "resnet8", "teacher": "resnet20", "precision": "bf16", "teacher_epochs": 7},
        {
            "detach_adapter_target": True,
            "adapter_kind": "serial",
            "adapter_init": "zero",
            "student_schedule": "one_cycle",
        },
        {"dataset": "cifar10", "teacher_recipe": "literature", "batch_size": 32, "teacher_seed": 3, "split_seed": 5},
        {"seed": 5, "data_seed": 9, "augmentation": "none", "optimiser": "adamw", "clip_norm": 0.25},
    ],
)
def test_options_give_the_config_again_to_the_digest(tmp_path, fields):
    plan = make_plan(tmp_path)
    config = TrialConfig(**fields)
    options = options_of(config, plan)
    assert given_back(options).config_id == config.config_id
    assert "seed" not in options
    assert not {"seed", "data_seed", "dkd_beta"} & options.get("hold", {}).keys()


def test_the_file_of_a_given_teacher_stands_for_its_digest(tmp_path):
    plan = make_plan(tmp_path).model_copy(update={"teacher_checkpoint": tmp_path / "teacher.safetensors"})
    config = TrialConfig(teacher_recipe="checkpoint", teacher_digest="0123456789abcdef")
    assert options_of(config, plan) == {
        "precision": "fp32", "teacher_checkpoint": str(tmp_path / "teacher.safetensors"),
    }  # fmt: skip


def test_repetitions_choose_the_best_config_and_a_search_alone_the_highest_score(in_process_study):
    plan = load_plan(in_process_study)
    ledger = StudyLedger(plan, read_only=True)
    configs = summarise_configs(open_study(in_process_study).trials, seed=plan.seed)
    best = find_best(plan, ledger, configs, None)
    repeated = [each for each in configs if each.stage == "replicate"]
    assert best.score.value == max(each.accuracy.value for each in repeated)
    assert (best.chosen_by, best.split, best.score.n) == ("repetitions", "validation", 2)
    words = shlex.split(best.line)
    assert words == best.arguments
    assert words.count("--set") == len(best.options["hold"])
    alone = find_best(plan, ledger, [], None)
    assert alone.score.value == max(entry.score for entry in ledger.in_stage("search"))
    assert alone.chosen_by == "search"
    assert math.isnan(alone.score.low)


def test_a_study_without_a_finished_trial_has_no_best_config(tmp_path):
    plan = make_plan(tmp_path)
    assert find_best(plan, StudyLedger(plan), [], None) is None
