import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.journal import Journal, read_journal

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
        complete = sum(end <= length for end in ends)
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
    content[position % (len(content) - 1)] ^= flip  # the last line's end is what a torn line lacks
    path.write_bytes(content)
    events, damaged = read_journal(path)
    assert damaged
    assert len(EVENTS) - 2 <= len(events) < len(EVENTS)
    assert all(event in EVENTS for event in events)
