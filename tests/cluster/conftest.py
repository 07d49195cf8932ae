"""One cluster for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.cluster.clusters import Cluster, cluster


@pytest.fixture(scope="session")
def real() -> Iterator[Cluster]:
    """Cluster of a head and two workers, with storage and an MLflow server, on five machines that share nothing."""
    late = ("worker5", "worker6", "spot")
    with cluster(names=late, tracking=True) as started:
        yield started
