import subprocess
import sys

import pytest

from trainables.spec import precision
from trainables.spec.precision import PRECISIONS, resolve_precision


@pytest.fixture(params=[False, True], ids=["without bfloat16", "with bfloat16"])
def capable(request, monkeypatch):
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("student", ["resnet20", "wrn_16_2", "torchvision:resnet18", "cnn_16_32"])
def test_auto_is_bf16_where_machine_and_student_gain_by_it(student, capable):
    expected = "bf16" if capable else "fp32"
    assert resolve_precision("auto", student=student, image_size=32) == expected


@pytest.mark.parametrize(("student", "size"), [("cnn_3_4", 32), ("cnn_3_4", 8), ("cnn_32_64", 8)])
def test_auto_is_fp32_for_what_is_too_small_to_gain(student, size, capable):
    assert resolve_precision("auto", student=student, image_size=size) == "fp32"


@pytest.mark.parametrize("requested", PRECISIONS)
def test_what_is_asked_for_by_name_is_what_one_gets(requested, capable):
    assert resolve_precision(requested, student="cnn_3_4", image_size=8) == requested
    assert resolve_precision(requested, student="resnet20", image_size=32, device="cuda:0") == requested


def test_an_unknown_precision_is_refused_naming_the_nearest():
    with pytest.raises(ValueError, match="unknown precision 'bf61'; did you mean 'bf16'"):
        resolve_precision("bf61", student="resnet20", image_size=32)


@pytest.mark.launcher
def test_what_the_machine_can_do_is_found_without_torch():
    program = (
        "from trainables.spec.precision import resolve_precision; import sys;"
        "resolve_precision('auto', student='resnet20', image_size=32); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_machine_without_its_processors_flags_computes_in_float32(monkeypatch):
    def refuse(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(precision.Path, "read_text", refuse)
    assert not precision.computes_bfloat16.__wrapped__("cpu")


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx512f avx512_bf16 sse", True), ("amx_bf16", True), ("avx512f", False)]
)
def test_bfloat16_is_told_by_the_processors_flags(flags, expected, monkeypatch):
    monkeypatch.setattr(precision.Path, "read_text", lambda path: f"model name\t: a\nflags\t\t: {flags}\nbugs\t: b\n")
    assert precision.computes_bfloat16.__wrapped__("cpu") is expected
