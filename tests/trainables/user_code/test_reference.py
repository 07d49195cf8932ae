"""References to code, as typed and as stored."""

import pytest

from trainables.spec.architectures import is_model_code
from trainables.user_code.errors import UserCodeError
from trainables.user_code.reference import Reference, canonical, is_canonical, looks_like_reference, parse_reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("net.py:make", Reference("net.py", "make")),
        ("/a b/nets/my-net.py:Net", Reference("/a b/nets/my-net.py", "Net")),
        ("odd:folder/net.py:make", Reference("odd:folder/net.py", "make")),
        (r"C:\nets\net.py:make", Reference(r"C:\nets\net.py", "make")),
        ("at@home/net.py:make@0123456789abcdef", Reference("at@home/net.py", "make", "0123456789abcdef")),
        ("package.module:make", Reference("package.module", "make")),
    ],
)
def test_the_last_colon_parts_place_and_name(text, expected):
    assert parse_reference(text) == expected
    assert looks_like_reference(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("net.py", "such as net.py:make"),
        ("net.py:", "'' is no Python name"),
        ("net.py:2x", "'2x' is no Python name"),
        ("net.py:a.b", "'a.b' is no Python name"),
        (r"C:\nets\net.py", r"such as C:\nets\net.py:make"),
        ("odd:folder/net.py", "such as odd:folder/net.py:make"),
        (":make", "names no object"),
        ("net.py:make@12", "16 hexadecimal digits"),
        ("my net.py:make", "letters a to z"),
        ("nét.py:make", "letters a to z"),
        ("net.v2.py:make", "letters a to z"),
        ("net.txt:make:x", "neither ends in .py nor is the dotted name"),
    ],
)
def test_what_is_no_reference_is_refused_with_what_to_give(text, says):
    with pytest.raises(UserCodeError) as refused:
        parse_reference(text)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["resnet20", "cnn_3_4", "bert:6", "torchvision:resnet18", "timm:vit.tiny_in1k", "vgg8", "torchvison:resnet18"],
)
def test_other_names_are_not_taken_for_code(name):
    assert not is_model_code(name)
    assert not is_canonical(name)


def test_a_canonical_name_has_its_parts():
    name = "net.py:make@0123456789abcdef"
    assert is_canonical(name)
    assert canonical(name) == ("net.py", "make", "0123456789abcdef")
    assert str(canonical(name)) == name
    for other in ("net.py:make", "a/net.py:make@0123456789abcdef", "net.py:make@0123456789abcdeF", "net.py:make@01"):
        assert not is_canonical(other)
