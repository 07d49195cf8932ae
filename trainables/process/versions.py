"""Versions of the running code: the main libraries and the source tree."""

import hashlib
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_LIBRARIES: Final = ("pesfkd", "torch", "torchvision", "ray", "optuna", "mlflow", "pyarrow", "transformers")


def running_versions() -> dict[str, str]:
    """Return tags: `version.NAME` for each library, and `git.commit` and `git.dirty` in a git checkout."""
    tags = {"version.python": sys.version.split()[0]}
    for name in _LIBRARIES:
        try:
            tags[f"version.{name}"] = version(name)
        except PackageNotFoundError:
            tags[f"version.{name}"] = "not installed"
    return tags | _git_state(Path(__file__).parent)


def code_digest() -> str:
    """Return twelve hex digits of the digest of all `trainables` source files, the code of trials."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _git_state(folder: Path) -> dict[str, str]:
    git = shutil.which("git")
    if git is None:
        return {}

    def run_git(*arguments: str) -> str | None:
        done = subprocess.run(  # noqa: S603 - git, with our own words
            [git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside another project's repository. The commit counts only if the repository tracks
    # this file.
    if run_git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {}
    commit = run_git("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {
        "git.commit": commit,
        "mlflow.source.git.commit": commit,
        "git.dirty": str(bool(run_git("status", "--porcelain"))).lower(),
    }
