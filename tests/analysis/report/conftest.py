"""Fixtures shared by the report tests."""

from collections.abc import Iterator

import pytest

import analysis.report.content


@pytest.fixture(autouse=True, scope="package")
def few_draws() -> Iterator[None]:
    """Use ten draws for importances. Their values are tested elsewhere; here the page only has to contain them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis.report.content, "_FEW_DRAWS", 10)
        yield
