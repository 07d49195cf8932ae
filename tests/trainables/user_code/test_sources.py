"""Which files belong to code, and the digest that names them."""

import pytest

from tests.user_nets import write
from trainables.user_code.errors import UserCodeError
from trainables.user_code.reference import parse_reference
from trainables.user_code.sources import Sources, find_sources


def sources(place, name="make"):
    return find_sources(parse_reference(f"{place}:{name}"))


def test_imported_neighbours_belong_to_it_wherever_the_statement_stands_and_others_do_not(tmp_path):
    write(
        tmp_path,
        net="import math, blocks.conv as c\ndef make():\n    from late import x\n    import blocks.norm\n",
        late="from . import relative\n",
        relative="",
        unused="",
        blocks__in____init__="",
        blocks__in__conv="from .pool import pool\nfrom blocks import more\n",
        blocks__in__pool="",
        blocks__in__more="from .. import outside\n",
        blocks__in__norm="import json\n",
        outside="",
    )
    expected = ["blocks/__init__.py", "blocks/conv.py", "blocks/more.py", "blocks/norm.py", "blocks/pool.py", "late.py"]
    assert list(sources(tmp_path / "net.py").files) == [*expected, "net.py", "outside.py", "relative.py"]


def test_the_digest_is_that_of_names_and_contents_and_not_of_the_place(tmp_path):
    first = sources(write(tmp_path / "a", net="import b\n", b="x = 1\n") / "net.py")
    assert len(first.digest) == 16
    moved = sources(write(tmp_path / "elsewhere", net="import b\n", b="x = 1\n", c="unused") / "net.py")
    assert moved.digest == first.digest
    assert moved.canonical_name("make") == f"net.py:make@{first.digest}"
    others = [
        write(tmp_path / "c", net="import b\n", b="x = 2\n") / "net.py",
        write(tmp_path / "d", net="import b\n# \n", b="x = 1\n") / "net.py",
        write(tmp_path / "e", net="import b\n", b="x = 1\n", other="import b\n") / "other.py",
    ]
    assert len({first.digest, *(sources(each).digest for each in others)}) == 4


def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "net.py").write_bytes(b"\xef\xbb\xbfx = 1\r\ny = 2\r\n")
    assert sources(tmp_path / "a" / "net.py") == sources(write(tmp_path / "b", net="x = 1\ny = 2\n") / "net.py")


def test_they_travel_as_json(tmp_path):
    found = sources(write(tmp_path, net="import b\n", b="") / "net.py")
    assert Sources.from_json(found.to_json()) == found
    assert Sources.from_json(found.to_json()).digest == found.digest


def test_a_module_is_found_without_running_its_package(tmp_path, monkeypatch):
    write(tmp_path, pack__in____init__="raise RuntimeError('executed')\n", pack__in__nets="from pack import parts\n",
          pack__in__parts="", beside="")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    found = sources("pack.nets")
    assert (found.main, found.title) == ("pack/nets.py", "pack.nets")
    assert list(found.files) == ["pack/__init__.py", "pack/nets.py", "pack/parts.py"]
    assert sources("pack").title == "pack"


def test_of_an_installed_package_its_own_modules_count_and_not_other_packages(tmp_path, monkeypatch):
    place = tmp_path / "site-packages"
    write(place, mine__in____init__="import other\nfrom mine import a\n", mine__in__a="", other__in____init__="")
    monkeypatch.syspath_prepend(place)
    assert list(sources("mine").files) == ["mine/__init__.py", "mine/a.py"]


@pytest.mark.parametrize(
    ("files", "place", "says"),
    [
        ({}, "net.py", "there is no file"),
        ({"nets": ""}, "net.py", "did you mean nets.py?"),
        ({}, "gone/net.py", "its folder does not exist"),
        ({"net": "def make(:\n"}, "net.py", "def make(:"),
        ({"net": "import b", "b": "x = = 1"}, "net.py", "b.py is not valid Python"),
        ({"net": "x = '\0'"}, "net.py", "is not valid Python"),
        ({}, "no_such_module", "there is no module no_such_module: install"),
        ({}, "json.no_such", "there is no module json.no_such"),
        ({}, "math", "has no Python source"),
        ({}, "trainables.models.zoo", "part of pesfkd itself"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(tmp_path, files, place, says):
    write(tmp_path, **files)
    with pytest.raises(UserCodeError) as refused:
        sources(tmp_path / place if place.endswith(".py") else place)
    assert says in str(refused.value)


def test_folders_other_encodings_and_whole_libraries_are_refused(tmp_path):
    (tmp_path / "dir.py").mkdir()
    (tmp_path / "latin.py").write_bytes("x = 'é'".encode("latin-1"))
    write(tmp_path, many="\n".join(f"import m{n}" for n in range(201)), **{f"m{n}": "" for n in range(201)})
    for name, says in (("dir", "is a folder"), ("latin", "not text in UTF-8"), ("many", "more than 200 modules")):
        with pytest.raises(UserCodeError, match=says):
            sources(tmp_path / f"{name}.py")


def test_modules_of_the_working_directory_outside_of_the_folder_are_refused_with_the_name_that_has_them(
    tmp_path, monkeypatch
):
    write(tmp_path, nets__in__net="import torch, json\nfrom nets.blocks import x\n", nets__in__blocks="x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserCodeError, match=r"imports nets from .*: name it from there, as nets\.net:make"):
        sources("nets/net.py")
    assert list(sources("nets.net").files) == ["nets/blocks.py", "nets/net.py"]


def test_a_digest_that_is_asked_for_must_be_that_of_the_file(tmp_path):
    file = write(tmp_path, net="x = 1\n") / "net.py"
    own = sources(file)
    assert sources(file, f"make@{own.digest}") == own
    with pytest.raises(UserCodeError, match=f"has the digest {own.digest}, not 0123456789abcdef"):
        sources(file, "make@0123456789abcdef")


def test_packages_of_this_project_next_to_a_file_are_not_taken_for_its_neighbours():
    from trainables.user_code import sources as module

    root = module._OWN_PACKAGES.parent
    assert list(module._Folder(root, "net.py").files_of(("trainables", "losses"))) == []


def test_libraries_are_what_comes_from_elsewhere(tmp_path):
    text = "import os.path, torch.nn, b\nfrom timm.layers import x\nfrom . import b\n"
    assert sources(write(tmp_path, net=text, b="import numpy") / "net.py").libraries == ["numpy", "timm", "torch"]
