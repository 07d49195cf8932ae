import shlex
import subprocess
import sys
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import URL, make_url

from trainables.storage.uris import REDACTED, is_uri, redact, redact_command, redact_place, redact_uri

SECRET = "q7Zx"  # in every generated secret, and in no other part


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
        ("s3://key:7/ret@bucket/x", "s3://***@bucket/x"),  # no port: buckets have none
        ("abfs://a/x?client_secret=abc&tenant_id=t", "abfs://a/x?client_secret=***&tenant_id=t"),
        ("abfs://a/x?sv=1&sig=abc", "abfs://a/x?sv=1&sig=***"),
        ("abfss://box@account.dfs.core.windows.net/x", "abfss://box@account.dfs.core.windows.net/x"),
        ("abfss://box:pw@account.dfs.core.windows.net/x", "abfss://***@account.dfs.core.windows.net/x"),
        ("http://host:5000/x@y", "http://host:5000/x@y"),
        ("http://h:5000/#/experiments/1", "http://h:5000/#/experiments/1"),
        ("http://h/x#access_token=abc", "http://h/x#***"),
        ("s3://bucket/x?endpoint_override=127.0.0.1:9000", "s3://bucket/x?endpoint_override=127.0.0.1:9000"),
        ("s3://bucket/x?endpoint_override=http://u:p@h", "s3://bucket/x?endpoint_override=***"),
        ("https://h/x?X-Amz-Signature=abc&X-Amz-Date=1", "https://h/x?X-Amz-Signature=***&X-Amz-Date=***"),
        ("https://TOKEN@host/x", "https://***@host/x"),
        ("postgresql://user:a@b@host/db", "postgresql://***@host/db"),
        ("postgresql://user:a/b?c#d@host/db", "postgresql://***@host/db"),
        ("postgresql://owner:mlflow@mlflow:5432/mlflow", "postgresql://***@mlflow:5432/mlflow"),
        ("POSTGRESQL+Psycopg://u:p@[::1]:5432/db?sslmode=require", "POSTGRESQL+Psycopg://***@[::1]:5432/db?sslmode=require"),
        ("postgresql://h/db?user=me&passwd=x&pwd=y", "postgresql://h/db?user=***&passwd=***&pwd=***"),
        ("postgresql://h/db?sslmode=require;password=x", "postgresql://h/db?sslmode=require;password=***"),
        ("postgresql://h1:1,h2:2/db", "postgresql://h1:1,h2:2/db"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BPWD%3Dsecret", "mssql+pyodbc:///?odbc_connect=***"),
        ("jdbc:sqlserver://h;user=u;password=p", "jdbc:sqlserver://***"),
        ("http://[::1/x", "http://***"),
        ("http://user:pass", "http://***"),
        ("sqlite:////tmp/me@home: a#b=c/x.db", "sqlite:////tmp/me@home: a#b=c/x.db"),
        ("sqlite:////tmp/x.db?key=abc", "sqlite:////tmp/x.db?key=***"),
        ("(postgresql://u:p w@h/db) failed", "(postgresql://***@h/db) failed"),
        ("['http://u:p@h/x','s3://a:b/c@d/e']", "['http://***@h/x','s3://***@d/e']"),
        ("host=x password='a b\\'c' dbname=y", "host=x password='***' dbname=y"),
        ("Driver={X};UID=sa;PWD={a;}}b};Server=h", "Driver={X};UID=sa;PWD=***;Server=h"),
        ("UID%3Dsa%3BPWD%3Dsecret%3B", "UID%3Dsa%3BPWD%3D***"),
        ('{"host": "h", "password": "abc d"}', '{"host": "h", "password": "***"}'),
        ("connect(password='abc', host='h')", "connect(password='***', host='h')"),
        ("max_tokens=128 monkey=ape", "max_tokens=128 monkey=ape"),
        ("https://h/x, s3://b/c.", "https://h/x, s3://b/c."),
    ],
)  # fmt: skip
def test_secrets_of_uris_are_blotted_out(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("message", "uri"),
    [
        ('missing "=" after "hunter22" in connection info string', "postgresql://u:hunter22@h/d"),
        ('invalid password "a b/c"', "postgresql://u:a%20b%2Fc@h/d"),
        ("a signature that does not match: abc%2Fdef", "https://h/x?X-Amz-Signature=abc%2Fdef"),
        ("login failed, PWD was pa55word", "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3Dpa55word"),
        ("bad token ghp_123456", "https://ghp_123456@h/x"),
    ],
)
def test_a_secret_that_an_error_repeats_without_its_uri_is_blotted_out_too(message, uri):
    shown = redact(message, uri, None)
    assert REDACTED in shown
    for secret in ("hunter22", "a b/c", "abc%2Fdef", "pa55word", "ghp_123456"):
        assert secret not in shown


def test_each_word_of_a_command_line_is_one_place_whatever_characters_it_has():
    shown = redact_command(
        ["x", "--tracking-uri=http://u:p w@h", "--storage-path", "s3://k:a'b c@d/e?sig=1", "-v", "--set", "a=1", "u v"]
    )
    assert shlex.split(shown) == [
        "x", "--tracking-uri=http://***@h", "--storage-path", "s3://***@d/e?sig=***", "-v", "--set", "a=1", "u v",
    ]  # fmt: skip


@pytest.mark.launcher
def test_a_traceback_shows_no_secret():
    code = (
        "from trainables.storage.uris import redact_tracebacks\nredact_tracebacks()\n"
        "try:\n    raise OSError('s3://key:hidden@bucket/x is gone')\n"
        "except OSError as error:\n    raise ValueError('postgresql://u:hidden@h/db') from error"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OSError: s3://***@bucket/x is gone" in done.stderr
    assert "ValueError: postgresql://***@h/db" in done.stderr
    assert "hidden" not in done.stderr


hosts = st.sampled_from(["host", "db.example.org", "127.0.0.1", "[::1]", "my_host"])
names = st.sampled_from(["", "owner", "some.one", "AKIA123"])
characters = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"])
blanks = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])


def secrets(alphabet):
    return st.builds(
        lambda before, after: f"{before}{SECRET}{after}", st.text(alphabet, max_size=8), st.text(alphabet, max_size=8)
    )


def databases(user, password, host, port):
    yield f"postgresql://{user}:{password}@{host}{port}/db?sslmode=require"
    yield f"MySQL+pymysql://{user}:{password}@{host}{port}/db"
    yield f"s3://{user}:{password}@bucket/folder?endpoint_override=127.0.0.1:9000&scheme=http"


@settings(max_examples=50)
@given(user=names, secret=secrets(characters), host=hosts, port=st.sampled_from(["", ":5432"]))
@example(user="u", secret=f"a@{SECRET}@b", host="host", port="")
@example(user="u", secret=f"1/{SECRET}?x=", host="host", port="")
@example(user="u", secret=f"{SECRET}://", host="[::1]", port=":5432")
def test_no_password_is_shown_however_it_is_written(user, secret, host, port):
    for uri in databases(user, secret, host, port):
        for shown in (redact(f"error at {uri}: no"), redact_uri(uri), redact_command([f"--x={uri}", uri]), redact(uri)):
            assert SECRET not in shown
    for encoded in (quote(secret, safe=""), quote_plus(secret)):
        for uri in (*databases(user, encoded, host, port), f"http://{user}:{encoded}@{host}{port}/x"):
            text = f"ERROR ({uri}), '{uri}' and {secret}"
            assert SECRET not in redact(text, uri)
            assert host.strip("[]") in redact_uri(uri) or "bucket" in redact_uri(uri)


@settings(max_examples=50)
@given(
    secret=secrets(blanks), key=st.sampled_from(["sig", "X-Amz-Signature", "passwd", "pwd", "anything", "odbc_connect"])
)
def test_no_value_of_a_query_is_shown_that_is_not_known_to_be_harmless(secret, key):
    uri = f"https://account.example.org/box?sv=2024&{key}={quote_plus(secret)}&region=eu-1"
    assert SECRET not in redact(f"cannot read {uri}!") + redact_uri(uri)
    assert redact_uri(uri).startswith("https://account.example.org/box?sv=2024&")
    assert redact_uri(uri).endswith("&region=eu-1")
    escaped = secret.replace("}", "}}")
    odbc = f"mssql+pyodbc:///?odbc_connect={quote_plus(f'DRIVER={{X 18}};PWD={{{escaped}}};SERVER=h')}"
    assert SECRET not in redact(odbc)
    assert SECRET not in redact(f"login failed: {secret}", odbc)


@settings(max_examples=50)
@given(user=names, secret=secrets(blanks), host=hosts)
def test_sqlalchemy_finds_no_secret_in_what_is_shown_of_its_own_uris(user, secret, host):
    url = URL.create("postgresql", username=user or "u", password=secret, host=host.strip("[]"), port=1, database="db")
    shown = make_url(redact_uri(url.render_as_string(hide_password=False)))
    assert (shown.username, shown.password) == (REDACTED, None)
    assert (shown.host, shown.port, shown.database) == (url.host, 1, "db")


@settings(max_examples=50)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_whatever_is_said_can_be_said_without_secrets(text):
    for place in (text, f"http://{text}", f"postgresql://{text}", f"x password={text} y"):
        once = redact(place)
        assert redact(once) == once
        assert redact_place(redact_place(place)) == redact_place(place)
