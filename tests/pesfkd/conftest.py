"""What the tests of the package share."""

from pathlib import Path

import pytest

import pesfkd

TINY = {
    "space": "adapter_width", "trials": 2, "promising": 1, "replicates": 2, "epochs": 2, "executor": "in-process",
}  # fmt: skip


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory, tables_made_once) -> pesfkd.Study:
    """A study that ran in this process."""
    folder: Path = tmp_path_factory.mktemp("pesfkd")
    with tables_made_once():
        return pesfkd.run(**TINY, name="ran", output_dir=folder, quiet=True)
