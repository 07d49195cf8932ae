"""Folders in Hugging Face's layout: class order, sharded weights and unusable models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainables.text.pretrained import KINDS, fine_tuned, sentences, written
from trainables.data.text.dataset import TextDataset
from trainables.models import CheckpointError
from trainables.models.pretrained import INDEX, WEIGHTS, folder_digest, load_pretrained, weight_files
from trainables.models.text import TextModelError
from trainables.run.learners import build_network
from trainables.spec.glue import GLUE_TASKS
from trainables.teacher.given_text import read_given_text_teacher

SST2 = GLUE_TASKS["sst2"]


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def swap(folder: Path, target: Path, *names: str) -> Path:
    """Write a copy with the same outputs for two classes in reversed order. `names` are the class names of the copy."""
    shutil.copytree(folder, target)
    weights = load_file(target / WEIGHTS)
    heads = [key for key in weights if key.startswith("classifier.") and weights[key].shape[0] == 2]
    assert len(heads) == 2
    save_file(weights | {key: weights[key].flip(0).contiguous() for key in heads}, target / WEIGHTS)
    if names:
        change_config(target, id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)})
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_classes_in_another_order_give_the_same_logits_where_they_are_named(kind: str, tmp_path: Path) -> None:
    written(kind, tmp_path / "same")
    swapped = swap(tmp_path / "same", tmp_path / "swapped", "POSITIVE", "NEGATIVE")
    unnamed = swap(tmp_path / "same", tmp_path / "unnamed")
    expected, found, other = (
        load_pretrained(folder, num_classes=2, needs_head=True, task=SST2).eval()(sentences(5, 16, 9))
        for folder in (tmp_path / "same", swapped, unnamed)
    )
    assert torch.equal(found, expected)
    assert torch.equal(other, expected.flip(1))
    assert not torch.equal(other, expected)


def test_a_given_teacher_says_how_its_classes_became_those_of_the_task(text: TextDataset, tmp_path: Path) -> None:
    same = fine_tuned(tmp_path / "same", text, id2label={0: "negative", 1: "positive"})
    swapped = swap(same, tmp_path / "swapped", "Positive", "Negative")
    one, other = (read_given_text_teacher(folder, "glue:sst2") for folder in (same, swapped))
    assert one.classes == "classes negative, positive, in this order"
    assert other.classes == "classes reordered by name, from Positive, Negative to negative, positive"
    assert one.identity["weights"] == other.identity["weights"]
    change_config(swapped, id2label={0: "joy", 1: "anger"}, label2id={})
    with pytest.raises(CheckpointError, match=r"swapped has the classes joy, anger, but glue:sst2 has negative, pos"):
        read_given_text_teacher(swapped, "glue:sst2")


def test_weights_that_a_study_fine_tunes_begin_with_the_tasks_classes_and_others_begin_afresh(
    text: TextDataset, tmp_path: Path
) -> None:
    same = fine_tuned(tmp_path / "same", text, id2label={0: "negative", 1: "positive"})
    swapped = swap(same, tmp_path / "swapped", "positive", "negative")
    rows = [build_network(str(folder), text).state_dict()["_head.weight"] for folder in (same, swapped)]
    assert torch.equal(*rows)
    change_config(swapped, id2label={0: "joy", 1: "anger"}, label2id={})
    afresh = build_network(str(swapped), text).state_dict()["_head.weight"]
    assert not torch.equal(afresh, rows[0])
    assert not torch.equal(afresh, rows[0].flip(0))


def shard(folder: Path) -> list[str]:
    """Split a folder's weights into three files and an index, as transformers does. Return the file names."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    places = {key: names[place % 3] for place, key in enumerate(weights)}
    for name in names:
        save_file({key: weights[key] for key in weights if places[key] == name}, folder / name, {"format": "pt"})
    total = sum(each.nbytes for each in weights.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}))
    return names


def test_sharded_weights_are_those_of_one_file(tmp_path: Path) -> None:
    theirs = written("bert", tmp_path)
    inputs = sentences(5, 16, 9)
    expected = load_pretrained(tmp_path, num_classes=2, needs_head=True).eval()(inputs)
    names = shard(tmp_path)
    assert [path.name for path in weight_files(tmp_path)] == names
    assert torch.equal(load_pretrained(tmp_path, num_classes=2, needs_head=True).eval()(inputs), expected)
    before = folder_digest(tmp_path)
    changed = load_file(tmp_path / names[2])
    save_file({key: value + 1 for key, value in changed.items()}, tmp_path / names[2])
    assert folder_digest(tmp_path) != before
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    assert len(weight_files(tmp_path / "theirs")) > 1
    found = load_pretrained(tmp_path / "theirs", num_classes=2, needs_head=True).eval()(inputs)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "model.safetensors.index.json cannot be read"),
        ("[" * 100_000, "model.safetensors.index.json cannot be read"),
        ([], "contains no weight_map"),
        ({"weight_map": {}}, "contains no weight_map"),
        *(
            ({"weight_map": {"a": name}}, "a shard must be a .safetensors file in the same folder")
            for name in ("../x.safetensors", "/x.safetensors", "a/x.safetensors", "a\\x.safetensors", "x.bin", 7, None)
        ),
        (
            {"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}},
            "names missing files: x.safetensors, y.safetensors",
        ),
    ],
)
def test_an_index_that_is_damaged_or_leads_elsewhere_is_refused(content: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(TextModelError, match=says):
        weight_files(tmp_path)


def test_shards_that_are_missing_damaged_or_lack_a_weight_are_named(tmp_path: Path) -> None:
    written("bert", tmp_path)
    first, second, third = shard(tmp_path)
    weights = load_file(tmp_path / first)
    lost = next(iter(weights))
    save_file({key: value for key, value in weights.items() if key != lost}, tmp_path / first)
    with pytest.raises(
        TextModelError, match=rf"{first} lacks {lost}, which model\.safetensors\.index\.json assigns to it"
    ):
        load_pretrained(tmp_path, num_classes=2)
    content = (tmp_path / second).read_bytes()
    (tmp_path / second).write_bytes(content[: len(content) // 2])
    with pytest.raises(TextModelError, match=rf"{second} is not a complete safetensors file"):
        load_pretrained(tmp_path, num_classes=2)
    (tmp_path / third).unlink()
    with pytest.raises(TextModelError, match=rf"names missing files: {third}"):
        load_pretrained(tmp_path, num_classes=2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        # Transformers 5.0 only detects this when the model is built.
        (
            {"max_position_embeddings": "many"},
            "config.json (cannot be read: .*max_position_embeddings|describes a model that cannot be built)",
        ),
        ({"max_position_embeddings": 4}, "the model fails on a sentence of 8 tokens|position_embeddings"),
        ({"vocab_size": -3}, "describes a model that cannot be built"),
        ({"hidden_act": "nothing"}, "describes a model that cannot be built"),
        ({"num_labels": "z"}, "config.json"),
        ({"id2label": [1, 2]}, "config.json"),
    ],
)
def test_a_configuration_of_nonsense_is_refused_in_words(
    text: TextDataset, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    folder = fine_tuned(tmp_path, text)
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=says):
        read_given_text_teacher(folder, "glue:sst2")
