"""What the tests of the report share."""

from collections.abc import Iterator

import pytest

import analysis.report.content


@pytest.fixture(autouse=True, scope="package")
def few_draws() -> Iterator[None]:
    """Importances are tested elsewhere; here they have to be in the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis.report.content, "_FEW_DRAWS", 10)
        yield
