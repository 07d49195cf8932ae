"""The blocks of docs/how_to/python.md and the examples of docstrings run."""

import doctest

import pytest

import pesfkd
from pesfkd import handle, interface, messages, teachers
from tests.pesfkd.conftest import BLOCKS


@pytest.mark.study
def test_the_blocks_of_the_document_run_in_their_order(documented):
    assert len(BLOCKS) >= 7
    assert documented["study"].name == "first"


@pytest.mark.study
@pytest.mark.parametrize("module", [handle, interface, messages, teachers])
def test_the_examples_of_docstrings_run(module, ran, folder):
    found = doctest.testmod(module, extraglobs={"pesfkd": pesfkd, "folder": folder})
    assert found.attempted
    assert not found.failed
