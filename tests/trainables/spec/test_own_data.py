"""Names of datasets of the user's own."""

from pathlib import Path

import pytest

from trainables.spec.datasets import check_dataset_name, expand_home, is_code
from trainables.spec.own_data import absolute_files, is_own_data, parse_own_name, short_name, source_of

pytestmark = pytest.mark.unit

CODE = "data.py:make@0123456789abcdef"


def test_names_are_split_into_place_and_options():
    assert parse_own_name("arrays:/a,b/c.npz,views=crop,label=fine").place == "/a,b/c.npz"
    assert parse_own_name("arrays:/a,b/c.npz,views=crop,label=fine").options == {"views": "crop", "label": "fine"}
    assert parse_own_name("hf:owner/name@0123abc,config=plain").place == "owner/name@0123abc"
    assert parse_own_name(CODE).kind == "code"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("arrays:", "such as arrays:scans.npz"),
        ("arrays:a.npz,vews=crop", "did you mean 'views'"),
        ("arrays:a.npz,config=x", "unknown option 'config'"),
        ("arrays:a.npz,views=crop,views=none", "give views=VALUE once"),
        ("hf:", "give hf:NAME"),
        ("hf:a/b/c", "give hf:NAME"),
        ("hf:/data/pets", "files have the form arrays:PATH"),
        ("hf:a@main", "7 to 40 hexadecimal digits"),
    ],
)
def test_other_names_are_refused_with_the_form(name, says):
    with pytest.raises(ValueError, match=r".") as found:
        check_dataset_name(name)
    assert says in str(found.value)


def test_files_get_an_absolute_path_and_a_short_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert absolute_files("arrays:a.npz,views=none") == f"arrays:{tmp_path}/a.npz,views=none"
    assert expand_home("arrays:~/a.npz") == f"arrays:{tmp_path}/home/a.npz"
    assert short_name("arrays:/x/y/a.npz,views=none") == "arrays:a.npz,views=none"
    assert short_name(CODE) == CODE
    assert source_of("arrays:/x/a.npz") == str(Path("/x/a.npz"))
    assert source_of(CODE) == "data.py:make"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("data.py:make", True),
        ("pets/data.py", True),
        ("package.module:make", True),
        (CODE, False),
        ("digits", False),
        ("glue:sst2", False),
        ("image_folder:photos", False),
        ("imagefolder:photos", False),
        ("array:scans", False),
        ("arrays:scans", False),
        ("HF:mnist", False),
    ],
)
def test_code_is_told_from_other_names(name, code):
    assert is_code(name) is code


def test_only_own_data_are_own_data():
    assert [is_own_data(name) for name in ("arrays:a", "hf:a", CODE, "digits", "glue:sst2", "data.py:make")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
