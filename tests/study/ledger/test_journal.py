import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.ledger.journal import Journal
from tests.study.inspection import read_journal

EVENTS = [{"event": "trial", "n": n, "text": "é\n" * n} for n in range(5)]


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for event in EVENTS:
        journal.append(event, durable=True)
    journal.close()
    return tmp_path / "journal.jsonl"


def test_what_is_appended_is_read_back(path):
    assert read_journal(path) == (EVENTS, [])


def test_a_journal_goes_on_where_it_ended(path):
    journal = Journal(path)
    journal.append({"event": "more"})
    journal.close()
    assert read_journal(path) == ([*EVENTS, {"event": "more"}], [])


def test_a_writer_killed_at_any_byte_loses_at_most_the_line_it_was_writing(path):
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        complete = sum(end <= length + 1 for end in ends)  # a last line without line break is complete
        assert read_journal(path) == (EVENTS[:complete], [])
        journal = Journal(path)
        journal.append({"event": "after"})
        journal.close()
        assert read_journal(path) == ([*EVENTS[:complete], {"event": "after"}], [])


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_noticed_and_costs_at_most_two_lines(tmp_path_factory, position, flip):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    for event in EVENTS:
        journal.append(event)
    journal.close()
    content = bytearray(path.read_bytes())
    content[position % (len(content) - 1)] ^= flip  # a file without the last line break is valid, so that byte stays
    path.write_bytes(content)
    events, damaged = read_journal(path)
    assert damaged
    assert len(EVENTS) - 2 <= len(events) < len(EVENTS)
    assert all(event in EVENTS for event in events)


ALTERED = {
    "line ends of Windows": lambda whole: whole.replace(b"\n", b"\r\n"),
    "a byte order mark": lambda whole: b"\xef\xbb\xbf" + whole,
    "no line break at the end": lambda whole: whole[:-1],
    "a blank line at the end": lambda whole: whole + b"\n",
    "zeros at the end, as after a power cut": lambda whole: whole + b"\0" * 4096,
    "a torn line and zeros": lambda whole: whole + b'0123abcd {"event":' + b"\0" * 512,
    "all of it twice": lambda whole: whole + whole,
    "a stretch of it twice": lambda whole: whole + whole[whole.index(b"\n") + 1 :],
    "Windows, a mark and a copy": lambda whole: b"\xef\xbb\xbf" + (whole + whole).replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_what_a_copy_or_an_editor_does_to_a_text_file_changes_no_event(path, alter):
    path.write_bytes(alter(path.read_bytes()))
    assert read_journal(path) == (EVENTS, [])
    journal = Journal(path)
    journal.append({"event": "after"})
    journal.close()
    assert read_journal(path) == ([*EVENTS, {"event": "after"}], [])


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole.replace(b"\n", b"\r"),
        lambda whole: whole[:-1] + b"*",
        lambda whole: whole[:-1].replace(b'"n":4', b'"n":5'),
    ],
    ids=["line ends of old Macs", "another last byte", "another last line"],
)
def test_a_last_line_that_was_changed_and_not_torn_is_damage_and_is_not_cut_off(path, change):
    path.write_bytes(change(path.read_bytes()))
    before = path.read_bytes()
    damaged = read_journal(path)[1]
    assert damaged
    journal = Journal(path)
    journal.append({"event": "after"})
    journal.close()
    assert path.read_bytes().startswith(before)
    assert read_journal(path)[0][-1] == {"event": "after"}
    assert set(damaged) <= set(read_journal(path)[1])
