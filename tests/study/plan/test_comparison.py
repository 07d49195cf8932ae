"""Studies that compare methods: methods included, rejected plans, search and repetition."""

import hashlib
import json
from collections import Counter

import pytest

from search_spaces import COMPARISONS, find_space
from study.cli.fixed_fields import fixed_fields
from study.cli.preview import describe_plan
from study.cli.request import resumed_plan
from study.ledger.ledger import StudyLedger
from study.ledger.promising import promising_configs
from study.plan.methods import choose_methods, known_methods
from study.plan.notes import comparison_notes, describe_teacher_storage, left_out
from study.plan.resolve import load_plan, resolve_plan
from study.plan.teacher_storage import reckon_teacher_storage
from study.search.preview import first_configs
from study.search.searcher import StudySearch
from study.tracking.note import note_text
from study.tracking.trial_run import trial_params
from tests.study.factories import FEW, PretendedTune, compare, make_plan
from tests.trainables.conftest import IMAGE_METHODS
from trainables.methods.registry import METHODS
from trainables.process.errors import UsageError
from trainables.spec.methods import method_spec
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.study


def begin(folder, space="method", **values):
    ledger = StudyLedger(compare(folder, space, **values))
    search = StudySearch(ledger, {})
    return ledger, search, PretendedTune(search, ledger)


def test_every_method_of_the_registry_is_compared_and_twice_where_it_takes_an_adapter():
    names = [method.name for method in choose_methods(None, {}, {})]
    assert {name for name in names if "+" not in name} == set(IMAGE_METHODS)
    assert {name for name in names if "+" in name} == {
        f"{name}+adapter" for name in ("dkd", "dist", "logit_standardisation")
    }
    assert len(set(names)) == len(names)


def test_a_method_is_compared_at_what_was_published_and_else_at_the_configs_defaults(tmp_path):
    plan = compare(tmp_path, methods=None)
    defaults = TrialConfig(epochs=4)
    for method in plan.compared:
        config, entry = plan.configure(method.fields), method_spec(method.fields["method"])
        given = {**entry.published, "method": config.method, "adapter": config.adapter}
        assert config == defaults.model_copy(update=given)


def test_on_text_pesf_kd_is_compared_as_its_language_code_has_it(tmp_path):
    plan = compare(tmp_path, methods=None, base={"dataset": "glue:sst2", "epochs": 4})
    (pesf_kd,) = [plan.configure(method.fields) for method in plan.compared if method.name == "pesf_kd"]
    assert (pesf_kd.distance, pesf_kd.temperature, pesf_kd.ce_weight, pesf_kd.kd_weight) == ("mse", 5.0, 0.3, 0.7)
    assert (pesf_kd.adapter_kind, pesf_kd.adapter_width) == ("parallel", 64)
    (kd,) = [method for method in plan.compared if method.name == "kd"]
    assert kd == known_methods("digits")["kd"]
    assert "those of pesf_kd, pkd and pea_kd are for GLUE" in comparison_notes(plan)[0]


def test_pesf_kd_as_published_is_the_paper_with_the_released_schedule():
    fields = known_methods("digits")["pesf_kd"].fields
    assert fields["pesf_variant"] == "paper"
    assert (fields["adapter_learning_rate"], fields["adapter_schedule"]) == (2e-5, "released")
    on_text = known_methods("glue:sst2")["pesf_kd"].fields
    assert (on_text["pesf_variant"], on_text["adapter_ce_weight"]) == ("paper", 0.3)


def test_variants_and_further_adapters_are_compared_where_they_are_named_alone(tmp_path):
    usual = {method.name for method in choose_methods(None, {}, {})}
    asked = ["kd", "pesf_kd", "pesf_kd+released-vision", "crd+adapter", "at+adapter"]
    assert not {"pesf_kd+released-vision", "crd+adapter", "at+adapter"} & usual
    plan = compare(tmp_path, methods=asked)
    configs = {method.name: plan.configure(method.fields) for method in plan.compared}
    assert [plan.search_of(config) for config in configs.values()] == asked
    released = configs["pesf_kd+released-vision"]
    assert (released.pesf_variant, released.temperature, released.adapter_width) == ("released-vision", 6.0, 32)
    crd = configs["crd+adapter"]
    assert (crd.kd_weight, crd.adapter_kd_weight, crd.adapter_schedule) == (0.8, 1.0, "released")
    assert "pesf_kd+released-language" in {
        method.name for method in choose_methods(["pesf_kd+released-language"], {"dataset": "glue:sst2"}, {})
    }
    with pytest.raises(UsageError, match=r"unknown method 'pesf_kd\+released-language'; did you mean 'pesf_kd\+rel"):
        choose_methods(["pesf_kd+released-language"], {}, {})


def test_a_variant_that_is_set_brings_its_settings_but_for_those_varied_or_given():
    fixed = fixed_fields(["pesf_variant=released-vision", "adapter_ce_weight=0.5"], None, "temperature")
    assert fixed["pesf_variant"] == "released-vision"
    assert (fixed["adapter_ce_weight"], fixed["adapter_schedule"], fixed["adapter_width"]) == (0.5, "released", 32)
    assert not {"temperature", "adapter_learning_rate"} & set(fixed)  # varied by the space
    assert fixed_fields(["pesf_variant=released-language"], None, "joint")["distance"] == "mse"
    assert fixed_fields(["ce_weight=0.5"], None, "joint") == {"ce_weight": 0.5}
    with pytest.raises(UsageError, match="'method' compares several methods; name the variant in --methods"):
        fixed_fields(["pesf_variant=released-vision"], None, "method")
    with pytest.raises(UsageError, match="--set pesf_variant"):
        fixed_fields(["pesf_variant=released"], None, "joint")


def test_pea_kd_has_the_thresholds_of_the_task(tmp_path):
    for dataset, thresholds in (("glue:rte", (0.8, 0.6)), ("glue:sst2", (0.98, 0.8)), ("glue:mnli", (0.95, 0.7))):
        fields = known_methods(dataset)["pea_kd"].fields
        assert (fields["pea_threshold"], fields["pea_wrong_threshold"]) == thresholds
        assert (fields["temperature"], fields["kd_weight"], fields["ce_weight"]) == (10.0, 0.7, 0.3)


def test_a_space_with_arms_compares_these_and_refuses_other_methods(tmp_path):
    space = COMPARISONS["adapter_why"]
    compared = choose_methods(None, {}, {}, space.arms)
    assert [method.name for method in compared] == list(space.arms)
    plan = make_plan(tmp_path, space="adapter_why", compared=compared, controls=(), base={"method": "kd"}, promising=1)
    configs = {method.name: plan.configure(method.fields) for method in plan.compared}
    assert {name: plan.search_of(config) for name, config in configs.items()} == {name: name for name in space.arms}
    assert {(config.ce_weight, config.kd_weight) for config in configs.values()} == {(1.0, 0.9)}
    assert [[p.name for p in search.parameters] for search in plan.searches] == [["temperature"]] * len(space.arms)
    assert left_out(plan) == {}
    shown = describe_plan(plan, [])
    assert "starting from the settings of the space" in shown
    assert "pesf_kd+first: as many epochs of another student before each trial" in shown
    assert "Published settings" not in shown
    assert [method.name for method in choose_methods(["pesf_kd"], {}, {}, space.arms)] == ["kd", "pesf_kd"]
    with pytest.raises(UsageError, match="unknown method 'dkd'"):
        choose_methods(["dkd"], {}, {}, space.arms)


def test_methods_that_cannot_run_with_these_nets_are_left_out_with_the_reason(tmp_path):
    base = {"student": "torchvision:resnet18", "epochs": 4}
    plan = compare(tmp_path, methods=None, base=base)
    needing = [name for name in IMAGE_METHODS if method_spec(name).needs_maps]
    reading = [name for name in METHODS if name not in IMAGE_METHODS]
    branching = [name for name in METHODS if method_spec(name).teacher_fields]
    assert needing
    assert branching
    assert {method.name for method in plan.compared} == set(known_methods("digits")) - {*needing, *branching, *reading}
    groups = [sorted(needing), sorted(branching), sorted(reading)]
    assert sorted(map(sorted, left_out(plan).values())) == sorted(groups)
    assert f"left out   {', '.join(reading)}: matches layers of language models, and dataset" in describe_plan(plan, [])
    assert f"left out   {', '.join(needing)}: matches maps of the nets' stages, and student" in describe_plan(plan, [])


@pytest.mark.parametrize(
    ("methods", "base", "says"),
    [
        (["ce", "dkkd"], {}, "unknown method 'dkkd'; did you mean 'dkd'?"),
        (["kd+adapter"], {}, "unknown method 'kd+adapter'"),
        (["kd", "at"], {"student": "torchvision:resnet18"}, "--methods at: method 'at' matches maps"),
        (None, {"student": "cnn_3"}, "cnn_3"),
    ],
)
def test_a_method_that_was_named_and_cannot_run_is_refused(methods, base, says):
    with pytest.raises(UsageError) as refusal:
        choose_methods(methods, base, {})
    assert says in str(refusal.value)


def test_the_baseline_is_always_among_them():
    assert [method.name for method in choose_methods(["dist"], {}, {})] == ["kd", "dist"]
    assert [method.name for method in choose_methods(["dist", "kd", "dist"], {}, {})] == ["dist", "kd"]


def test_a_grid_is_its_methods_on_equal_seeds_seed_by_seed(tmp_path):
    ledger, _, tune = begin(tmp_path)
    ran = tune.run()
    assert len(ran) == ledger.plan.total_trials == 2 * len(FEW)
    assert [trial["stage"] for trial in ran] == ["control"] * len(ran)
    entries = list(ledger.entries.values())
    assert [ledger.plan.search_of(e.config) for e in entries] == FEW * 2
    assert [e.replicate for e in entries] == [1] * len(FEW) + [2] * len(FEW)
    for replicate in (1, 2):
        assert len({(e.config.data_seed, e.config.seed) for e in entries if e.replicate == replicate}) == 1
    assert len({e.config.seed for e in entries}) == 2


def test_a_grid_has_no_search_whatever_is_asked(tmp_path):
    plan = compare(tmp_path, trials=9, promising=4)
    assert (plan.trials, plan.promising, plan.searches, plan.searched) == (0, 0, (), 0)
    plan.save()
    assert load_plan(plan.directory) == plan


def test_every_method_is_tuned_equally_long_by_turns_and_its_best_config_repeated(tmp_path):
    ledger, search, tune = begin(tmp_path, "method_tuned")
    ran = tune.run()
    plan = ledger.plan
    assert len(ran) == plan.total_trials == len(FEW) * (3 + 2)
    assert [plan.search_of(e.config) for e in ledger.in_stage("search")] == FEW * 3
    repeated = Counter(e.config.config_id for e in ledger.in_stage("replicate"))
    assert set(repeated.values()) == {2}
    for config_id, name in zip(repeated, FEW, strict=True):
        own = [e for e in ledger.in_stage("search") if plan.search_of(e.config) == name]
        assert max(own, key=lambda e: (e.score, -e.ordinal)).config.config_id == config_id
    assert {e.config.seed for e in ledger.in_stage("search")}.isdisjoint(
        e.config.seed for e in ledger.in_stage("replicate")
    )
    assert search.suggest("more") == "FINISHED"


def test_a_method_is_tuned_in_what_it_reads_and_nothing_else_from_its_published_settings_on(tmp_path):
    ledger, _, tune = begin(tmp_path, "method_tuned", methods=None)
    tune.run(len(ledger.plan.compared) * 3)
    tuned = {parameter.name for parameter in COMPARISONS["method_tuned"].tuned}
    for method in ledger.plan.compared:
        first, *others = [e.config for e in ledger.in_stage("search") if ledger.plan.search_of(e.config) == method.name]
        published = ledger.plan.configure(method.fields)
        assert first.config_id == published.config_id
        read = {name for name in tuned if name in published.method_spec.fields or name.startswith("student_")}
        for config in others:
            changed = {
                name
                for name, value in config.model_dump().items()
                if value != getattr(published, name) and name not in ("seed", "data_seed")
            }
            assert changed == read
    assert {"kd_weight", "temperature", "student_learning_rate", "adapter_width", "adapter_learning_rate"} <= tuned


@pytest.mark.study
@pytest.mark.parametrize("sampler", ["tpe", "qmc", "gp", "cmaes"])
def test_a_tuning_that_was_killed_proposes_what_it_would_have_proposed(tmp_path, sampler):
    values = {"methods": ["ce", "dkd+adapter", "kd"], "trials": 13, "sampler": sampler}
    _, _, tune = begin(tmp_path / "whole", "method_tuned", **values)
    whole = [trial["config"] for trial in tune.run()]
    _, _, tune = begin(tmp_path / "killed", "method_tuned", **values)
    first = tune.run(35)
    tune.report(tune.next()[1], 1)
    ledger, _, tune = begin(tmp_path / "killed", "method_tuned", **values)
    rest = tune.run()
    assert [trial["config"] for trial in first + rest] == whole
    assert len(ledger.entries) == ledger.plan.total_trials


def test_a_method_whose_search_failed_is_not_repeated_and_the_others_are(tmp_path):
    ledger, search, tune = begin(tmp_path, "method_tuned", methods=["ce", "kd"], trials=2)
    for _ in range(4):
        tune_id, settings = tune.next()
        if settings["config"]["method"] == "ce":
            search.on_trial_complete(tune_id, {"finished": False, "failed": "why"})
        else:
            tune.finish(tune_id, settings)
    assert [config.method for config in promising_configs(ledger)] == ["kd"]
    assert [trial["config"]["method"] for trial in tune.run()] == ["kd", "kd"]


def test_methods_that_need_maps_have_the_teacher_live_and_the_others_its_stored_outputs(tmp_path):
    plan = compare(tmp_path)
    storage = reckon_teacher_storage(plan)
    assert (storage.source, list(storage.live)) == ("stored", ["at"])
    assert storage.passes_live == 4 * 2 * 4  # all but ce, on 2 seeds, in 4 epochs
    assert storage.passes_stored == 4 + 2 * 4  # a slot per epoch, plus the live passes of at
    assert "some methods run the teacher live anyway: at cannot run without feature maps" in describe_teacher_storage(
        plan
    )
    assert "at" in reckon_teacher_storage(compare(tmp_path, methods=["ce", "kd", "at"], teacher_outputs="stored")).live
    assert reckon_teacher_storage(compare(tmp_path, methods=["ce", "kd"])).live == {}
    live = reckon_teacher_storage(compare(tmp_path, teacher_outputs="live"))
    assert (live.source, live.live) == ("live", {})


def test_methods_in_which_more_than_the_student_learns_are_compared_with_the_teachers_that_they_have(tmp_path):
    plan = compare(tmp_path, methods=["dml", "kd", "sftn", "full_teacher", "at"])
    assert {whose: trial.method for whose, trial in plan.teachers.items()} == {"": "kd", "sftn": "sftn"}
    storage = reckon_teacher_storage(plan)
    assert list(storage.live) == ["full_teacher", "at"]
    assert storage.passes_live == 4 * 2 * 4  # all but dml, on 2 seeds, in 4 epochs
    assert storage.passes_stored == 2 * 4 + 2 * 2 * 4  # a slot per epoch of both teachers, plus live passes
    assert "full_teacher trains the teacher, so its outputs change; at cannot" in (describe_teacher_storage(plan))
    assert "dml, full_teacher: a second network is trained with the student" in describe_plan(plan, [])


def test_a_trial_that_cannot_do_with_stored_outputs_asks_the_teacher_though_the_study_stores_them(tmp_path):
    from trainables.tune.session import begin_run
    from trainables.tune.tasks import prepare_teacher

    small = {"teacher": "cnn_4_8", "teacher_epochs": 1, "epochs": 2, "batch_size": 128}
    path = prepare_teacher({**small, "method": "kd"}, None, str(tmp_path)).path
    outputs = {"location": str(tmp_path / "outputs"), "dtype": "float16"}
    settings = {"data_root": None, "teacher_path": path, "own_teachers": {}, "teacher_outputs": outputs}
    for name in IMAGE_METHODS:
        entry = method_spec(name)
        if entry.needs_teacher and not entry.teacher_fields:
            run = begin_run({**settings, "config": {**small, "method": name}})
            assert run.teacher_outputs.stored != entry.needs_live_teacher, name


def test_a_plan_of_a_comparison_survives_its_file_and_is_known_by_its_methods(tmp_path):
    plan = compare(tmp_path, "method_tuned")
    plan.save()
    assert load_plan(plan.directory) == plan
    assert compare(tmp_path, "method_tuned", methods=["ce", "kd"]).digest != plan.digest


@pytest.mark.parametrize("space", COMPARISONS)
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"scheduler": "asha"}, "leave out --scheduler"),
        ({"pack": 2}, "leave out --pack"),
        ({"pack": "auto"}, "leave out --pack"),
    ],
)
def test_what_would_make_a_comparison_uneven_is_refused(tmp_path, space, values, says):
    with pytest.raises(UsageError, match=says):
        compare(tmp_path, space, **values)


def test_a_comparison_without_methods_and_methods_without_a_comparison_are_refused(tmp_path):
    with pytest.raises(UsageError, match="do not match"):
        make_plan(tmp_path, space="method")
    with pytest.raises(UsageError, match="do not match"):
        make_plan(tmp_path, compared=choose_methods(["ce"], {}, {}))
    with pytest.raises(UsageError, match="varies kd_weight"):
        compare(tmp_path, "method_tuned", overrides={"kd_weight": 1.0})


def test_what_is_held_holds_for_every_method(tmp_path):
    plan = compare(tmp_path, overrides={"kd_weight": 0.25})
    assert {planned.config.kd_weight for planned in plan.control_trials()} == {0.25}


def test_the_plan_says_that_published_settings_are_of_cifar_nets_unless_the_study_has_them(tmp_path):
    shown = describe_plan(compare(tmp_path), [])
    assert "Published settings are for CIFAR-100 and the networks used with it" in shown
    assert "--space method_tuned" in shown
    assert "Published settings for longer training: dkd (warmup_epochs 20)" in shown
    assert "no paired p-value can be below 0.5, or below 1 after correction for 4" in shown
    nets = {"dataset": "cifar100", "student": "resnet8x4", "teacher": "resnet32x4", "epochs": 240}
    assert comparison_notes(compare(tmp_path, base=nets, replicates=12)) == []


def test_a_preview_shows_each_method_where_it_starts_and_the_sum_of_trials(tmp_path):
    plan = compare(tmp_path, "method_tuned")
    shown = first_configs(plan)
    assert [config["method"] for config in shown] == FEW
    assert "temperature" not in shown[0]
    assert shown[3]["adapter_width"] == 16
    assert "25 = 5 methods x (3 search trials + 1 best x 2 seeds)" in describe_plan(plan, shown)
    assert "10 = 5 methods x 2 seeds" in describe_plan(compare(tmp_path), [])
    json.dumps(shown)


def test_mlflow_hears_what_each_trials_method_reads(tmp_path):
    ledger, _, tune = begin(tmp_path, "method_tuned")
    tune.run(5)
    params = {ledger.plan.search_of(e.config): trial_params(ledger.plan, e) for e in ledger.entries.values()}
    assert params["dkd+adapter"]["adapter"] is True
    assert params["dkd+adapter"]["adapter_width"] == 16
    assert params["dkd"]["dkd_beta"] == 8.0
    assert "adapter_width" not in params["dkd"]
    assert "kd_weight" not in params["ce"]
    assert "For each method 3 configs by tpe" in note_text(ledger.plan)


def test_a_comparisons_name_is_found_like_a_spaces():
    assert find_space("method") is COMPARISONS["method"]
    with pytest.raises(ValueError, match="did you mean 'method_tuned'"):
        find_space("methods_tuned")


def test_methods_added_to_the_registry_later_do_not_change_a_study(tmp_path):
    plan = compare(tmp_path, methods=["ce", "kd"])
    values = plan.model_dump(mode="json")
    values["compared"][1]["fields"]["kd_weight"] = 0.7  # as in a plan of an earlier version
    earlier = resolve_plan(values)
    assert [trial.config.kd_weight for trial in earlier.control_trials()][1] == 0.7


def test_a_study_that_compares_goes_on_with_its_own_methods_only(tmp_path):
    compare(tmp_path).save()
    with pytest.raises(UsageError, match=r"it compares ce, kd, dkd, dkd\+adapter, at, but --methods gives ce, dist"):
        resumed_plan("planned", tmp_path, {"methods": "ce,dist"})
    again = resumed_plan("planned", tmp_path, {"methods": "at,ce,dkd,dkd+adapter"})
    assert [method.name for method in again.compared] == FEW
    with pytest.raises(UsageError, match="trials: the study has 0, but 7 was given"):
        resumed_plan("planned", tmp_path, {"trials": 7})


def test_the_digest_of_a_plan_is_that_of_its_version_and_of_what_differs_from_the_defaults(tmp_path):
    plan = make_plan(tmp_path)
    fields = {
        "space": "adapter_width", "space_digest": plan.space_digest, "trials": 5, "promising": 2, "replicates": 2,
        "teacher_outputs_used": "stored", "base": {"epochs": 4, "teacher_epochs": 30},
    }  # fmt: skip
    content = json.dumps({"fields": fields, "version": 2}, sort_keys=True)
    assert plan.digest == hashlib.sha256(content.encode()).hexdigest()[:12]


def test_each_method_has_several_independent_searches_and_the_best_config_of_each_is_repeated(tmp_path):
    values = {"methods": ["ce", "dkd", "kd"], "trials": 4, "searches_per_method": 2}
    ledger, search, tune = begin(tmp_path, "method_tuned", **values)
    plan = ledger.plan
    assert [each.name for each in plan.searches] == [
        "ce", "dkd", "kd", "ce, search 2", "dkd, search 2", "kd, search 2",
    ]  # fmt: skip
    tune.run(plan.searched)
    entries = {each.name: [e for e in ledger.in_stage("search") if e.search == each.name] for each in plan.searches}
    assert {len(each) for each in entries.values()} == {4}
    for method in plan.compared:
        first, second = entries[method.name], entries[f"{method.name}, search 2"]
        assert first[0].config.config_id == second[0].config.config_id  # both start at the published settings
        assert first[0].config.seed != second[0].config.seed
        assert not {e.config.config_id for e in first[1:]} & {e.config.config_id for e in second[1:]}
        assert {e.config.data_seed for e in first}.isdisjoint({e.config.data_seed for e in second})
    tune.run()
    repeated = {entry.config.config_id for entry in ledger.in_stage("replicate")}
    best = {max(each, key=lambda entry: (entry.score, -entry.ordinal)).config.config_id for each in entries.values()}
    assert repeated == best
    assert search.suggest("more") == "FINISHED"
    assert "3 methods x 2 searches x (4 search trials + 1 best x 2 seeds)" in describe_plan(plan, [])


@pytest.mark.parametrize("ran", [5, 13, 26])
def test_several_searches_go_on_after_a_kill_as_if_there_was_none(tmp_path, ran):
    values = {"methods": ["ce", "kd"], "trials": 12, "searches_per_method": 2}
    _, _, tune = begin(tmp_path / "whole", "method_tuned", **values)
    whole = [trial["config"] for trial in tune.run()]
    ledger, _, tune = begin(tmp_path / "killed", "method_tuned", **values)
    done = [trial["config"] for trial in tune.run(ran)]
    ledger.close()
    _, _, tune = begin(tmp_path / "killed", "method_tuned", **values)
    assert done + [trial["config"] for trial in tune.run()] == whole


def test_searches_per_method_are_for_tuned_methods_alone(tmp_path):
    for space in ("method", "joint"):
        make = compare if space == "method" else make_plan
        with pytest.raises((UsageError, ValueError), match="searches per method"):
            make(tmp_path, space=space, searches_per_method=2)


class CostlyTune(PretendedTune):
    """Trials that report the cost of a step: five times cross-entropy for dkd, equal to it for the others."""

    def finish(self, tune_id, settings):
        cost = 5.0 if settings["config"]["method"] == "dkd" else 1.0
        self.ledger.record_facts(settings["trial_id"], {"cost/step_flops_to_ce": cost})
        super().finish(tune_id, settings)


def begin_costly(folder):
    """Begin a comparison with a budget in FLOPs and trials of different cost."""
    values = {"methods": ["ce", "dkd", "kd"], "trials": 12, "searches_per_method": 2, "budget": "flops"}
    ledger = StudyLedger(compare(folder, "method_tuned", **values))
    search = StudySearch(ledger, {})
    return ledger, search, CostlyTune(search, ledger)


@pytest.mark.parametrize("ran", [None, 4, 9, 30])
def test_by_equal_flops_a_method_that_costs_more_has_fewer_trials_after_a_kill_too(tmp_path, ran):
    ledger, search, tune = begin_costly(tmp_path)
    if ran is not None:
        tune.run(ran)
        ledger.close()
        ledger, search, tune = begin_costly(tmp_path)
    tune.run()
    counts = Counter(entry.search for entry in ledger.in_stage("search"))
    assert counts == {
        "ce": 12, "kd": 12, "dkd": 2, "ce, search 2": 12, "kd, search 2": 12, "dkd, search 2": 2,
    }  # fmt: skip
    assert not search.has_more
    assert ledger.planned - len(ledger.entries) <= 3 * ledger.plan.replicates  # both searches may find the same config


def test_a_search_by_flops_waits_for_the_cost_of_its_first_trial_and_outlives_a_failed_one(tmp_path):
    ledger, search, tune = begin_costly(tmp_path)
    first = [tune.next() for _ in range(6)]
    assert len({ledger.entries[each[1]["trial_id"]].search for each in first}) == 6
    assert tune.next() is None
    assert search.has_more
    search.on_trial_complete(first[0][0], {"finished": False, "failed": "why"})  # before it reported the cost
    again = tune.next()
    assert ledger.entries[again[1]["trial_id"]].search == "ce"
    assert tune.next() is None


def test_equal_flops_are_for_tuned_methods_alone(tmp_path):
    for space in ("method", "joint"):
        make = compare if space == "method" else make_plan
        with pytest.raises((UsageError, ValueError), match="leave out --budget"):
            make(tmp_path, space=space, budget="flops")
    assert "by equal FLOPs" in describe_plan(begin_costly(tmp_path)[0].plan, [])
