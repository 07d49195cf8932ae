"""Check, before any work, that every node of a cluster reaches the places shared by all nodes."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.plan.plan import StudyPlan
from study.plan.travel import files_travel
from trainables.process.errors import StudyError
from trainables.storage.files import missing_folders, remove_empty
from trainables.storage.uris import is_uri, redact

_SECONDS_TO_ANSWER: Final = 60.0


def check_nodes(plan: StudyPlan) -> None:
    """Check that every node sees the study's folders, or reaches the storage.

    Raises:
        StudyError: some nodes do not. The message names the nodes, the place and the remedy.
    """
    storage = [place for place in (plan.storage_path, plan.teacher_outputs_path) if place is not None and is_uri(place)]
    folders = {} if files_travel(plan) else {"--output-dir": plan.output_dir.absolute()}
    if plan.storage_path is not None and not is_uri(plan.storage_path):
        folders["--storage-path"] = Path(plan.storage_path).absolute()
    alone = sum(node["Alive"] for node in ray.nodes()) < 2
    if alone or not (storage or folders):
        return
    with _markers(folders) as markers:
        answers = ask_nodes(_look, ray.put((markers, list(dict.fromkeys(storage)))))
    for option in folders:
        blind = sorted(node for node, found in answers.items() if found is not None and option in found)
        if blind:
            raise StudyError(
                f"{option} {folders[option]} is not seen by {_nodes(blind)}: give --storage-path s3://BUCKET/FOLDER "
                "(or gs://, abfss://), with which the nodes need no shared folder, or a folder that all nodes see"
            )
    for node, found in sorted(answers.items()):
        for place in storage:
            if found is not None and place in found:
                raise StudyError(
                    f"{_nodes([node])} cannot use the storage: {redact(found[place], place)}. Set credentials on every "
                    "node, and check that each node reaches the storage's address"
                )
            if found is None:
                raise StudyError(
                    f"{_nodes([node])} did not answer within {_SECONDS_TO_ANSWER:g} s, when asked to write to the "
                    "storage: check that the node reaches the storage's address, or remove the node from the cluster"
                )


def ask_nodes(task: Any, *arguments: Any) -> dict[str, Any]:
    """Run a function on every node at once, also on busy ones.

    Returns:
        The result by node address. None for a node that did not answer in time. Nodes that left the cluster are left
        out.
    """
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options: Any = {"num_cpus": 0, "max_retries": 1, "scheduling_strategy": there}
            asked[ray.remote(task).options(**options).remote(*arguments)] = node["NodeManagerAddress"]
    ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS_TO_ANSWER)
    answers: dict[str, Any] = {}
    for reference, node in asked.items():
        try:
            answers[node] = ray.get(reference, timeout=0)
        except ray.exceptions.GetTimeoutError:
            answers[node] = None
            ray.cancel(reference, force=True)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError:  # the node has left the cluster
            continue
    return answers


def _look(asked: tuple[Mapping[str, tuple[str, str]], list[str]]) -> dict[str, str]:
    """Return the places that this node cannot use, with the reason, by option or URI."""
    from trainables.storage.remote_folder import RemoteFolder, RemoteFolderError

    markers, storage = asked
    problems = {}
    for option, (file, content) in markers.items():
        path = Path(file)
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            problems[option] = "missing"
    for place in storage:
        try:
            RemoteFolder(place).check()
        except RemoteFolderError as error:
            problems[place] = str(error)
    return problems


@contextmanager
def _markers(folders: Mapping[str, Path]) -> Iterator[dict[str, tuple[str, str]]]:
    """Write a file with a random text into each folder. Remove it afterwards, and each folder that was missing."""
    markers, new = {}, []
    try:
        for option, folder in folders.items():
            new += missing_folders(folder)
            folder.mkdir(parents=True, exist_ok=True)
            path, content = folder / f".node-check-{secrets.token_hex(8)}", secrets.token_hex(16)
            path.write_text(content, encoding="utf-8")
            markers[option] = str(path), content
        yield markers
    except OSError as error:
        raise StudyError(f"cannot write in {error.filename} ({error.strerror}); give a writable folder") from None
    finally:
        for file, _ in markers.values():
            with suppress(OSError):
                Path(file).unlink()
        remove_empty(new)


def _nodes(names: list[str]) -> str:
    return f"node {names[0]}" if len(names) == 1 else f"nodes {', '.join(names)}"
