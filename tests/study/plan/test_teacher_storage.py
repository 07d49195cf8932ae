from typing import get_args

import pytest

from study.cli.preview import describe_plan
from study.cli.request import resumed_plan
from study.plan.checks import refuse_differences
from study.plan.notes import describe_teacher_storage
from study.plan.outputs import OutputsDtype
from study.plan.plan import EXECUTION_FIELDS
from study.plan.resolve import load_plan, resolve_plan
from study.plan.teacher_storage import reckon_teacher_storage
from tests.study.factories import make_plan
from trainables.process.errors import UsageError
from trainables.storage.rows import DTYPES
from trainables.storage.rows import OutputsDtype as StoredOutputsDtype

TRAIN, VALIDATION, FEATURE = 1077, 360, 4 * 64


def test_storage_is_reckoned_from_slots_samples_and_the_width_of_the_feature(tmp_path):
    storage = reckon_teacher_storage(make_plan(tmp_path, base={"epochs": 4}))
    assert storage.size == (4 * TRAIN + VALIDATION) * FEATURE * 2
    assert (
        reckon_teacher_storage(make_plan(tmp_path, base={"epochs": 15})).size == (9 * TRAIN + VALIDATION) * FEATURE * 2
    )
    assert reckon_teacher_storage(make_plan(tmp_path, teacher_outputs_dtype="float32")).size == 2 * storage.size
    unaugmented = reckon_teacher_storage(make_plan(tmp_path, overrides={"augmentation": "none"}))
    assert unaugmented.size == (TRAIN + VALIDATION) * FEATURE * 2


@pytest.mark.parametrize("dtype", get_args(OutputsDtype))
def test_a_plan_knows_the_dtypes_of_the_store_and_their_sizes(tmp_path, dtype):
    assert set(get_args(OutputsDtype)) == set(get_args(StoredOutputsDtype))
    size = reckon_teacher_storage(make_plan(tmp_path, teacher_outputs_dtype=dtype)).size
    assert size == (4 * TRAIN + VALIDATION) * FEATURE * DTYPES[dtype].itemsize


def test_passes_are_those_of_the_trials_that_a_teacher_teaches(tmp_path):
    # Trials with a teacher: 5 of the search, 2 promising configs on 2 seeds, and the control kd on 2 seeds.
    storage = reckon_teacher_storage(make_plan(tmp_path, base={"epochs": 4}))
    assert (storage.passes_live, storage.passes_stored, storage.passes_saved) == (11 * 4, 4, 40)


def test_auto_stores_and_says_what_it_takes_and_saves(tmp_path):
    plan = make_plan(tmp_path)
    assert plan.teacher_outputs_used == "stored"
    said = describe_teacher_storage(plan)
    for part in (
        "stored as float16",
        "within the limit of 20.0GiB",
        "2.3MiB",
        "4 teacher passes",
        "instead of 44",
        "40 saved",
    ):
        assert part in said
    assert str(tmp_path / "teacher_outputs") in said


def test_auto_over_the_limit_is_live_and_says_so(tmp_path):
    plan = make_plan(tmp_path, teacher_outputs_limit="1MiB")
    assert plan.teacher_outputs_used == "live"
    assert (
        "outputs live (storing needs 2.3MiB, more than the limit of 1.0MiB): at most 44 teacher passes"
        in describe_teacher_storage(plan)
    )


def test_auto_is_live_where_no_method_is_taught_by_a_teacher(tmp_path):
    plan = make_plan(tmp_path, base={"method": "ce"}, controls=("ce",))
    assert plan.teacher_outputs_used == "live"
    assert "no method of the study uses a teacher" in describe_teacher_storage(plan)
    assert make_plan(tmp_path, base={"method": "ce"}).teacher_outputs_used == "stored"  # for the control kd


def test_what_is_asked_for_is_done(tmp_path):
    assert make_plan(tmp_path, teacher_outputs="live").teacher_outputs_used == "live"
    assert make_plan(tmp_path, teacher_outputs="stored").teacher_outputs_used == "stored"
    with pytest.raises(
        UsageError, match=r"needs 2\.3MiB, more than the limit of 1\.0MiB: raise --teacher-outputs-limit"
    ):
        make_plan(tmp_path, teacher_outputs="stored", teacher_outputs_limit="1MiB")


@pytest.mark.parametrize("method", ["fitnet", "at", "sp", "vid"])
def test_a_method_that_matches_maps_has_its_teacher_live_and_the_plan_says_why(tmp_path, method):
    plan = make_plan(tmp_path, base={"method": method, "epochs": 4})
    assert plan.teacher_outputs_used == "live"
    why = f"{method} cannot run without feature maps of the teacher, which are too large to store"
    said = f"outputs live ({why}): at most 44 teacher passes"
    assert said in describe_teacher_storage(plan)
    assert said in describe_plan(plan, [])
    assert make_plan(tmp_path, base={"method": method}, teacher_outputs="live").teacher_outputs_used == "live"
    with pytest.raises(UsageError, match=rf"because {method} cannot run without.*: leave out --teacher-outputs stored"):
        make_plan(tmp_path, base={"method": method}, teacher_outputs="stored")


def test_a_method_that_trains_the_teacher_has_it_live_and_the_plan_says_why(tmp_path):
    plan = make_plan(tmp_path, space="temperature", base={"method": "full_teacher", "epochs": 4})
    assert plan.teacher_outputs_used == "live"
    said = "outputs live (full_teacher trains the teacher, so its outputs change): at most 44 teacher passes"
    assert said in describe_teacher_storage(plan)
    with pytest.raises(
        UsageError, match=r"because full_teacher trains the teacher.*: leave out --teacher-outputs stored"
    ):
        make_plan(tmp_path, space="temperature", base={"method": "full_teacher"}, teacher_outputs="stored")


def test_a_control_that_matches_maps_has_the_teacher_live_too(tmp_path):
    plan = make_plan(tmp_path, controls=("ce", "at", "sp"))
    assert plan.teacher_outputs_used == "live"
    assert "outputs live (at, sp cannot run without feature maps" in describe_teacher_storage(plan)


def test_mode_and_dtype_belong_to_the_study_limit_and_folder_do_not(tmp_path):
    digest = make_plan(tmp_path).digest
    elsewhere = str(tmp_path / "else")
    assert make_plan(tmp_path, teacher_outputs_limit="4GiB", teacher_outputs_path=elsewhere).digest == digest
    assert make_plan(tmp_path, teacher_outputs_path="s3://bucket/else").digest == digest
    assert make_plan(tmp_path, teacher_outputs_dtype="float32").digest != digest
    assert make_plan(tmp_path, teacher_outputs="live").digest != digest
    assert make_plan(tmp_path, teacher_outputs_limit="1MiB").digest != digest  # live, with other rounding
    with pytest.raises(UsageError, match="teacher_outputs_dtype: the study has 'float16', but 'float32' was given"):
        refuse_differences(make_plan(tmp_path), {"teacher_outputs_dtype": "float32"})


def test_storage_named_by_a_uri_is_shown_without_its_secrets(tmp_path):
    plan = make_plan(tmp_path, teacher_outputs_path="s3://someone:hush@bucket/outputs?scheme=http")
    assert plan.teacher_outputs_location == "s3://someone:hush@bucket/outputs?scheme=http"
    said = describe_teacher_storage(plan)
    assert "s3://***@bucket/outputs?scheme=http, copied to each node" in said
    assert "hush" not in said + plan.save().read_text() + plan.without_secrets().model_dump_json()
    assert make_plan(tmp_path, teacher_outputs_path="/shared/outputs").teacher_outputs_location == "/shared/outputs"


def test_a_resumed_study_asks_again_for_secrets_that_its_plan_did_not_keep(tmp_path):
    make_plan(tmp_path, teacher_outputs_path="s3://someone:hush@bucket/outputs").save()
    with pytest.raises(UsageError, match="give --teacher-outputs-path again"):
        resumed_plan("planned", tmp_path, {})
    again = resumed_plan("planned", tmp_path, {"teacher_outputs_path": "s3://bucket/elsewhere"})
    assert again.teacher_outputs_location == "s3://bucket/elsewhere"


def test_a_resumed_study_keeps_its_source_whatever_the_limit_is_now(tmp_path):
    plan = make_plan(tmp_path, teacher_outputs_limit="1MiB")
    plan.save()
    recorded = load_plan(plan.directory)
    assert recorded == plan
    assert "teacher_outputs_limit" in EXECUTION_FIELDS
    roomier = resolve_plan({**recorded.model_dump(), "teacher_outputs_limit": "1GiB"})
    assert roomier.teacher_outputs_used == "live"
    assert "as decided when the study started" in describe_teacher_storage(roomier)
    make_plan(tmp_path, name="stored").save()
    with pytest.raises(UsageError, match="more than the limit"):
        resumed_plan("stored", tmp_path, {"teacher_outputs_limit": "1MiB"})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"teacher_outputs": "disk"}, "'auto', 'stored' or 'live'"),
        ({"teacher_outputs_dtype": "float64"}, "'float16', 'bfloat16' or 'float32'"),
        ({"teacher_outputs_limit": "plenty"}, "--teacher-outputs-limit: give a number of bytes"),
        ({"teacher_outputs_limit": "-1"}, "--teacher-outputs-limit: give a number of bytes"),
        ({"teacher_outputs_path": "s3:/bucket/outputs"}, "a URI with two slashes, such as s3://BUCKET/FOLDER"),
        ({"teacher_outputs_path": ""}, "give a folder, or a URI"),
    ],
)
def test_bad_values_are_refused_by_name(tmp_path, values, says):
    with pytest.raises(UsageError) as refusal:
        make_plan(tmp_path, **values)
    assert says in str(refusal.value)
