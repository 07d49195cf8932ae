"""Sizes of fixed packs, and the proposals that may start together."""

import pytest

from study.ledger.ledger import StudyLedger
from study.search.packs import MOST_PACKED, Upcoming, independent_proposals, size_of_group
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan


def sizes(total: int, *, packed: int = MOST_PACKED, workers: int = 2, kinds: int = 1) -> list[int]:
    found: list[int] = []
    while (begun := sum(found)) < total:
        upcoming = Upcoming("replicate", begun, total - begun, kinds=kinds)
        found.append(size_of_group(upcoming, packed=packed, workers=workers, given=False))
    return found


@pytest.mark.parametrize(
    ("total", "kinds", "expected"),
    [(36, 1, [6] * 6), (16, 1, [8, 8]), (10, 1, [5, 5]), (17, 1, [5, 5, 5, 2]), (1, 1, [1]), (24, 2, [12, 12])],
)
def test_the_trials_of_a_stage_are_divided_equally_among_the_workers(total, kinds, expected):
    assert sizes(total, kinds=kinds) == expected


def test_no_pack_is_larger_than_allowed_and_nothing_is_packed_by_one():
    for workers in (1, 2, 3, 64):
        for total in range(1, 100):
            assert max(sizes(total, workers=workers)) <= MOST_PACKED
    assert sizes(5, packed=1) == [1] * 5


def test_a_given_number_of_packed_trials_also_packs_proposals_of_a_model():
    upcoming = Upcoming("search", 12, 1, left=20)
    assert size_of_group(upcoming, packed=4, workers=2, given=True) == 4
    assert size_of_group(upcoming, packed=4, workers=2, given=False) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 10), ({"sampler": "gp"}, 10), ({"sampler": "random", "trials": 30}, 30),
        ({"sampler": "qmc", "trials": 30}, 30), ({"sampler": "cmaes"}, 0), ({"scheduler": "asha"}, 0),
    ],
)  # fmt: skip
def test_only_proposals_that_no_result_decides_about_start_together(tmp_path, values, expected):
    assert independent_proposals(make_plan(tmp_path, **values)) == expected


def test_upcoming_trials_are_those_that_are_handed_out_whatever_the_others_report(tmp_path):
    plan = make_plan(tmp_path, trials=12)
    ledger = StudyLedger(plan)
    search = StudySearch(ledger, {})
    tune = PretendedTune(search, ledger)
    assert (search.upcoming().stage, search.upcoming().count, search.upcoming().left) == ("search", 10, 12)
    first = [tune.next() for _ in range(10)]
    assert search.upcoming() == Upcoming("search", 10, 1, left=2)
    ledger.record_pack([settings["trial_id"] for _, settings in first])
    for each in (*first, tune.next(), tune.next()):
        tune.finish(*each)
    controls = search.upcoming()
    assert (controls.stage, controls.count, controls.kinds) == ("control", 2 * plan.replicates, 2)
    stages = [settings["stage"] for _, settings in (tune.next() for _ in range(controls.count))]
    assert stages == ["control"] * controls.count
    search.optuna_study  # noqa: B018 - one search
    # A resumed study hands out the unfinished trials of a pack together, and knows all members.
    again = StudyLedger(plan, read_only=True)
    assert again.entries[first[0][1]["trial_id"]].pack == tuple(settings["trial_id"] for _, settings in first)


def test_unfinished_members_of_a_pack_resume_together(tmp_path):
    plan = make_plan(tmp_path, trials=4, sampler="random")
    ledger = StudyLedger(plan)
    tune = PretendedTune(StudySearch(ledger, {}), ledger)
    begun = [tune.next() for _ in range(4)]
    names = [settings["trial_id"] for _, settings in begun]
    ledger.record_pack([names[0], names[2], names[3]])
    tune.finish(*begun[2])
    resumed = StudySearch(StudyLedger(plan), {})
    assert resumed.upcoming() == Upcoming("resumed", 0, 2, (names[0], names[2], names[3]))
    assert [resumed.suggest(str(number))["trial_id"] for number in range(2)] == [names[0], names[3]]
    assert resumed.upcoming() == Upcoming("resumed", 0, 1, ())
