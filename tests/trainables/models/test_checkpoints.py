import argparse
import collections
import datetime
import enum
import functools
import logging
import os
import pathlib
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from tests.trainables.models.nets import build
from trainables.models import (
    CheckpointError,
    CheckpointInfo,
    build_model,
    load_checkpoint,
    read_metadata,
    save_model,
)

pytestmark = pytest.mark.study

INFO = CheckpointInfo("resnet8", 10, 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.25), "0123abcd")


@pytest.fixture
def trained():
    model = build(seed=1)
    model(torch.randn(8, 3, 16, 16))  # changes the running statistics from their initial values
    return model


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def prefixed(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


LAYOUTS = {
    "bare": lambda state: state,
    "bare, with module.": lambda state: prefixed("module.", state),
    "bare, compiled and parallel": lambda state: prefixed("module._orig_mod.", state),
    "RepDistiller, epoch": lambda state: {
        "epoch": 240,
        "model": state,
        "accuracy": torch.tensor([72.3]),
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(5e-5), "params": [0]}]},
    },
    "RepDistiller, last": lambda state: {
        "opt": argparse.Namespace(model="resnet8", lr_decay_epochs=[150, 180, 210]),
        "model": state,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": []},
    },
    "state_dict, with module.": lambda state: {
        "state_dict": prefixed("module.", state),
        "best_acc": np.float32(7),
    },
    "mdistiller, student": lambda state: {"model": state},
    "mdistiller, vanilla": lambda state: {
        "epoch": 1,
        "best_acc": -1,
        "model": prefixed("module.student.", state),
    },
    "mdistiller, distiller": lambda state: {
        "best_acc": torch.tensor([60.0]),
        "model": {
            **prefixed("module.student.", state),
            **prefixed("module.teacher.", build("vgg8").state_dict()),
            "module.conv_reg.weight": torch.zeros(1),
        },
    },
    "distiller, not parallel": lambda state: prefixed("student.", state),
    "with counts and history": lambda state: {**state, "epoch": 3, "history": np.zeros(3)},
    "half precision": lambda state: {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    },
    "before torch 0.4.1": lambda state: {
        key: value for key, value in state.items() if not key.endswith("num_batches_tracked")
    },
}
EXACT = [name for name in LAYOUTS if name not in ("half precision", "before torch 0.4.1")]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("layout", EXACT)
def test_every_known_layout_gives_back_the_weights(layout, zipped, trained, tmp_path):
    path = tmp_path / "latest"
    content = LAYOUTS[layout](trained.state_dict())
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    model = build()
    load_checkpoint(model, path)
    assert same(model, trained)


@pytest.mark.parametrize("layout", ["half precision", "before torch 0.4.1"])
def test_what_a_layout_does_not_keep_is_all_that_differs(layout, trained, tmp_path):
    path = tmp_path / "old.pth.tar"
    torch.save(LAYOUTS[layout](trained.state_dict()), path)
    model = build()
    load_checkpoint(model, path)
    for key, value in trained.state_dict().items():
        if value.is_floating_point():
            assert model.state_dict()[key].dtype == torch.float32
            assert torch.allclose(model.state_dict()[key], value, rtol=1e-3, atol=1e-6), key


def test_of_a_distillers_checkpoint_that_half_is_taken_which_fits(trained, tmp_path):
    path = tmp_path / "latest"
    torch.save(LAYOUTS["mdistiller, distiller"](trained.state_dict()), path)
    for part in ("teacher", "student"):
        teacher = build("vgg8", seed=5)
        assert load_checkpoint(teacher, path, part=part).place == "model.teacher"
        assert same(teacher, build("vgg8", seed=0))


def test_of_a_distiller_with_two_equal_nets_the_preferred_half_is_taken_and_both_are_named(trained, tmp_path):
    path = tmp_path / "latest"
    halves = {"teacher": build(seed=3), "student": trained}
    torch.save(
        {"model": {k: v for n, m in halves.items() for k, v in prefixed(f"module.{n}.", m.state_dict()).items()}}, path
    )
    for part, net in halves.items():
        model = build()
        taken = load_checkpoint(model, path, part=part)
        assert same(model, net)
        (other,) = halves.keys() - {part}
        assert str(taken) == (
            f"raw weights under 'model.{part}'; the file also has raw weights under 'model.{other}' "
            f"(--teacher-weights model.{other})"
        )
        load_checkpoint(model, path, part=part, wanted=f"model.{other}")
        assert same(model, halves[other])


def test_our_own_format_gives_back_weights_and_what_rebuilds_them(trained, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_model(trained, path, metadata=INFO.to_metadata())
    info = CheckpointInfo.from_metadata(read_metadata(path))
    assert info == INFO
    model = build_model(info.architecture, num_classes=info.num_classes, in_channels=info.in_channels)
    load_checkpoint(model, path)
    assert same(model, trained)


def test_any_metadata_of_strings_can_be_stored(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(trained, path, metadata={"note": "naïve", "epochs": "3"})
    assert read_metadata(path) == {"note": "naïve", "epochs": "3"}
    with pytest.raises(CheckpointError, match=r"architecture.*python -m trainables\.teacher"):
        CheckpointInfo.from_metadata(read_metadata(path))


def test_the_same_model_is_saved_as_weights_in_any_memory_layout(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(trained.to(memory_format=torch.channels_last), path, metadata={})
    model = build()
    load_checkpoint(model, path)
    assert same(model, trained)


def test_safetensors_of_other_people_are_read(trained, tmp_path):
    path = tmp_path / "converted.safetensors"
    save_file(trained.state_dict(), path)
    model = build()
    load_checkpoint(model, path)
    assert same(model, trained)


def test_a_crash_while_saving_leaves_the_old_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_model(trained, path, metadata=INFO.to_metadata())
    before = path.read_bytes()

    def crash(_descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        save_model(build(seed=9), path, metadata=INFO.to_metadata())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_of_ours_is_refused(damage, trained, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(trained, path, metadata=INFO.to_metadata())
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content[:-100] if damage == "cut" else content)
    model = build()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint(model, path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_metadata(path)
    assert same(model, build())


def test_models_are_saved_under_the_suffix_by_which_they_are_read(trained, tmp_path):
    with pytest.raises(CheckpointError, match=r"saved as \.safetensors"):
        save_model(trained, tmp_path / "model.pth", metadata={})


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NO_CHECKPOINTS = {
    "nothing": (b"", "is empty"),
    "text": (b"hello world", "not a torch checkpoint"),
    "a cut archive": (b"PK\x03\x04 cut short", "not a torch checkpoint"),
    "a pointer": (POINTER, "git lfs pull"),
    "a page": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
    "an index": (b'{"metadata": {}, "weight_map": {}}', "is JSON text"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "gunzip or tar -xzf"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "a short pickle": (b"\x80\x02}q\x00.", "not a torch checkpoint"),
    "a negative memo": (b"\x80\x02}r\xff\xff\xff\xff.", "not a torch checkpoint"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_refused_with_what_it_is(name, suffix, tmp_path):
    content, says = NO_CHECKPOINTS[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"model{suffix}") as refusal:
        load_checkpoint(build(), path)
    if suffix == ".pth" or name in ("nothing", "a pointer", "a page"):
        assert says in str(refusal.value)
    else:
        assert "no" in str(refusal.value)


def test_archives_that_hold_no_weights_are_refused_with_what_they_hold(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("photos/cat.png", b"no weights")
    with pytest.raises(CheckpointError, match=r"zip archive without torch\.save weights .*cat\.png"):
        load_checkpoint(build(), tmp_path / "photos.pth")
    with tarfile.open(tmp_path / "run.tar", "w") as archive:
        archive.add(tmp_path / "photos.pth", "model.pth")
    with pytest.raises(CheckpointError, match="tar -xf"):
        load_checkpoint(build(), tmp_path / "run.tar")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(build(), tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint file .*nowhere\.pth"):
        load_checkpoint(build(), tmp_path / "nowhere.pth")


def test_a_file_without_weights_says_what_it_has(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"epoch": 3, "log": [1.0]}, path)
    with pytest.raises(CheckpointError, match=r"it contains no weights \(it has epoch, log\)"):
        load_checkpoint(build(), path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CheckpointError, match="contains a list"):
        load_checkpoint(build(), path)


class RunsCode:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


class Plain:
    pass


class Slotted:
    __slots__ = ("value",)


class Settings(dict):
    pass


class Mode(enum.Enum):
    TRAIN = "train"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_would_run_commands_is_refused_and_runs_nothing(zipped, trained, tmp_path):
    victim = tmp_path / "written by the attacker"
    calls = (
        (os.system, (f"touch '{victim}'",)),
        (eval, (f"open({str(victim)!r}, 'w')",)),
        (os.mkdir, (str(victim),)),
        (subprocess.run, (["touch", str(victim)],)),
    )
    path = tmp_path / "model.pth"
    model = build()
    for call in calls:
        content = {"model": trained.state_dict(), "opt": RunsCode(call)}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r"would call .*nothing was run"):
            load_checkpoint(model, path)
        assert not victim.exists()
    assert same(model, build())


@pytest.mark.parametrize("zipped", [True, False])
def test_any_other_call_or_object_beside_the_weights_is_left_unread(zipped, trained, tmp_path):
    victim = tmp_path / "written by the attacker"
    slotted = Slotted()
    slotted.value = 1
    besides = (
        RunsCode((np.save, (str(victim), 1))),
        RunsCode((logging.FileHandler, (str(victim),))),
        Plain(),
        slotted,
        Settings(a=1),
        {Mode.TRAIN: 1},
        collections.defaultdict(list, {"a": [1.0]}),
        collections.deque([1, 2], maxlen=5),
        functools.partial(print, 1),
        pathlib.PurePosixPath("/data"),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        torch.device("cuda:0"),
        np.random.default_rng(0),
        np.arange(3.0),
        np.float64(1),
    )
    path = tmp_path / "model.pth"
    for each in besides:
        content = {"model": trained.state_dict(), "other": each}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        model = build()
        assert load_checkpoint(model, path).place == "model", each
        assert same(model, trained)
        assert not victim.exists()


def test_stand_ins_are_gone_when_the_file_is_read(trained, tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": trained.state_dict(), "args": argparse.Namespace(lr=0.1)}, path)
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(build(), path)
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_module_that_names_itself_as_its_child_ends(tmp_path, trained):
    trained.layer1.own = trained.layer1
    content = {"net": trained}
    content["again"] = content
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_checkpoint(build(), tmp_path / "model.pth")


def test_a_checkpoint_of_another_architecture_is_refused_by_its_first_keys(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(build("wrn_16_2").state_dict(), path)
    model = build()
    expected = (
        r"lacks layer1\..* more; it has in addition block1\.layer\.0\.bn1.* more.*the weights fit --teacher wrn_16_2"
    )
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(model, path)
    assert same(model, build())


def test_a_checkpoint_of_another_width_is_refused_by_its_shapes(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(build("resnet20").state_dict(), path)
    with pytest.raises(CheckpointError, match=r"in addition layer1\.1\.conv1\.weight.*fit --teacher resnet20"):
        load_checkpoint(build(), path)
    torch.save(build("wrn_40_2").state_dict(), path)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_checkpoint(build("wrn_40_1"), path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_for_other_classes_or_channels_is_refused_with_both_counts(suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    stored = build(num_classes=100, in_channels=3)
    save_model(stored, path, metadata={}) if suffix == "safetensors" else torch.save(stored.state_dict(), path)
    classes = "100 classes instead of 10"
    with pytest.raises(
        CheckpointError, match=rf"fc\.weight of shape \(100, 64\) instead of \(10, 64\).*{classes}: .*--dataset"
    ):
        load_checkpoint(build(num_classes=10), path)
    channels = "3 image channels instead of 1"
    with pytest.raises(CheckpointError, match=rf"conv1\.weight of shape \(16, 3, 3, 3\) instead of .*{channels}"):
        load_checkpoint(build(num_classes=100, in_channels=1), path)
    with pytest.raises(CheckpointError, match=f"3 image channels instead of 1 and {classes}"):
        load_checkpoint(build(num_classes=10, in_channels=1), path)


def test_diverged_weights_are_refused(trained, tmp_path):
    state = {key: value.clone() for key, value in trained.state_dict().items()}
    state["fc.bias"][3] = float("nan")
    path = tmp_path / "model.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"fc\.bias.*diverged"):
        load_checkpoint(build(), path)


@pytest.mark.conformance
@pytest.mark.parametrize(
    "name",
    ["torchvision:resnet18", "torchvision:mobilenet_v3_small", "timm:resnet18", "timm:mobilenetv3_small_050"],
)
@pytest.mark.parametrize("layout", ["bare", "RepDistiller, epoch"])
def test_a_checkpoint_of_a_librarys_own_net_loads_and_answers_as_it_does(name, layout, tmp_path):
    library, _, architecture = name.partition(":")
    torch.manual_seed(3)
    if library == "timm":
        theirs = timm.create_model(architecture, num_classes=7)
    else:
        theirs = models.get_model(architecture, weights=None, num_classes=7)
    theirs(torch.randn(4, 3, 64, 64))
    path = tmp_path / "theirs.pth"
    torch.save(LAYOUTS[layout](theirs.state_dict()), path)
    ours = build(name, num_classes=7).eval()
    load_checkpoint(ours, path)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.eval()(images))
    with pytest.raises(CheckpointError, match="7 classes instead of 8"):
        load_checkpoint(build(name, num_classes=8), path)
