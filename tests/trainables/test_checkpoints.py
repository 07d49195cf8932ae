import argparse
import os

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from trainables.models import (
    CheckpointError,
    CheckpointInfo,
    build_model,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
    save_model,
)

INFO = CheckpointInfo("resnet8", 10, 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.25), "0123abcd")


def build(name="resnet8", *, num_classes=10, in_channels=3, seed=0):
    torch.manual_seed(seed)
    return build_model(name, num_classes=num_classes, in_channels=in_channels)


@pytest.fixture
def trained():
    model = build(seed=1)
    model(torch.randn(8, 3, 16, 16))  # moves the running statistics off their initial values
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


def test_the_teacher_of_a_distiller_is_read_when_asked_for(trained, tmp_path):
    path = tmp_path / "latest"
    torch.save(LAYOUTS["mdistiller, distiller"](trained.state_dict()), path)
    teacher = build("vgg8", seed=5)
    with pytest.raises(CheckpointError, match="part='teacher'"):
        load_checkpoint(teacher, path)
    load_checkpoint(teacher, path, part="teacher")
    assert same(teacher, build("vgg8", seed=0))


def test_a_distiller_without_a_teacher_says_so(trained, tmp_path):
    path = tmp_path / "latest"
    torch.save(LAYOUTS["mdistiller, vanilla"](trained.state_dict()), path)
    with pytest.raises(CheckpointError, match="a student but no teacher"):
        load_checkpoint(build(), path, part="teacher")


def test_our_own_format_gives_back_weights_and_what_rebuilds_them(trained, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(trained, path, INFO)
    info = CheckpointInfo.from_metadata(read_metadata(path))
    assert info == INFO
    model = build_model(info.architecture, num_classes=info.num_classes, in_channels=info.in_channels)
    load_checkpoint(model, path)
    assert same(model, trained)


def test_any_metadata_of_strings_can_be_stored(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(trained, path, metadata={"note": "naïve", "epochs": "3"})
    assert read_metadata(path) == {"note": "naïve", "epochs": "3"}
    with pytest.raises(CheckpointError, match=r"architecture.*save_checkpoint"):
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
    save_checkpoint(trained, path, INFO)
    before = path.read_bytes()

    def crash(_descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(build(seed=9), path, INFO)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_of_ours_is_refused(damage, trained, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(trained, path, INFO)
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


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no torch checkpoint"):
        load_checkpoint(build(), path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint file .*nowhere\.pth"):
        load_checkpoint(build(), tmp_path / "nowhere.pth")


def test_a_file_without_weights_says_what_it_has(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"epoch": 3, "weights": {"conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"no weights at its top level .*it has epoch, weights"):
        load_checkpoint(build(), path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint(build(), path)


class RunsCode:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


class Plain:
    pass


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(zipped, trained, tmp_path):
    victim = tmp_path / "written by the attacker"
    calls = (
        (os.system, (f"touch '{victim}'",)),
        (eval, (f"open({str(victim)!r}, 'w')",)),
        (os.mkdir, (str(victim),)),
    )
    path = tmp_path / "model.pth"
    model = build()
    for call in calls:
        torch.save(
            {"model": trained.state_dict(), "opt": RunsCode(call)},
            path,
            _use_new_zipfile_serialization=zipped,
        )
        with pytest.raises(CheckpointError, match=r"only weights are read.*convert it"):
            load_checkpoint(model, path)
        assert not victim.exists()
    assert same(model, build())


def test_names_that_are_ignored_do_not_let_attributes_of_theirs_through(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": {}, "x": RunsCode((np.load, ("/dev/null",)))}, path)
    with pytest.raises(CheckpointError, match="numpy"):
        load_checkpoint(build(), path)


def test_ignoring_is_over_when_the_file_is_read(trained, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(trained.state_dict(), path)
    load_checkpoint(build(), path)
    assert not any("checkpoints" in str(allowed) for allowed in torch.serialization.get_safe_globals())


def test_a_pickled_object_is_refused_with_its_type(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": {}, "config": Plain()}, path)
    with pytest.raises(CheckpointError, match=r"test_checkpoints\.Plain beside its weights"):
        load_checkpoint(build(), path)


def test_a_checkpoint_of_another_architecture_is_refused_by_its_first_keys(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(build("wrn_16_2").state_dict(), path)
    model = build()
    expected = r"lacks layer1\..* more; it has besides block1\.layer\.0\.bn1.* more.*another architecture"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(model, path)
    assert same(model, build())


def test_a_checkpoint_of_another_width_is_refused_by_its_shapes(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(build("resnet20").state_dict(), path)
    with pytest.raises(CheckpointError, match=r"besides layer1\.1\.conv1\.weight"):
        load_checkpoint(build(), path)
    torch.save(build("wrn_40_2").state_dict(), path)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_checkpoint(build("wrn_40_1"), path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_for_other_classes_or_channels_says_how_to_build_its_model(suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    stored = build(num_classes=100, in_channels=3)
    save_model(stored, path, metadata={}) if suffix == "safetensors" else torch.save(stored.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"fc\.weight \(100, 64\) for \(10, 64\).*num_classes=100"):
        load_checkpoint(build(num_classes=10), path)
    grey = build(num_classes=100, in_channels=1)
    with pytest.raises(CheckpointError, match=r"conv1\.weight \(16, 3, 3, 3\) for .*in_channels=3"):
        load_checkpoint(grey, path)
    with pytest.raises(CheckpointError, match="in_channels=3, num_classes=100"):
        load_checkpoint(build(num_classes=10, in_channels=1), path)


def test_diverged_weights_are_refused(trained, tmp_path):
    state = {key: value.clone() for key, value in trained.state_dict().items()}
    state["fc.bias"][3] = float("nan")
    path = tmp_path / "model.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"fc\.bias.*diverged"):
        load_checkpoint(build(), path)


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
    with pytest.raises(CheckpointError, match="num_classes=7"):
        load_checkpoint(build(name, num_classes=8), path)
