"""One network saved in the layouts of many training scripts. It loads, or the error names the command to type."""

import argparse
import collections
import pathlib
import shlex
import warnings
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from tests.trainables.models import nets
from trainables.models import CheckpointError, load_checkpoint
from trainables.models.taken_weights import FoundWeights, TakenWeights

pytestmark = pytest.mark.study

build = partial(nets.build, in_channels=1)
NET = build()
NET(torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(1)))  # changes the running statistics
RAW = {key: value.clone() for key, value in NET.state_dict().items()}
EMA = {key: value + 0.5 if value.is_floating_point() else value for key, value in RAW.items()}
IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(2))
OPTIMISER = torch.optim.SGD(NET.parameters(), 0.1, momentum=0.9)
NAMESPACE = argparse.Namespace(lr=0.1, milestones=[1, 2], device=torch.device("cuda:0"), dtype=torch.float16)


def under(prefix, state=RAW):
    return {prefix + key: value for key, value in state.items()}


def as_dtype(dtype):
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in RAW.items()}


def logits_of(state):
    """Return the logits of a network with these weights."""
    model = build(seed=9)
    model.load_state_dict(state)
    with torch.no_grad():
        return model.eval()(IMAGES)


def averaged():
    model = AveragedModel(build())
    model.module.load_state_dict(EMA)
    return model.state_dict()


def sparse_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a beta feature
        return RAW["fc.weight"].to_sparse_csr()


# Saved content, kind of the weights that are taken, and their key.
LOADED = {
    "plain": (RAW, "raw", ""),
    "order and metadata of state_dict": (NET.state_dict(), "raw", ""),
    "data-parallel": ({"state_dict": under("module.")}, "raw", "state_dict"),
    "compiled": ({"model": under("_orig_mod.")}, "raw", "model"),
    "data-parallel of compiled": ({"model": under("module._orig_mod.")}, "raw", "model"),
    "compiled of data-parallel": (under("_orig_mod.module."), "raw", ""),
    "timm": (
        {
            "epoch": 3, "arch": "resnet8", "state_dict": RAW, "optimizer": OPTIMISER.state_dict(), "version": 2,
            "args": NAMESPACE, "amp_scaler": {}, "state_dict_ema": EMA, "metric": 91.2,
        },
        "raw", "state_dict",
    ),
    "torchvision's references": (
        {
            "model": RAW, "optimizer": OPTIMISER.state_dict(), "epoch": 3, "args": NAMESPACE,
            "model_ema": {"n_averaged": torch.tensor(7), **under("module.", EMA)},
        },
        "raw", "model",
    ),
    "torchdistill": ({"model": RAW, "best_value": 0.9, "args": NAMESPACE}, "raw", "model"),
    "AveragedModel": (averaged(), "ema", ""),
    "AveragedModel beside raw weights": ({"net": RAW, "swa": averaged()}, "raw", "net"),
    "paths in arguments": ({"model": RAW, "args": argparse.Namespace(data=pathlib.PosixPath("/data"))}, "raw", "model"),
    "Lightning": (
        {
            "epoch": 1, "global_step": 5, "pytorch-lightning_version": "2.4.0", "state_dict": under("model."),
            "loops": {}, "callbacks": {}, "optimizer_states": [OPTIMISER.state_dict()], "lr_schedulers": [],
            "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.1},
        },
        "raw", "state_dict",
    ),
    "Lightning with another name": ({"state_dict": under("net."), "hyper_parameters": {}}, "raw", "state_dict"),
    "Lightning with a loss and a metric": (
        {"state_dict": {**under("backbone."), "loss.weight": torch.ones(10), "metric.total": torch.ones(())}},
        "raw", "state_dict.backbone",
    ),
    "Lightning with EMA": (
        {"state_dict": {**under("model.module."), **under("ema_model.module.", EMA)}}, "raw", "state_dict.model",
    ),
    "thop": (
        {**RAW, **dict.fromkeys(("total_ops", "total_params", "layer1.0.conv1.total_ops"), torch.zeros(1))}, "raw", "",
    ),
    "a backbone and a head": (
        {"state_dict": {("head.fc." + k[3:] if k.startswith("fc.") else f"backbone.{k}"): v for k, v in RAW.items()}},
        "raw", "state_dict",
    ),
    "a backbone and a head in Lightning with a loss": (
        {
            "state_dict": {
                **{("model.head" + k[2:] if k.startswith("fc.") else f"model.backbone.{k}"): v for k, v in RAW.items()},
                "loss.weight": torch.ones(10),
            }
        },
        "raw", "state_dict.model",
    ),
    "some blocks compiled": (
        {key.replace("layer1.0.", "layer1.0._orig_mod."): value for key, value in RAW.items()}, "raw", "",
    ),
    "FSDP with recomputed blocks": (
        {
            "_fsdp_wrapped_module." + key.replace("layer2.0.", "layer2.0._checkpoint_wrapped_module."): value
            for key, value in RAW.items()
        },
        "raw", "",
    ),
    "a list": ([RAW, OPTIMISER.state_dict()], "raw", "0"),
    "a tuple of a model and its epoch": ((NET, 3), "raw", "0"),
    "NumPy scalars": ({"model": RAW, "best_acc": np.float64(77.1), "epoch": np.int64(3)}, "raw", "model"),
    "NumPy history": ({"model": RAW, "curve": np.arange(4.0)}, "raw", "model"),
    "NumPy arrays": ({key: value.numpy() for key, value in RAW.items()}, "raw", ""),
    "NumPy arrays in Fortran's order": (
        {"params": {key: np.asfortranarray(value.numpy()) for key, value in RAW.items()}}, "raw", "params",
    ),
    "defaultdict": ({"model": RAW, "logs": collections.defaultdict(list, {"a": [1.0]})}, "raw", "model"),
    "a whole model": (NET, "raw", ""),
    "a whole model and its epoch": ({"net": torch.nn.DataParallel(NET), "epoch": 3}, "raw", "net"),
    "weights": ({"weights": RAW, "epoch": 4}, "raw", "weights"),
    "model_state_dict": (
        {"model_state_dict": RAW, "optimizer_state_dict": OPTIMISER.state_dict()}, "raw", "model_state_dict",
    ),
    "model_state": ({"model_state": RAW, "optimizer_state": OPTIMISER.state_dict()}, "raw", "model_state"),
    "nested": ({"checkpoint": {"generator": {"params": RAW, "params_ema": EMA}}}, "raw", "checkpoint.generator.params"),
    "params_ema": ({"params": RAW, "params_ema": EMA}, "raw", "params"),
    "the same twice": ({"model": RAW, "best": {k: v.clone() for k, v in RAW.items()}}, "raw", "model"),
    "teacher and student": ({"student": EMA, "teacher": RAW}, "raw", "teacher"),
    "a distiller": ({"model": {**under("module.student.", EMA), **under("module.teacher.")}}, "raw", "model.teacher"),
    "EMA alone": ({"model_ema": EMA, "epoch": 4}, "ema", "model_ema"),
    "linear": ({key.replace("fc.", "linear."): value for key, value in RAW.items()}, "raw", ""),
    "head.fc": ({key.replace("fc.", "head.fc."): value for key, value in RAW.items()}, "raw", ""),
    "sparse": ({**RAW, "fc.weight": RAW["fc.weight"].to_sparse()}, "raw", ""),
    "sparse rows": ({**RAW, "fc.weight": sparse_rows()}, "raw", ""),
    "double": (as_dtype(torch.float64), "raw", ""),
}  # fmt: skip


@pytest.mark.conformance
@pytest.mark.parametrize("layout", LOADED)
def test_a_layout_gives_the_nets_logits_and_names_the_weights_that_were_taken(layout, tmp_path):
    content, kind, place = LOADED[layout]
    path = tmp_path / "net.pth"
    torch.save(content, path)
    model = build(seed=5)
    taken = load_checkpoint(model, path, part="teacher")
    assert (taken.kind, taken.place) == (kind, place)
    expected = logits_of(EMA if kind == "ema" else RAW)
    with torch.no_grad():
        assert torch.equal(model.eval()(IMAGES), expected)
    assert all(value.dtype == NET.state_dict()[key].dtype for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_in_half_precision_are_loaded_as_float32(dtype, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    save_file(as_dtype(dtype), path) if suffix == ".safetensors" else torch.save(as_dtype(dtype), path)
    model = build(seed=5)
    load_checkpoint(model, path)
    for key, value in as_dtype(dtype).items():
        assert torch.equal(model.state_dict()[key], value.to(RAW[key].dtype))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model._orig_mod.module."])
def test_prefixes_are_left_out_in_safetensors_too(prefix, tmp_path):
    save_file(under(prefix), tmp_path / "net.safetensors")
    model = build(seed=5)
    load_checkpoint(model, tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(model.eval()(IMAGES), logits_of(RAW))


@pytest.mark.parametrize("name", ["net.pt", "net.ckpt", "net.tar", "net.bin", "net.th", "net", "net.safetensors"])
def test_the_name_of_a_file_does_not_matter(name, tmp_path):
    torch.save({"model": RAW}, tmp_path / name)
    model = build(seed=5)
    load_checkpoint(model, tmp_path / name)
    (tmp_path / name).unlink()
    save_file(RAW, tmp_path / name)
    load_checkpoint(model, tmp_path / name)


@pytest.mark.parametrize("layout", ["timm", "torchvision's references", "AveragedModel beside raw weights",
                                    "Lightning with EMA", "nested", "params_ema"])  # fmt: skip
def test_averages_beside_raw_weights_are_named_and_taken_when_asked_for(layout, tmp_path):
    content, _, place = LOADED[layout]
    path = tmp_path / "net.pth"
    torch.save(content, path)
    taken = load_checkpoint(build(), path, part="teacher")
    (other,) = taken.others
    assert other.kind == "ema"
    assert str(taken) == (
        f"raw weights under {place!r}; the file also has EMA weights under {other.place!r} (--teacher-weights ema)"
    )
    for wanted in ("ema", other.place):
        model = build(seed=5)
        assert load_checkpoint(model, path, wanted=wanted) == TakenWeights(
            "ema", other.place, (FoundWeights("raw", place),)
        )
        with torch.no_grad():
            assert torch.equal(model.eval()(IMAGES), logits_of(EMA))
    assert load_checkpoint(build(), path, wanted="raw") == taken


@pytest.mark.parametrize(
    ("layout", "wanted", "says"),
    [
        ("plain", "ema", "does not contain the weights --teacher-weights ema, but raw weights: .*or give raw"),
        ("EMA alone", "raw", "does not contain the weights --teacher-weights raw, but EMA weights under 'model_ema'"),
        ("timm", "best", "does not contain the weights --teacher-weights best, .*or give raw or ema"),
    ],
)
def test_weights_that_a_file_does_not_have_are_refused_with_those_that_it_has(layout, wanted, says, tmp_path):
    torch.save(LOADED[layout][0], tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(build(), tmp_path / "net.pth", wanted=wanted)


def test_of_several_sets_that_fit_none_is_guessed(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"last": RAW, "best": EMA}, path)
    says = "several different sets .*'last', raw weights under 'best'.*--teacher-weights last or --teacher-weights best"
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(build(), path)
    model = build(seed=5)
    load_checkpoint(model, path, wanted="best")
    with torch.no_grad():
        assert torch.equal(model.eval()(IMAGES), logits_of(EMA))


def test_a_choice_can_be_pasted_into_a_shell_whatever_the_key_is(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({**RAW, "my best": EMA}, path)
    with pytest.raises(CheckpointError, match="several different sets") as refusal:
        load_checkpoint(build(), path)
    choices = str(refusal.value).rpartition("Choose one: ")[2].split(" or ")
    for choice, state in zip(choices, (RAW, EMA), strict=True):
        flag, wanted = shlex.split(choice)
        assert flag == "--teacher-weights"
        model = build(seed=5)
        load_checkpoint(model, path, wanted=wanted)
        with torch.no_grad():
            assert torch.equal(model.eval()(IMAGES), logits_of(state))


def test_weights_of_no_known_architecture_are_refused_with_what_can_be_done(tmp_path):
    for content in ({**RAW, "layer4.weight": torch.ones(3)}, {k: v for k, v in RAW.items() if k != "fc.bias"}):
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(
            CheckpointError, match=r"no known architecture fits.*--teacher timm:NAME.*leave out --teacher"
        ):
            load_checkpoint(build(), tmp_path / "net.pth")


def test_a_file_without_weights_is_refused_with_how_to_write_them(tmp_path):
    for content, has in (
        ([1, 2], "contains a list"),
        ([{}, 3], "it has 0"),
        ({10: RAW}, "none of its keys is a string"),
        (None, "NoneType"),
    ):
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(CheckpointError, match=rf"no weights .*{has}.*state_dict\(\)"):
            load_checkpoint(build(), tmp_path / "net.pth")


def quantised():
    return torch.quantize_per_tensor(RAW["fc.weight"], 0.1, 0, torch.qint8)


# One tensor of a checkpoint, and the reason for the error.
REFUSED = {
    "quantised": (quantised, "quantised weights: fc.weight is torch.qint8"),
    "integers": (lambda: (RAW["fc.weight"] * 100).to(torch.int8), "quantised weights: fc.weight is torch.int8"),
    "complex": (lambda: RAW["fc.weight"].to(torch.complex64), "complex weights: fc.weight"),
    "without values": (lambda: RAW["fc.weight"].to("meta"), "only the shape of fc.weight"),
    "undefined": (lambda: RAW["fc.weight"] * float("nan"), "NaN weights in fc.weight"),
    "infinite": (lambda: RAW["fc.weight"] + float("inf"), "infinite or NaN weights in fc.weight"),
    "out of float32's range": (lambda: RAW["fc.weight"].double() + 1e300, "infinite or NaN weights in fc.weight"),
    "sparse of another shape": (
        lambda: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (10**9, 10**9)),
        "does not fit",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_tensors_that_are_no_plain_weights_are_refused_by_name(kind, tmp_path):
    make, says = REFUSED[kind]
    torch.save({**RAW, "fc.weight": make()}, tmp_path / "net.pth")
    model = build(seed=5)
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(model, tmp_path / "net.pth")
    assert all(torch.equal(value, build(seed=5).state_dict()[key]) for key, value in model.state_dict().items())


def test_weights_of_other_classes_are_refused_with_both_counts_whatever_the_last_layer_is_called(tmp_path):
    for name in ("fc", "linear"):
        kept = {key: value for key, value in RAW.items() if not key.startswith("fc.")}
        torch.save(
            {**kept, f"{name}.weight": torch.zeros(100, 64), f"{name}.bias": torch.zeros(100)}, tmp_path / "net.pth"
        )
        with pytest.raises(CheckpointError, match=r"100 classes instead of 10: .*--dataset"):
            load_checkpoint(build(), tmp_path / "net.pth")


def convert(refusal, monkeypatch, folder):
    """Run the command in an error message in this process, and check the result."""
    python, flag, code = shlex.split(refusal[refusal.index("python -c ") :])
    assert (python, flag) == ("python", "-c")
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})
    model = build(seed=5)
    load_checkpoint(model, folder / "weights.pth")
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(IMAGES), logits_of(RAW), rtol=0, atol=0)


def test_a_torchscript_program_is_refused_with_a_command_that_converts_it(tmp_path, monkeypatch):
    path = tmp_path / "Sam's script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(NET.eval(), IMAGES).save(str(path))
    with pytest.raises(CheckpointError, match=r"a TorchScript program.*python -c ") as refusal:
        load_checkpoint(build(), path)
    convert(str(refusal.value), monkeypatch, tmp_path)


@pytest.mark.slow
def test_a_program_of_torch_export_is_refused_with_a_command_that_converts_it(tmp_path, monkeypatch):
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(NET.eval(), (IMAGES,)), path)
    with pytest.raises(CheckpointError, match=r"a torch\.export program.*python -c ") as refusal:
        load_checkpoint(build(), path)
    convert(str(refusal.value), monkeypatch, tmp_path)


def test_what_another_protocol_pickled_is_refused_with_a_command_that_writes_it_again(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    torch.save({"model": RAW}, path, pickle_protocol=4)
    with pytest.raises(
        CheckpointError, match=r"If you trust the author of the file, save it again: python -c "
    ) as refusal:
        load_checkpoint(build(), path)
    convert(str(refusal.value), monkeypatch, tmp_path)


@pytest.mark.parametrize("layout", ["timm", "NumPy arrays"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_refused_or_read_whatever_byte_is_wrong(layout, zipped, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(LOADED[layout][0], path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(12):
        content = bytearray(whole)
        if number % 4 == 0:
            del content[int(rng.integers(len(content))) :]
        else:
            start = int(rng.integers(0, 4000))
            content[start : start + 2] = rng.integers(0, 256, 2, dtype=np.uint8).tobytes()
        path.write_bytes(content)
        try:
            load_checkpoint(build(), path)
        except CheckpointError:
            refused += 1
    assert refused >= 3


def test_a_checkpoint_that_unpacks_to_far_more_than_its_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"model": RAW}, path)
    with zipfile.ZipFile(path) as whole:
        contents = {name: whole.read(name) for name in whole.namelist()}
    largest = max(contents, key=lambda name: len(contents[name]))
    for padding, is_read in ((0, True), (1 << 27, False)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in contents.items():
                archive.writestr(name, content + bytes(padding if name == largest else 0))
        if is_read:
            load_checkpoint(build(), path)
            continue
        with pytest.raises(CheckpointError, match=r"would unpack to .* bytes, more than 100 times the file"):
            load_checkpoint(build(), path)
