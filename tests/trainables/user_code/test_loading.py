"""Code runs from its sources, under names of its own, and its errors show the user's lines."""

import copy
import inspect
import subprocess
import sys

import pytest

from tests.user_nets import new_process, write
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import canonical_name, describe, line_of, load, load_callable, sources_of
from trainables.user_code.storage import remember_saved, save_sources

_RAISES = "raise ValueError('in b')"


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


def test_it_runs_from_its_sources_after_the_file_was_changed_or_removed(tmp_path):
    file = write(tmp_path, net="from b import x\ndef make():\n    import late\n    return x + late.y\n",
                 b="x = 1\n", late="y = 1\n") / "net.py"  # fmt: skip
    name = canonical_name(f"{file}:make")
    (tmp_path / "b.py").write_text("x = 100\n")
    (tmp_path / "late.py").unlink()
    file.unlink()
    assert load(name)() == 2


def test_neighbours_of_equal_names_in_two_folders_do_not_clash_and_hide_no_library(tmp_path):
    texts = {"net": "import json, blocks\ndef make():\n    return blocks.x, json.x\n", "json": "x = 'own'\n"}
    names = [
        canonical_name(f"{write(tmp_path / side, **texts, blocks=f'x = {side!r}') / 'net.py'}:make")
        for side in ("a", "b")
    ]
    assert [load(name)() for name in names] == [("a", "own"), ("b", "own")]
    import json

    assert json.dumps([]) == "[]"
    assert "blocks" not in sys.modules
    assert str(tmp_path) not in sys.path


def test_packages_relative_imports_and_imports_of_whole_modules_work(tmp_path):
    write(
        tmp_path,
        net="import p.q.r\nimport p.q as q\nfrom p import *\nfrom . import side\nfrom p.q import r\n"
        "def make():\n    return p.q.r.x, q.y, r.x, side.z, star\n",
        p__in____init__="star = 5\nfrom .q import y\n", p__in__q__in____init__="from ..q import r\ny = r.x + 1\n",
        p__in__q__in__r="x = 1\n", side="z = 4\n",
    )  # fmt: skip
    assert load(canonical_name(f"{tmp_path / 'net.py'}:make"))() == (1, 2, 1, 4, 5)


def test_the_file_of_a_package_itself_can_be_named(tmp_path):
    write(tmp_path, __init__="from .b import x\ndef make():\n    return x\n", b="x = 2\n")
    assert load(canonical_name(f"{tmp_path / '__init__.py'}:make"))() == 2


def test_a_module_of_a_package_runs_from_its_sources_too(tmp_path, monkeypatch):
    write(tmp_path, kit__in____init__="from kit.base import x\n", kit__in__base="x = 3\n",
          kit__in__nets="from . import x\nimport kit.base\ndef make():\n    return x, kit.base.x\n")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    name = canonical_name("kit.nets:make")
    assert name.startswith("kit.nets:make@")
    assert load(name)() == (3, 3)
    assert "kit" not in sys.modules


def test_a_module_runs_once_and_its_text_can_be_inspected(tmp_path):
    write(tmp_path, **{"my-net": "ran = []\nran.append(1)\nclass Net:\n    def f(self):\n        return 1\n"})
    name = canonical_name(f"{tmp_path / 'my-net.py'}:Net")
    assert load(name) is load(name)
    assert load(name.replace(":Net", ":ran")) == [1]
    (tmp_path / "my-net.py").unlink()
    assert "return 1" in inspect.getsource(load(name))
    assert isinstance(copy.deepcopy(load(name)()), load(name))


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("def make(): ...\n", "mke", "net.py defines no mke; did you mean make? It defines: make"),
        ("", "make", "It defines: nothing"),
        ("import math\nx = 1\n", "make", "It defines: math, x"),
        ("make = 3\n", "make", "net.py:make is a int, which cannot be called"),
    ],
)
def test_a_name_that_is_missing_or_cannot_be_called_is_refused(tmp_path, text, name, says):
    found = canonical_name(f"{write(tmp_path, net=text) / 'net.py'}:{name}")
    with pytest.raises(UserCodeError) as refused:
        load_callable(found)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "def f():\n    return 1 / 0\nf()\n",
            ["line 3, in <module>", "return 1 / 0", "ZeroDivisionError: division by zero"],
        ),
        ("import no_such_library\n", ["import no_such_library", "ModuleNotFoundError"]),
        ("import b\n", ["import b", "raise ValueError('in b')", "ValueError: in b"]),
        ("import sys\nsys.exit(3)\n", ["sys.exit(3)", "SystemExit: 3"]),
        ("return 1\n", ["SyntaxError"]),
        ("open(__file__)\n", ["open(__file__)", "FileNotFoundError"]),
    ],
)
def test_an_error_at_import_shows_the_traceback_of_the_user_alone(tmp_path, text, says):
    name = canonical_name(f"{write(tmp_path, net=text, b=_RAISES) / 'net.py'}:make")
    for _ in range(2):  # a second attempt runs it again and fails alike
        with pytest.raises(UserCodeError) as refused:
            load(name)
        told = str(refused.value)
        assert told.startswith("net.py cannot be imported:\n")
        assert [each for each in says if each not in told] == []
        assert "loading.py" not in told
        assert "importlib" not in told


def test_errors_of_calls_begin_at_the_user_s_first_line(tmp_path):
    text = "def make():\n    return inner()\ndef inner():\n    raise KeyError('k')\n"
    make = load(canonical_name(f"{write(tmp_path, net=text) / 'net.py'}:make"))
    with pytest.raises(KeyError) as raised:
        make()
    told = describe(raised.value)
    assert told.splitlines()[0] == "Traceback (most recent call last):"
    assert f'File "{tmp_path}/net.py", line 2, in make' in told.splitlines()[1]
    assert line_of(raised.value) == ("inner", f"{tmp_path}/net.py", 4)
    assert line_of(ValueError("of nobody")) is None
    assert describe(ValueError("of nobody")) == "ValueError: of nobody"


def test_a_folder_of_a_study_gives_the_same_code_to_another_process(tmp_path):
    write(tmp_path, net="from p.b import x\ndef make():\n    return x\n", p__in____init__="", p__in__b="x = 7\n")
    name = canonical_name(f"{tmp_path / 'net.py'}:make")
    kept = tmp_path / "study" / "code"
    save_sources([sources_of(name)], kept)
    with new_process():
        with pytest.raises(UserCodeError, match="not known here"):
            load(name)
        remember_saved(kept)
        assert load(name)() == 7
        copied = canonical_name(f"{kept / sources_of(name).digest / 'net.py'}:make")
        assert copied == name
    remember_saved(tmp_path / "nowhere")


@pytest.mark.parametrize("harm", ["changed", "removed", "added"])
def test_a_folder_that_was_changed_is_refused_when_the_code_is_needed(tmp_path, harm):
    write(tmp_path, net="import b\n", b="x = 7\n")
    name = canonical_name(f"{tmp_path / 'net.py'}:make")
    kept = tmp_path / "code"
    save_sources([sources_of(name)], kept)
    place = kept / sources_of(name).digest
    if harm == "removed":
        (place / "b.py").unlink()
    else:
        (place / {"changed": "b.py", "added": "c.py"}[harm]).write_text("x = 8\n")
    with new_process():
        remember_saved(kept)
        with pytest.raises(UserCodeError, match="were changed: restore them from a copy"):
            load(name)


@pytest.mark.launcher
def test_finding_sources_imports_no_torch():
    code = "import sys, trainables.user_code.loading, trainables.user_code.storage; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
