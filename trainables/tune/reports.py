"""Results of a study's tasks. This module does not import torch, so the study's own process can receive them."""

from typing import NamedTuple

from trainables.teacher_outputs.shard import Shard


class PreparedTeacher(NamedTuple):
    """A study's teacher, ready for the trials.

    Args:
        path: teacher file.
        notes: notes for the user about a given teacher.
    """

    path: str
    notes: list[str]


class FillReport(NamedTuple):
    """Result of a `fill_teacher_outputs` task.

    Args:
        missing: shards missing at the start; empty if the shards to fill were given.
        filled: shards with a file now.
        forwards: samples passed through the teacher.
        seconds: time taken by filling.
        notes: notes for the user.
        node: Ray's id of the task's node; empty without Ray.
    """

    missing: list[Shard]
    filled: list[Shard]
    forwards: int
    seconds: float
    notes: list[str]
    node: str = ""
