"""A study's tasks as run by Ray on a node."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from trainables.teacher_outputs.shard import Shard
from trainables.tune.reports import FillReport, PreparedTeacher
from trainables.tune.settings import resolved
from trainables.tune.tasks import fill_teacher_outputs, prepare_teacher, progress_to_file


def prepare_teacher_on_node(
    config: dict[str, Any],
    data_root: str | None,
    folder: str,
    progress_file: str,
    user_code: Sequence[Mapping[str, Any]],
) -> PreparedTeacher:
    """Prepare a teacher, and write the progress to a file; see `trainables.tune.tasks.prepare_teacher`."""
    return prepare_teacher(config, data_root, folder, progress_to_file(progress_file), user_code=user_code)


def fill_on_node(settings: dict[str, Any], shards: list[Shard] | None = None) -> FillReport:
    """Fill teacher outputs, and report the node; see `trainables.tune.tasks.fill_teacher_outputs`."""
    report = fill_teacher_outputs(resolved(settings), shards)
    return report._replace(node=ray.get_runtime_context().get_node_id())
