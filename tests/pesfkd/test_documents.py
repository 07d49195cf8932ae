"""The blocks of docs/python.md and the examples of docstrings run."""

import doctest

import pytest

import pesfkd
from pesfkd import handle, interface, messages, teachers
from tests.pesfkd.conftest import BLOCKS


@pytest.mark.study
def test_the_blocks_of_the_document_run_in_their_order(documented):
    assert len(BLOCKS) >= 7
    assert documented["study"].name == "first"


@pytest.mark.parametrize("module", [handle, interface, messages, teachers])
def test_the_examples_of_docstrings_run(module):
    found = doctest.testmod(module, extraglobs={"pesfkd": pesfkd}, optionflags=doctest.ELLIPSIS)
    assert not found.failed
