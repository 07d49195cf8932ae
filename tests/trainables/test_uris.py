import pytest

from trainables.uris import is_uri, redact


@pytest.mark.parametrize(
    ("place", "uri"),
    [("s3://b/c", True), ("file:///x", True), ("/shared/x", False), ("outputs", False), ("a:b/c", False)],
)
def test_a_uri_has_a_scheme_and_two_slashes(place, uri):
    assert is_uri(place) is uri


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@h/x and file:///a@b", "https://***@h/x and file:///a@b"),
        ("s3://key:sec%2Fret@bucket/x?scheme=http", "s3://***@bucket/x?scheme=http"),
        ("s3://key:sec/ret@bucket/x", "s3://***@bucket/x"),  # should have been %2F
        ("abfs://a/x?client_secret=abc&tenant_id=t", "abfs://a/x?client_secret=***&tenant_id=t"),
        ("abfs://a/x?sv=1&sig=abc", "abfs://a/x?sv=1&sig=***"),
        ("http://host:5000/x@y", "http://host:5000/x@y"),
        ("s3://bucket/x?endpoint_override=127.0.0.1:9000", "s3://bucket/x?endpoint_override=127.0.0.1:9000"),
    ],
)
def test_secrets_of_uris_are_blotted_out(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown
