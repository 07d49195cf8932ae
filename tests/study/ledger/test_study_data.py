"""Studies on image folders that change or disappear. The information in the journal is used."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest

from study.confirm import main as confirm_main
from study.export import main as export_main
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.ledger.students import first_confirmed, student_path
from study.ledger.study_data import data_of, described
from study.plan.resolve import load_plan
from study.rerun import main as rerun_main
from study.sync import main as sync_main
from study.tracking.student_card import card_path
from tests.study.confirmed import confirmed_study
from tests.study.factories import make_plan
from tests.trainables.data.conftest import random_images, write_images
from trainables.costs.epoch import run_epoch
from trainables.data import load_dataset
from trainables.data.image_folder import list_image_folder
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.study

CLASSES = ("cat", "dog", "hen")


def write_folder(path, classes=CLASSES, count=10):
    """Write an image folder and return the dataset's name."""
    for label, name in enumerate(classes):
        write_images(path / name, random_images(count, 1, 8, 8, seed=label))
    list_image_folder.cache_clear()
    return f"image_folder:{path}"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return the ledger of a confirmed study on an image folder named `photos`. A trial has recorded the dataset."""
    tmp_path = tmp_path_factory.mktemp("study")
    base = {"dataset": write_folder(tmp_path / "photos")}
    data = load_dataset(base["dataset"], None)
    run = DistillationRun(TrialConfig(method="ce", epochs=1, **base), data, None)
    run_epoch(run)
    ledger, _ = confirmed_study(tmp_path, run, base=base, gains=(0.03, 0.05))
    sizes = {"train": len(data.train), "validation": len(data.validation)}
    ledger.record_dataset(described(ledger.plan, {"digest": data.digest, **sizes}))
    ledger.plan.save()
    return ledger


@contextmanager
def missing_folder(path):
    """Context in which the folder is missing."""
    elsewhere = path.rename(path.with_name("elsewhere"))
    list_image_folder.cache_clear()
    yield
    elsewhere.rename(path)
    list_image_folder.cache_clear()


def test_a_study_is_exported_and_delivered_when_its_images_are_gone(study, command):
    folder = study.plan.output_dir
    with missing_folder(folder / "photos"):
        exported = command(export_main, "planned", "--output-dir", folder, "--json")
        delivered = command(sync_main, "planned", "--output-dir", folder)
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["class_names"] == list(CLASSES)
    assert delivered.code == 0, delivered.err
    entry = first_confirmed(study)
    card = card_path(student_path(study.plan, entry.trial_id)).read_text(encoding="utf-8")
    assert "Takes uint8 images (batch, 1, 8, 8)" in card
    assert "in the order of the logits: cat, dog, hen." in card
    assert "3 classes; 24, 3, 3 images to train, validate and test" in card


@pytest.mark.parametrize(
    ("main", "arguments"),
    [(launch_main, ("--resume", "planned")), (confirm_main, ("planned",)), (rerun_main, ("planned-0000",))],
)
def test_what_needs_the_images_says_that_they_are_gone(study, command, main, arguments):
    folder = study.plan.output_dir
    with missing_folder(folder / "photos"):
        done = command(main, *arguments, "--output-dir", folder)
    assert done.code == 2
    assert done.err.startswith(f"error: {folder}/photos: an image folder needs images in ")


def test_classes_and_sizes_are_those_of_the_trials_when_the_folder_has_changed_since(study):
    known = data_of(study.plan, study.dataset)
    assert (known.class_names, known.split_sizes) == (CLASSES, (24, 3, 3))
    with missing_folder(study.plan.output_dir / "photos"):
        write_folder(study.plan.output_dir / "photos", ("ant", *CLASSES))
        again = StudyLedger(study.plan, read_only=True)
        assert not again.damage
        assert data_of(study.plan, again.dataset) == known
        assert data_of(study.plan, None).class_names == ("ant", *CLASSES)
        shutil.rmtree(study.plan.output_dir / "photos")


def test_a_validation_split_that_was_smaller_than_planned_counts_as_it_was(tmp_path):
    plan = make_plan(tmp_path, base={"dataset": "glue:rte", "student": "bert_2_32", "teacher": "bert_2_32"})
    planned = data_of(plan, None)
    recorded = described(plan, {"digest": "0", "train": 2_245, "validation": 245, "sources": 9})
    assert recorded.keys() == {"digest", "train", "validation", "sources"}
    assert data_of(plan, recorded) == replace(planned, split_sizes=(2_245, 245, 277))


def test_a_plan_is_read_without_its_images(tmp_path):
    plan = make_plan(tmp_path, base={"dataset": write_folder(tmp_path / "photos")})
    plan.save()
    with missing_folder(tmp_path / "photos"):
        assert load_plan(plan.directory) == plan
        assert load_plan(plan.directory).teacher_outputs_used == "stored"
