"""Registration of the best student in a real MLflow store: alias, only once, and unchanged when read back."""

import os
import re

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils as tracking

from study.tracking.student import model_name, publish_student, tracking_at
from tests.study.confirmed import GAINS, confirmed_study
from tests.study.factories import make_plan
from tests.trainables.data.conftest import random_images, write_images
from trainables.data import load_dataset
from trainables.process.errors import StudyError
from trainables.students.file import load_student

pytestmark = pytest.mark.study


def folder_plan(tmp_path, place, *, student="cnn_3_4", seed=0):
    """Return the plan of a study on a new image folder at `place`."""
    for label, name in enumerate(("cat", "dog")):
        write_images(tmp_path / place / "train" / name, random_images(6, 1, 8, 8, seed=seed + label))
    base = {"dataset": f"image_folder:{tmp_path / place}", "student": student}
    return make_plan(tmp_path, name="on-a-folder", base=base)


def registered_name(plan):
    """Return the registered name, which contains the dataset digest reported by the study's trials."""
    return model_name(plan, plan.base.student, load_dataset(plan.base.dataset, None).digest)


def test_folders_of_one_name_are_registered_apart_and_one_keeps_its_name_where_it_is_moved_to(tmp_path):
    names = [
        registered_name(folder_plan(tmp_path, place, seed=seed)) for place, seed in (("a/photos", 0), ("b/photos", 9))
    ]
    assert all(re.fullmatch(r"pesfkd-photos-[0-9a-f]{8}-cnn_3_4", name) for name in names)
    assert len(set(names)) == 2
    (tmp_path / "a").rename(tmp_path / "moved")
    assert registered_name(folder_plan(tmp_path, "moved/photos")) == names[0]


def test_a_folder_is_not_registered_as_the_published_dataset_of_its_name(tmp_path):
    published = model_name(make_plan(tmp_path), "cnn_3_4")
    assert published == "pesfkd-digits-cnn_3_4"
    assert registered_name(folder_plan(tmp_path, "digits")) != published
    assert (
        model_name(make_plan(tmp_path, base={"dataset": "glue:sst2", "student": "bert_2_32"}), "bert_2_32")
        == "pesfkd-sst2-bert_2_32"
    )


def test_a_folder_of_any_name_has_a_name_that_mlflow_takes(tmp_path):
    for place in ("hund-ö (1) #5%20", "p" * 240):
        plan = folder_plan(tmp_path, place)
        name = registered_name(plan)
        assert len(name) <= 250
        client, _ = begin_run(plan)
        client.create_registered_model(name)
        assert client.get_registered_model(name).name == name


def test_a_student_that_an_earlier_version_registered_under_another_name_is_not_registered_again(tmp_path, run):
    ledger, result = confirmed_study(tmp_path, run)
    plan = ledger.plan
    client, parent = begin_run(plan)
    client.create_registered_model("pesfkd-digits")
    client.create_model_version(
        "pesfkd-digits", "file:///nowhere", tags={"study_id": plan.study_id, "alias_given": "challenger"}
    )
    published = publish_student(plan, ledger, result, parent_id=parent)
    assert (published["model"], published["alias"]) == ("models:/pesfkd-digits/1", "challenger")


def begin_run(plan):
    """Return an MLflow client and a new run in an experiment."""
    client = MlflowClient(plan.tracking_uri)
    known = client.get_experiment_by_name("e")
    artifacts = (plan.output_dir / "artifacts").as_uri()
    experiment = known.experiment_id if known else client.create_experiment("e", artifact_location=artifacts)
    return client, client.create_run(experiment).info.run_id


def test_a_student_that_beats_the_control_is_champion_and_one_that_does_not_challenger(tmp_path, run):
    ledger, result = confirmed_study(tmp_path, run)
    plan = ledger.plan
    client, parent = begin_run(plan)
    before = mlflow.get_tracking_uri()
    published = publish_student(plan, ledger, result, parent_id=parent)
    assert mlflow.get_tracking_uri() == before
    assert published["alias"] == "champion"
    assert publish_student(plan, ledger, result, parent_id=parent) == published
    first = client.get_model_version_by_alias(model_name(plan, plan.base.student), "champion")
    assert published["model"] == f"models:/{first.name}/{first.version}"
    own = next(entry for entry in ledger.in_stage("confirm") if entry.config.adapter_width != 16)
    assert published["trial_id"] == first.tags["trial_id"] == own.trial_id
    card = plan.directory / "students" / f"{own.trial_id}.md"
    assert published["card"] == str(card)
    assert card.read_text() == first.description

    images = run.dataset.validation.images[:50]
    with tracking_at(plan.tracking_uri):
        served = mlflow.pyfunc.load_model(f"models:/{first.name}@champion")
    np.testing.assert_array_equal(
        served.predict(images.numpy()), load_student(plan.directory / "students" / f"{own.trial_id}.safetensors")
        .logits(images).numpy()
    )  # fmt: skip
    assert served.metadata.metadata == {"class_names": list("0123456789")}
    assert served.metadata.signature.outputs.inputs[0].shape == (-1, 10)

    ledger, result = confirmed_study(tmp_path, run, name="second", gains=[0.05, -0.05] * 3)
    _, parent = begin_run(plan)
    assert publish_student(ledger.plan, ledger, result, parent_id=parent)["alias"] == "challenger"
    assert client.get_model_version_by_alias(model_name(plan, plan.base.student), "champion").version == first.version
    assert len(client.search_model_versions(f"name = '{model_name(plan, plan.base.student)}'")) == 2


def test_a_champion_is_followed_by_a_better_one_only(tmp_path, run):
    # All of them beat kd of the same study. The mean on the test split is 0.825 plus the gain.
    ledger, result = confirmed_study(tmp_path, run)
    plan, name = ledger.plan, model_name(ledger.plan, ledger.plan.base.student)
    client, parent = begin_run(plan)
    first = publish_student(plan, ledger, result, parent_id=parent)
    assert (first["alias"], first["champion"]) == ("champion", None)
    ledger, result = confirmed_study(tmp_path, run, name="worse", gains=[each - 0.01 for each in GAINS])
    assert all(each.clear for each in result.of_first(control="kd"))
    _, parent = begin_run(plan)
    second = publish_student(ledger.plan, ledger, result, parent_id=parent)
    assert second["alias"] == "challenger"
    assert second["champion"] == "version 1 of planned, with mean 0.870 on the test split, here 0.860"
    assert publish_student(ledger.plan, ledger, result, parent_id=parent) == second
    assert client.get_model_version_by_alias(name, "champion").version == 1
    ledger, result = confirmed_study(tmp_path, run, name="better", gains=[each + 0.01 for each in GAINS])
    _, parent = begin_run(plan)
    third = publish_student(ledger.plan, ledger, result, parent_id=parent)
    assert (third["alias"], third["champion"]) == ("champion", None)
    assert third["model"] == f"models:/{name}/3"
    assert client.get_model_version_by_alias(name, "champion").version == 3


def test_a_student_that_is_not_there_is_told_and_registered_nowhere(tmp_path, run):
    ledger, result = confirmed_study(tmp_path, run)
    for path in (ledger.plan.directory / "students").iterdir():
        path.unlink()
    client, parent = begin_run(ledger.plan)
    with pytest.raises(StudyError, match="the best student could not be logged to MLflow: there is no checkpoint file"):
        publish_student(ledger.plan, ledger, result, parent_id=parent)
    assert client.search_model_versions() == []
    (card,) = (ledger.plan.directory / "students").iterdir()  # written whatever happens to the registration
    assert card.read_text().startswith("# cnn_3_4 on digits")


@pytest.mark.parametrize("variable", [None, "sqlite:///of_the_environment.db"])
@pytest.mark.parametrize("own", [None, "sqlite:///of_the_process.db"])
def test_the_tracking_uri_of_the_process_is_as_it_was(tmp_path, monkeypatch, own, variable):
    """MLflow's setter also sets the environment variable, which later studies and processes would read."""
    monkeypatch.setattr(tracking, "_tracking_uri", own)
    if variable is None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    in_effect = mlflow.get_tracking_uri()
    with tracking_at(f"sqlite:///{tmp_path}/other.db"):
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/other.db"
    assert mlflow.get_tracking_uri() == in_effect
    assert os.environ.get("MLFLOW_TRACKING_URI") == variable
