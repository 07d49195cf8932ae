"""Fetch a Hugging Face dataset for a command, before the classes and sizes are known."""

from trainables.process.errors import UsageError
from trainables.spec.own_data import is_own_data


def fetch_for_command(dataset: str, *, dry_run: bool) -> None:
    """Fetch a hub dataset. Nothing is done for other datasets.

    Args:
        dataset: dataset name.
        dry_run: whether nothing may be fetched, so that the dataset must be in the cache.

    Raises:
        UsageError: the dataset cannot be fetched, or is missing in a dry run.
    """
    if not is_own_data(dataset):
        return
    from trainables.data.own.opened import fetch_own  # only now, which keeps other commands fast

    try:
        fetch_own(dataset, dry_run=dry_run)
    except ValueError as error:
        raise UsageError(f"--download: {error}") from None
