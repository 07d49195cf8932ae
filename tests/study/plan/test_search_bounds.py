"""Bounds given with `--search`: what is read, what is refused before any work, and what a plan makes of them."""

import itertools

import pytest

from search_spaces import Bounds
from study.cli.preview import describe_plan, planned_comparisons
from study.cli.request import resumed_plan
from study.plan.bounds import read_bounds, refuse_given_twice
from study.plan.bounds_checks import check_bounds
from study.plan.control_tuning import TEMPERATURES, temperatures_of, tuning_trials
from study.plan.network_checks import check_networks
from study.plan.plan import StudyPlan
from study.plan.resolve import load_plan
from study.search.preview import first_configs
from tests.study.factories import compare, make_plan
from tests.study.typed import plan_of
from trainables.process.errors import UsageError
from trainables.spec.searchable import FIXED_IN_A_STUDY, limits_of, searchable_fields
from trainables.spec.trial import config_fields

STUDENTS = "student=cnn_3_4,cnn_4_6"


def given(*arguments):
    return [bounds.__dict__ for bounds in read_bounds(arguments)]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("temperature=1:32:log", Bounds(field="temperature", kind="float", low=1.0, high=32.0, log=True)),
        ("temperature=1e-3:.5", Bounds(field="temperature", kind="float", low=0.001, high=0.5)),
        (" ce-weight = 0 : 1 ", Bounds(field="ce_weight", kind="float", low=0.0, high=1.0)),
        ("ce_weight=0:1:0.25", Bounds(field="ce_weight", kind="float", low=0.0, high=1.0, step=0.25)),
        ("temperature=1:9:int", Bounds(field="temperature", kind="float", low=1.0, high=9.0, step=1.0)),
        ("adapter_width=2:256:log", Bounds(field="adapter_width", kind="int", low=2, high=256, log=True)),
        ("adapter_width=2:256:int", Bounds(field="adapter_width", kind="int", low=2, high=256)),
        ("batch_size=16:128:16", Bounds(field="batch_size", kind="int", low=16, high=128, step=16)),
        ("batch_size=32,1e2,64", Bounds(field="batch_size", kind="categorical", choices=(32, 100, 64))),
        ("temperature=1,2,4", Bounds(field="temperature", kind="categorical", choices=(1.0, 2.0, 4.0))),
        ("adapter_clip=true,False", Bounds(field="adapter_clip", kind="categorical", choices=(True, False))),
        (
            "adapter_kind=serial,parallel",
            Bounds(field="adapter_kind", kind="categorical", choices=("serial", "parallel")),
        ),
        (
            "student=torchvision:resnet18,resnet8",
            Bounds(field="student", kind="categorical", choices=("torchvision:resnet18", "resnet8")),
        ),
    ],
)
def test_an_argument_is_read(argument, expected):
    (found,) = read_bounds([argument])
    assert found == expected
    assert [type(each) for each in found.choices] == [type(each) for each in expected.choices]
    assert read_bounds([found.text]) == (found,)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("temperature", "use the form FIELD=BOUNDS"),
        ("=1:2", "use the form FIELD=BOUNDS"),
        ("temprature=1:2", "unknown field 'temprature'; did you mean 'temperature'"),
        ("temperature=", "no value is given: give LOW:HIGH"),
        ("temperature=4:1", "the bounds 4 and 1 are reversed; give 1:4"),
        ("temperature=4:4", "the bounds 4 and 4 are equal; --set temperature=4 fixes it"),
        ("temperature=0:4", "0 is not allowed; allowed are numbers from 1e-06 to 1000"),
        ("temperature=1:2000", "2000 is not allowed; allowed are numbers from 1e-06 to 1000"),
        ("student_momentum=0:1", "1 is not allowed; allowed are numbers from 0 to below 1"),
        ("student_learning_rate=0:1", "0 is not allowed; allowed are numbers above 0 to 1e"),
        ("ce_weight=0:1:log", "a log scale must start above 0, not at 0"),
        ("temperature=one:4", "'one' is not a number; allowed are numbers from"),
        ("temperature=:4", "an empty value is not a number"),
        ("temperature=nan:4", "'nan' is not a number"),
        ("temperature=1:inf", "'inf' is not a number"),
        ("temperature=1:1e999", "not allowed; allowed are numbers"),
        ("temperature=1:4:lin", "'lin' is neither log nor a step"),
        ("temperature=1:4:log:log", "'log' is neither log nor a step"),
        ("temperature=1:4:log:1", "a log scale has no steps"),
        ("temperature=1:4:0", "the step 0 must be above 0, and at most 3"),
        ("temperature=1:4:5", "the step 5 must be above 0, and at most 3"),
        ("temperature=1:4:2", "4 is not a whole number of steps of 2 above 1: give 3 or 5"),
        ("batch_size=16:100:16", "100 is not a whole number of steps of 16 above 16: give 96 or 112"),
        ("batch_size=16:64:1.5", "the step 1.5 is not a whole number"),
        ("batch_size=1.5:64", "1.5 is not a whole number; allowed are whole numbers from 1"),
        ("batch_size=0:64", "0 is not allowed; allowed are whole numbers from 1 to 1e"),
        ("temperature=1,,2", "an empty value between two commas"),
        ("temperature=1,2,1.0", "1 is given twice"),
        ("adapter_clip=true,TRUE", "true is given twice"),
        ("temperature=4", "one value leaves nothing to search: give LOW:HIGH"),
        ("student=resnet8", "fix the value with --student resnet8"),
        ("adapter_kind=serial", "fix the value with --set adapter_kind=serial"),
        ("adapter_kind=serial,cereal", "'cereal' is not allowed; allowed are serial, parallel, logit, feature"),
        ("adapter_kind=a,b,c,d,e,f,g", "'a', 'b', 'c', 'd', 'e' and 2 more are not allowed"),
        ("adapter_kind=serial:logit", "'serial:logit' is not allowed"),
        ("adapter_clip=0,1", "'0', '1' are not allowed; allowed are true and false"),
        ("temperature=1,2,x", "'x' is not allowed; allowed are numbers"),
        ("batch_size=" + ",".join(map(str, range(1, 102))), "101 values are given, and 100 are the most"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_what_is_allowed(argument, message):
    with pytest.raises(UsageError) as refused:
        read_bounds([argument])
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"--search {argument[:40]}" if "=" in argument[1:] else "--search '")


@pytest.mark.parametrize("field", FIXED_IN_A_STUDY)
def test_fields_that_all_trials_of_a_study_share_are_refused_with_the_reason(field):
    with pytest.raises(UsageError, match=f"{field} cannot be searched: ") as refused:
        read_bounds([f"{field}=1,2"])
    assert FIXED_IN_A_STUDY[field] in str(refused.value)
    assert {*searchable_fields()} == config_fields().keys() - FIXED_IN_A_STUDY.keys()


def test_the_limits_that_a_message_names_are_those_of_the_config():
    assert limits_of("rate_warmup").in_words == "numbers from 0 to below 1"
    assert limits_of("temperature").in_words == "numbers from 1e-06 to 1000"
    assert limits_of("adapter_clip").in_words == "true and false"
    assert {limits_of(name).kind for name in config_fields()} == {"float", "int", "bool", "choice", "name"}


def test_a_field_is_given_once():
    with pytest.raises(UsageError, match="temperature is given twice by --search"):
        read_bounds(["temperature=1:2", "temperature=2:4"])
    bounds = read_bounds(["temperature=1:2", "student=resnet8,resnet14"])
    for options, flag in (
        ({"hold": ["temperature=4"]}, "--set temperature"),
        ({"temperature": 4.0}, "--temperature"),
        ({"student": "resnet8"}, "--student"),
    ):
        with pytest.raises(UsageError, match=f"^--search .* and {flag}: a field is either searched or fixed"):
            refuse_given_twice(bounds, options)
    refuse_given_twice(bounds, {"hold": ["ce_weight=1"], "teacher": "resnet56"})


def test_bounds_are_part_of_the_question_and_old_digests_stay(tmp_path):
    plain = make_plan(tmp_path)
    wide = make_plan(tmp_path, search=given("adapter_width=2:512:log"))
    assert plain.digest != wide.digest != make_plan(tmp_path, search=given("adapter_width=2:512")).digest
    assert plain.space_digest != wide.space_digest
    assert "search" not in StudyPlan(**plain.model_dump()).model_dump(exclude_defaults=True)
    wide.save()
    assert load_plan(wide.directory) == wide
    assert load_plan(wide.directory).digest == wide.digest
    (width,) = (each for each in wide.search_space.parameters if each.name == "adapter_width")
    assert (width.low, width.high) == (2, 512)


def test_listed_values_keep_their_types_in_the_plan_file(tmp_path):
    plan = make_plan(tmp_path, search=given("temperature=1,2,4", "adapter_clip=true,false", "batch_size=16,1e3"))
    plan.save()
    choices = [each.choices for each in load_plan(plan.directory).search]
    assert choices == [(1.0, 2.0, 4.0), (True, False), (16, 1000)]
    assert [[type(value) for value in values] for values in choices] == [[float] * 3, [bool] * 2, [int] * 2]


def test_a_resume_with_other_bounds_is_refused(tmp_path):
    plan = make_plan(tmp_path, search=given("adapter_width=2:512:log"))
    plan.save()
    same = {"search": ["adapter_width=2:512:log"]}
    assert resumed_plan(plan.name, tmp_path, same, runs=False).search == plan.search
    with pytest.raises(UsageError, match=r"search: the study has .*512.*, but .*1024.* was given"):
        resumed_plan(plan.name, tmp_path, {"search": ["adapter_width=2:1024:log"]}, runs=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"space": "none"}, "searches nothing of its own: give at least one --search"),
        ({"search": given("temperature=1:2") * 2}, "--search gives a field more than once"),
        ({"search": [{"field": "temperature", "kind": "float", "low": 2.0, "high": 1.0}]}, "bounds must be finite"),
        ({"search": [{"field": "temperature", "kind": "float", "low": 1.0, "high": 2.0, "hihg": 3}]}, "hihg"),
        ({"search": given("temperature=1:2"), "overrides": {"temperature": 4.0}}, "varies temperature"),
    ],
)
def test_a_plan_with_wrong_bounds_is_refused(tmp_path, values, message):
    with pytest.raises(UsageError, match=message):
        make_plan(tmp_path, **values)


def test_a_comparison_at_published_settings_searches_nothing(tmp_path):
    with pytest.raises(UsageError, match="choose --space method_tuned"):
        compare(tmp_path, "method", search=given("temperature=1:2"))


def checked(folder, **values):
    plan = make_plan(folder, **values)
    check_bounds(plan)
    return plan


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"search": given("dkd_alpha=1:2")},
            "--search dkd_alpha=1:2: method 'pesf_kd' does not read dkd_alpha; methods that do: dkd$",
        ),
        (
            {"search": given("adapter_width=2:4"), "base": {"method": "dkd"}},
            "methods that do: pesf_kd, .*dkd with --adapter",
        ),
        ({"search": given("student_layers=skip,first")}, "it chooses the layers of a student bert:N"),
        (
            {"search": given("adapter_kind=serial,logit"), "sampler": "cmaes"},
            "--sampler cmaes searches ranges of numbers alone, and --search adapter_kind=serial,logit",
        ),
        (
            {"search": given("temperature=1,2,4"), "sampler": "cmaes"},
            "lists values: choose tpe, random, qmc, gp or nsga2",
        ),
        (
            {"search": given("adapter_training=joint,frozen")},
            "--search adapter_training=joint,frozen: adapter_training=frozen is not allowed: an adapter",
        ),
        (
            {"search": given("adapter_training=joint,frozen", "adapter_init=zero,default")},
            "adapter_training=frozen is not allowed: an adapter that is frozen at a zero init",
        ),
        ({"search": given("batch_size=2:64"), "workers_per_trial": 4}, "4 workers cannot share a batch of 2 samples"),
        ({"search": given("optimiser=sgd,adamw"), "pack": 2}, "packed trials need SGD.*leave out --pack"),
        ({"search": given("adapter_dropout=0:0.5"), "pack": 2}, "adapter_dropout separate: leave out --pack"),
        ({"search": given("student=resnet8,ShuffleV1"), "pack": 2}, "'ShuffleV1' cannot be packed"),
        ({"search": given("student=resnet8,resnet14"), "pack": "auto"}, "--pack auto measures one student"),
        (
            {"search": given("student=resnet8,resnet14"), "base": {"method": "sftn"}, "space": "none"},
            "method 'sftn' trains its teacher for one student",
        ),
    ],
)
def test_bounds_that_do_not_fit_the_study_are_refused(tmp_path, values, message):
    with pytest.raises(UsageError, match=message):
        checked(tmp_path, **values)


@pytest.mark.parametrize("name", ["unknown", "bert_2_128"])
def test_a_student_that_cannot_be_is_refused_by_its_name(tmp_path, name):
    with pytest.raises(UsageError, match=rf"(?s)--search student=.*: student={name} is not allowed: .*{name}"):
        checked(tmp_path, search=given(f"student=resnet8,{name}"))


def test_a_student_that_the_images_do_not_fit_is_refused_by_its_name(tmp_path):
    plan = make_plan(
        tmp_path, space="none", search=given("student=cnn_3_4,timm:vit_tiny_patch16_224"), base={"method": "kd"}
    )
    with pytest.raises(UsageError, match=r"^--search student=timm:vit_tiny_patch16_224: it .*"):
        check_networks(plan)


def test_every_combination_is_tried_and_of_many_fields_every_pair(tmp_path):
    names = ["ce_weight", "kd_weight", "adapter_ce_weight", "clip_norm", "student_momentum", "adapter_momentum"]
    many = [f"{name}=0.1:0.9" for name in names] + ["adapter_width=2:4", "temperature=1:2", "batch_size=2:4"]
    checked(tmp_path, space="none", search=given(*many))
    with pytest.raises(UsageError, match="adapter_training=frozen is not allowed: an adapter"):
        checked(
            tmp_path, space="none", search=given(*many, "adapter_training=joint,frozen", "adapter_init=default,zero")
        )


def test_a_combination_that_is_invalid_only_together_is_named_whole(tmp_path):
    search = given("adapter_training=joint,frozen", "gap_control=none,centred", "adapter_width=2:4")
    with pytest.raises(
        UsageError, match="adapter_training=frozen, gap_control=centred are not allowed together: a gap is"
    ):
        checked(tmp_path, space="none", search=search, overrides={"adapter_init": "default"})


def test_in_a_comparison_bounds_hold_for_the_methods_that_read_the_field(tmp_path):
    plan = compare(
        tmp_path, "method_tuned", ["ce", "kd", "dkd"], search=given("temperature=2:32", "dkd_beta=1:9", "clip_norm=0,5")
    )
    check_bounds(plan)
    own = {search.name: {each.name: each for each in search.parameters} for search in plan.searches}
    assert own["ce"].keys() == {"student_learning_rate", "clip_norm"}
    assert (own["kd"]["temperature"].low, own["kd"]["temperature"].high) == (2.0, 32.0)
    assert not own["kd"]["temperature"].log
    assert "dkd_beta" in own["dkd"]
    assert "dkd_beta" not in own["kd"]
    for argument, message in (
        ("ttm_gamma=0.1:0.5", "none of the compared methods read ttm_gamma; methods that do: ttm"),
        (STUDENTS, "a comparison of methods is of one student"),
        ("adapter_count=1,4", "another adapter_count is another method"),
    ):
        with pytest.raises(UsageError, match=message):
            check_bounds(compare(tmp_path, "method_tuned", ["kd", "pesf_kd"], search=given(argument)))


def test_the_grid_for_kd_reaches_the_bounds_of_the_searched_temperature(tmp_path):
    def grid(argument):
        return temperatures_of(make_plan(tmp_path, search=given(argument)))

    assert temperatures_of(make_plan(tmp_path)) == TEMPERATURES
    assert grid("temperature=2:8") == TEMPERATURES
    assert grid("temperature=1:32:log") == (*TEMPERATURES, 32.0)
    assert grid("temperature=0.3:20") == (0.3, 0.5, *TEMPERATURES, 20.0)
    assert grid("temperature=4,64,8") == (*TEMPERATURES, 32.0, 64.0)
    widest = grid("temperature=1e-6:1000")
    assert (widest[0], widest[-1], len(widest)) == (1e-6, 1000.0, 9)


def test_each_student_has_controls_of_its_own(tmp_path):
    plan = make_plan(tmp_path, search=given(STUDENTS), confirmation={"configs": 1, "seeds": 3})
    assert plan.students == ("cnn_3_4", "cnn_4_6")
    assert [(config.method, config.student) for config in plan.fixed_configs] == [
        ("ce", "cnn_3_4"), ("kd", "cnn_3_4"), ("ce", "cnn_4_6"), ("kd", "cnn_4_6"),
    ]  # fmt: skip
    alone = make_plan(tmp_path, confirmation={"configs": 1, "seeds": 3})
    assert plan.total_trials - alone.total_trials == 2 * plan.replicates
    assert sum(1 for _ in tuning_trials(plan)) == 2 * sum(1 for _ in tuning_trials(alone))
    unconfirmed = make_plan(tmp_path, search=given(STUDENTS))
    assert planned_comparisons(unconfirmed) == 2 + 2  # two promising configs, and ce with each student
    shown = describe_plan(plan, first_configs(plan))
    assert "cnn_32_64 -> cnn_3_4 or cnn_4_6 on digits" in shown
    assert "2 controls (ce, kd) x 2 students x 2 seeds" in shown
    assert "student {cnn_3_4, cnn_4_6}" in shown


def test_the_launcher_makes_a_plan_of_bounds(tmp_path):
    plan = plan_of(f"--space none --method kd --search {STUDENTS} --search batch_size=32:64:32 --trials 3", tmp_path)
    assert plan.base.student == "cnn_3_4"
    assert plan.search_space.scientific == ("student", "batch_size")
    for config in itertools.islice(first_configs(plan), 3):
        assert config["student"] in plan.students
        assert config["batch_size"] in (32, 64)
    first = plan_of("--space none --method kd --search student=cnn_8_16,cnn_4_6", tmp_path)
    assert first.base.student == "cnn_8_16"
    with pytest.raises(UsageError, match="--search temperature=1:2 and --temperature"):
        plan_of("--space none --search temperature=1:2 --temperature 4", tmp_path)
