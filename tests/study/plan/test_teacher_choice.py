"""Teachers given to a study: checked before any work, identified by digest, needed only once."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from study.cli.start_command import start_command
from study.launch import main
from study.plan.checks import check_space_fits_method
from study.plan.resolve import load_plan
from study.plan.teacher_choice import (
    check_same_teacher,
    choose_teacher,
    describe_teacher,
    keep_teacher,
    parse_normalisation,
)
from study.records import read_trials
from tests.study.factories import make_plan
from tests.study.inspection import assert_whole
from tests.study.processes import kill, start_study, wait_for_trials
from trainables.data import load_dataset
from trainables.data.views import Normaliser
from trainables.models import CheckpointInfo, build_model, save_model
from trainables.models.taken_weights import TakenWeights
from trainables.process.errors import StudyError, UsageError
from trainables.teacher.files import is_kept, stored_path
from trainables.tune.tasks import fill_teacher_outputs, prepare_teacher

NOTHING = {
    "teacher_checkpoint": None, "teacher_normalisation": None, "teacher_weights": None, "dataset": "digits",
    "teacher_recipe": "short", "teacher_epochs": None,
}  # fmt: skip


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_model("cnn_4_6", num_classes=10, in_channels=1)


@pytest.fixture
def ours(network, tmp_path):
    path = tmp_path / "given" / "teacher.safetensors"
    path.parent.mkdir()
    save_model(network, path, metadata=CheckpointInfo("cnn_4_6", 10, 1, (0.3,), (0.4,), "feed").to_metadata())
    return path


@pytest.fixture
def foreign(network, tmp_path):
    path = tmp_path / "foreign.pth"
    torch.save({"model": network.state_dict()}, path)
    return path


@pytest.fixture
def averaged(network, tmp_path):
    """Checkpoint with raw weights and averaged weights, which are different networks."""
    path = tmp_path / "averaged.pth"
    raw = network.state_dict()
    average = {key: 0.75 * value if value.is_floating_point() else value for key, value in raw.items()}
    torch.save({"state_dict": raw, "state_dict_ema": average, "epoch": 3}, path)
    return path


GIVEN_AVERAGED = {"teacher": "cnn_4_6", "teacher_normalisation": "0.3/0.4"}


def choose(**given):
    return choose_teacher({**NOTHING, **given}, given)


@pytest.fixture
def plan(ours, tmp_path):
    chosen = choose(teacher_checkpoint=ours)
    return make_plan(tmp_path / "out", **{**chosen, "base": chosen["base"]})


def test_without_a_checkpoint_a_study_trains_its_teacher(tmp_path):
    assert choose() == {}
    plan = make_plan(tmp_path)
    assert (plan.base.teacher_recipe, plan.base.teacher_epochs, plan.base.teacher_digest) == ("short", 30, "")
    assert describe_teacher(plan) == "cnn_32_64, trained by recipe short for 30 epochs"
    literature = make_plan(tmp_path, base={"teacher_recipe": "literature"})
    assert literature.base.teacher_epochs == 240
    assert literature.digest != plan.digest


def test_the_plan_says_what_a_given_teacher_is_and_where_it_was(plan, ours):
    assert plan.base.teacher == "cnn_4_6"
    assert plan.base.teacher_recipe == "checkpoint"
    assert len(plan.base.teacher_digest) == 16
    assert plan.teacher_normalisation == ((0.3,), (0.4,))
    assert str(ours) in describe_teacher(plan)
    assert "means 0.3 / standard deviations 0.4" in describe_teacher(plan)
    plan.save()
    assert load_plan(plan.directory) == plan


def test_the_same_teacher_from_elsewhere_is_the_same_study_and_another_is_not(plan, foreign, tmp_path):
    for normalisation, same in (("0.3/0.4", True), ("0.3/0.5", False)):
        chosen = choose(teacher_checkpoint=foreign, teacher="cnn_4_6", teacher_normalisation=normalisation)
        assert (make_plan(tmp_path / "out", **chosen).digest == plan.digest) is same


@pytest.fixture
def second(tmp_path):
    path = tmp_path / "second.safetensors"
    torch.manual_seed(1)
    model = build_model("cnn_3_8", num_classes=10, in_channels=1)
    save_model(model, path, metadata=CheckpointInfo("cnn_3_8", 10, 1, (0.1,), (0.7,), "feed").to_metadata())
    return path


def test_several_checkpoints_are_one_teacher_known_by_its_digest(ours, second, tmp_path, monkeypatch):
    both = Path(f"{ours},{second}")
    chosen = choose(teacher_checkpoint=both)
    plan = make_plan(tmp_path / "out", **chosen)
    assert plan.base.teacher == "cnn_4_6+cnn_3_8"
    assert describe_teacher(plan) == (
        f"mean probability of cnn_4_6 and cnn_3_8 from {both} (digest {plan.base.teacher_digest}), each with its own "
        "normalisation"
    )
    command = start_command(plan)
    assert "--teacher cnn_4_6+cnn_3_8 --epochs" in command
    assert f"--teacher-checkpoint {both}" in command
    assert "--teacher-normalisation" not in command
    plan.save()
    assert load_plan(plan.directory) == plan
    keep_teacher(plan)
    assert is_kept(plan.teachers_folder, plan.base.teacher_digest)
    assert check_same_teacher(plan, {"teacher_checkpoint": both})["teacher_checkpoint"] == both
    with pytest.raises(UsageError, match="the architecture is 'cnn_3_8', but 'cnn_4_6' is needed"):
        check_same_teacher(plan, {"teacher_checkpoint": Path(f"{second},{ours}")})
    with pytest.raises(UsageError, match="--teacher-weights is for a single checkpoint"):
        check_same_teacher(plan, {"teacher_weights": "ema"})
    monkeypatch.chdir(tmp_path)
    relative = Path("given/teacher.safetensors, second.safetensors")
    assert choose(teacher_checkpoint=relative, teacher="cnn_4_6+cnn_3_8") == chosen


def test_a_path_with_a_comma_is_one_checkpoint_if_it_exists(ours, tmp_path):
    odd = tmp_path / "a,b.safetensors"
    odd.write_bytes(ours.read_bytes())
    assert choose(teacher_checkpoint=odd)["base"]["teacher"] == "cnn_4_6"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"teacher_checkpoint": "{0},{0}"}, "contain the same teacher: name it once"),
        ({"teacher_checkpoint": "{0},"}, "a name between two commas is empty; give A,B,C"),
        ({"teacher_checkpoint": "{0},{1},nowhere.pt"}, "there is no checkpoint file 'nowhere.pt'"),
        ({"teacher_checkpoint": "{0},{1},{0},{1},{0},{1}"}, "6 checkpoints are given; an ensemble has at most 5"),
        ({"teacher_checkpoint": "{0},{1}", "teacher": "cnn_4_6"}, "name as many architectures, as in resnet20+resnet2"),
        ({"teacher_checkpoint": "{0},{1}", "teacher": "cnn_4_6+cnn_4_6"}, "the architecture is 'cnn_3_8', but 'cnn_4"),
        ({"teacher_checkpoint": "{0},{1}", "teacher_weights": "ema"}, "--teacher-weights is for a single checkpoint"),
        (
            {"teacher_checkpoint": "{0},{1}", "teacher_normalisation": "0/1"},
            "--teacher-normalisation is for a single checkpoint",
        ),
        ({"teacher_checkpoint": "{0},{1}", "dataset": "glue:sst2"}, "an ensemble of teachers is for images"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(given, says, ours, second):
    path = Path(given["teacher_checkpoint"].format(ours, second))
    with pytest.raises(UsageError) as refusal:
        choose(**{**given, "teacher_checkpoint": path})
    assert says in str(refusal.value)


@pytest.mark.parametrize(("space", "fits"), [("adapter_training", False), ("joint", False), ("adapter_width", True)])
def test_a_space_with_an_adapter_that_an_ensemble_cannot_take_is_refused(space, fits, ours, second, tmp_path):
    plan = make_plan(tmp_path / "out", space=space, **choose(teacher_checkpoint=Path(f"{ours},{second}")))
    if fits:
        check_space_fits_method(plan)
        return
    with pytest.raises(UsageError, match=r"tries adapter_kind 'feature'.*choose another space, such as adapter_width"):
        check_space_fits_method(plan)


FOREIGN = {"teacher_checkpoint": "foreign", "teacher": "cnn_4_6"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"teacher_normalisation": "0.5/0.5"}, "--teacher-normalisation needs a teacher from --teacher-checkpoint"),
        ({"teacher_weights": "ema"}, "--teacher-weights needs a teacher from --teacher-checkpoint"),
        ({"teacher_checkpoint": "ours", "teacher_weights": "ema"}, "but raw weights: leave out --teacher-weights"),
        ({"teacher_checkpoint": "foreign", "teacher": "resnet18"}, "did you mean 'torchvision:resnet18'"),
        ({**FOREIGN, "teacher": "resnet8"}, "the weights fit --teacher cnn_4_6"),
        ({"teacher_checkpoint": "ours", "teacher_epochs": 3}, "leave out one of the two"),
        ({"teacher_checkpoint": "ours", "teacher_recipe": "short"}, "--teacher-recipe is for training a teacher"),
        ({"teacher_checkpoint": "ours", "teacher": "cnn_9_9"}, "architecture is 'cnn_4_6', but 'cnn_9_9' is needed"),
        (
            {"teacher_checkpoint": "ours", "teacher_normalisation": "0.5/0.5"},
            "contains the normalisation of its training images",
        ),
        ({"teacher_checkpoint": "foreign"}, "name it (--teacher MODEL); the weights fit --teacher cnn_4_6"),
        (FOREIGN, "--teacher-normalisation MEANS/STDS"),
        ({**FOREIGN, "teacher": "cnn_4_7", "teacher_normalisation": "0/1"}, "cnn_4_7 for digits"),
        (
            {"teacher_checkpoint": "foreign", "teacher": "cnn_4", "teacher_normalisation": "0/1"},
            "unknown model 'cnn_4'",
        ),
        (
            {"teacher_checkpoint": "foreign", "teacher": "cnn_4_6", "teacher_normalisation": "0.5"},
            "give means, a slash",
        ),
        *(
            ({**FOREIGN, "teacher_normalisation": bad}, "deviations between 0.001 and 10")
            for bad in ("0.5/0", "0.5/-1", "0.5/nan", "nan/0.5", "0.5/inf", "-inf/0.5", "0.5/1e-300", "0.5/1e400")
        ),
        (
            {"teacher_checkpoint": "foreign", "teacher": "cnn_4_6", "teacher_normalisation": "127/64"},
            "pixels in [0, 1]",
        ),
        ({"teacher_checkpoint": "gone"}, "no checkpoint file"),
    ],
)
def test_what_does_not_fit_is_refused(ours, foreign, tmp_path, options, says):
    paths = {"ours": ours, "foreign": foreign, "gone": tmp_path / "gone.pth"}
    if "teacher_checkpoint" in options:
        options = {**options, "teacher_checkpoint": paths[options["teacher_checkpoint"]]}
    with pytest.raises(UsageError) as refusal:
        choose(**options)
    assert says in str(refusal.value)


def test_a_normalisation_is_read_as_it_is_written():
    found = parse_normalisation("0.5071,0.4867,0.4408/0.2675,0.2565,0.2761")
    assert found == ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def test_a_teacher_is_copied_and_its_checkpoint_not_needed_again(plan, ours):
    keep_teacher(plan)
    assert is_kept(plan.teachers_folder, plan.base.teacher_digest)
    ours.unlink()
    keep_teacher(plan)


def test_a_copy_that_is_damaged_is_made_again(plan):
    keep_teacher(plan)
    path = stored_path(plan.teachers_folder, plan.base.teacher_digest)
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    keep_teacher(plan)
    assert path.read_bytes() == content


def test_a_study_whose_teacher_is_nowhere_or_has_changed_says_so(plan, ours, network):
    network.head.bias.data += 1
    save_model(network, ours, metadata=CheckpointInfo("cnn_4_6", 10, 1, (0.3,), (0.4,), "feed").to_metadata())
    with pytest.raises(StudyError, match="has changed: its digest is"):
        keep_teacher(plan)
    ours.unlink()
    with pytest.raises(StudyError, match="copy of the teacher is missing, and the original cannot be read"):
        keep_teacher(plan)


def test_at_a_resume_the_checkpoint_may_have_moved_but_not_changed(plan, ours, foreign, network, tmp_path):
    assert check_same_teacher(plan, {}) == {}
    moved = ours.rename(tmp_path / "moved.safetensors")
    plain = TakenWeights("raw", "")
    changed = {"teacher_checkpoint": moved, "teacher_weights": plain}
    assert check_same_teacher(plan, {"teacher_checkpoint": moved}) == changed
    as_pth = {"teacher_checkpoint": foreign, "teacher_normalisation": "0.3/0.4"}
    changed = {"teacher_checkpoint": foreign, "teacher_weights": TakenWeights("raw", "model")}
    assert check_same_teacher(plan, as_pth) == changed
    assert check_same_teacher(plan, {"teacher_checkpoint": foreign}) == changed  # normalisation of the plan
    with pytest.raises(UsageError, match="has another teacher: the digest of"):
        check_same_teacher(plan, {**as_pth, "teacher_normalisation": "0.3/0.5"})
    with pytest.raises(UsageError, match="trained its own teacher"):
        check_same_teacher(make_plan(tmp_path), {"teacher_checkpoint": moved})


def test_a_dry_run_shows_the_teacher_and_writes_nothing(launch, ours, tmp_path):
    done = launch(
        "--space", "joint", "--teacher-checkpoint", ours, "--dry-run", "--output-dir", tmp_path / "out"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"cnn_4_6 from {ours} (digest" in done.stdout
    assert "cnn_4_6 -> cnn_3_4 on digits" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("asked", "place"), [(None, "state_dict"), ("raw", "state_dict"), ("ema", "state_dict_ema")])
def test_the_plan_names_the_weights_that_were_taken_and_the_others(averaged, asked, place, command, tmp_path):
    words = ["--space", "joint", "--teacher", "cnn_4_6", "--teacher-normalisation", "0.3/0.4"]
    words += ["--teacher-checkpoint", averaged, "--dry-run", "--output-dir", tmp_path / "out"]
    words += ["--teacher-weights", asked] if asked else []
    kinds = {"state_dict": "raw", "state_dict_ema": "EMA"}
    other = next(each for each in kinds if each != place)
    done = command(main, *words)
    assert done.code == 0, done.said
    assert (
        f"{kinds[place]} weights under '{place}'; the file also has {kinds[other]} weights under '{other}'" in done.out
    )
    assert f"(--teacher-weights {kinds[other].lower()})" in done.out
    planned = json.loads(command(main, *words, "--json").out)["plan"]
    others = [{"kind": kinds[other].lower(), "place": other}]
    assert planned["teacher_weights"] == {"kind": kinds[place].lower(), "place": place, "others": others}
    chosen = choose(teacher_checkpoint=averaged, **GIVEN_AVERAGED, **({"teacher_weights": asked} if asked else {}))
    assert planned["base"]["teacher_digest"] == chosen["base"]["teacher_digest"]
    plan = make_plan(tmp_path / "out", **chosen)
    assert f"--teacher-weights {kinds[place].lower()}" in start_command(plan)
    assert f"{kinds[place]} weights under '{place}'" in describe_teacher(plan)


def test_raw_weights_and_their_average_are_two_teachers_and_a_resume_keeps_to_its_own(averaged, foreign, tmp_path):
    raw, ema = (
        make_plan(tmp_path / kind, **choose(teacher_checkpoint=averaged, teacher_weights=kind, **GIVEN_AVERAGED))
        for kind in ("raw", "ema")
    )
    assert raw.base.teacher_digest != ema.base.teacher_digest
    assert raw.digest != ema.digest
    for plan, place in ((raw, "state_dict"), (ema, "state_dict_ema")):
        plan.save()
        assert load_plan(plan.directory) == plan
        assert check_same_teacher(plan, {"teacher_checkpoint": averaged})["teacher_weights"].place == place
        keep_teacher(plan)
        stored_path(plan.teachers_folder, plan.base.teacher_digest).unlink()
        keep_teacher(plan)  # copied from the checkpoint again
    # A file with only the raw weights fits the study of the raw weights.
    assert check_same_teacher(raw, {"teacher_checkpoint": foreign})["teacher_weights"] == TakenWeights("raw", "model")
    for plan, given in ((ema, {"teacher_checkpoint": foreign}), (raw, {"teacher_weights": "ema"})):
        with pytest.raises(UsageError, match="has another teacher: the digest of"):
            check_same_teacher(plan, given)


def test_a_plan_from_before_there_was_a_choice_of_weights_keeps_its_digest(averaged, tmp_path):
    plan = make_plan(tmp_path, **choose(teacher_checkpoint=averaged, **GIVEN_AVERAGED))
    older = plan.model_copy(update={"teacher_weights": None})
    assert older.digest == plan.digest
    assert "weights under" not in describe_teacher(older)
    assert check_same_teacher(older, {"teacher_checkpoint": averaged})["teacher_weights"].kind == "raw"


def test_a_checkpoint_that_does_not_fit_is_refused_before_any_work(launch, tmp_path):
    path = tmp_path / "cifar.safetensors"
    model = build_model("cnn_4_6", num_classes=100, in_channels=3)
    save_model(model, path, metadata=CheckpointInfo("cnn_4_6", 100, 3, (0.5,) * 3, (0.25,) * 3, "feed").to_metadata())
    done = launch("--space", "joint", "--teacher-checkpoint", path, "--output-dir", tmp_path / "out")
    assert done.returncode == 2
    assert "number of classes is 100, but 10 is needed for digits" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_trials_hear_the_given_teacher_as_it_knows_its_images(plan, network, tmp_path):
    config = plan.configure(plan.search_space.default_point()).model_dump(mode="json")
    keep_teacher(plan)
    prepared = prepare_teacher(config, None, str(plan.teachers_folder))
    assert "trained on other data" in prepared.notes[-1]
    outputs = {"location": str(tmp_path / "outputs"), "dtype": "float32"}
    settings = {
        "config": config, "data_root": None, "teacher_path": prepared.path, "teacher_outputs": outputs, "device": "cpu"
    }  # fmt: skip
    looked = fill_teacher_outputs(settings)
    fill_teacher_outputs(settings, looked.missing)
    (path,) = (tmp_path / "outputs").glob("*/validation.arrow")
    rows = b"".join(pa.ipc.open_file(path).read_all().column("feature").to_pylist())
    images = Normaliser((0.3,), (0.4,), torch.device("cpu"))(load_dataset("digits", None).validation.images)
    with torch.no_grad():
        expected = network.eval().features(images)
    found = torch.frombuffer(bytearray(rows), dtype=torch.float32).view(expected.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_killed_study_of_a_given_teacher_goes_on_without_the_checkpoint(launch, averaged, tmp_path):
    output_dir = tmp_path / "out"
    directory = output_dir / "given"
    process = start_study(
        "--space", "adapter_width", "--trials", "3", "--promising", "1", "--replicates", "1", "--epochs", "8",
        "--teacher", "cnn_4_6", "--teacher-checkpoint", averaged, "--teacher-weights", "ema",
        "--teacher-normalisation", "0.1/0.7", "--name", "given", "--output-dir", output_dir,
        "--executor", "in-process",
    )  # fmt: skip
    wait_for_trials(process, directory, 12, timeout=240)
    kill(process)
    averaged.unlink()
    done = launch("--resume", "given", "--output-dir", output_dir, "--json")
    assert done.returncode == 0, done.stderr
    assert_whole(directory)
    digest = load_plan(directory).base.teacher_digest
    said = json.loads(done.stdout)["teacher"]
    assert said == {"architecture": "cnn_4_6", "recipe": "checkpoint", "epochs": None, "digest": digest}
    trials = read_trials(directory)
    assert set(trials["teacher_digest"].to_pylist()) == {digest}
    assert set(trials["teacher_recipe"].to_pylist()) == {"checkpoint"}
    assert "the training data of the teacher are unknown" in done.stderr
    taken = "EMA weights under 'state_dict_ema'; the file also has raw weights under 'state_dict'"
    assert taken in " ".join(done.stderr.split())
