"""Storage at a URI as a file system for Ray Tune and Tune's workers."""

from typing import Any

import pyarrow.fs as pafs
import ray

from trainables.storage.remote_folder import open_storage
from trainables.storage.uris import redact_place


class SharedStorage(pafs.SubTreeFileSystem):
    """File system rooted at a URI, for Tune's workers.

    Tune also pickles this object into Tune's files. If the URI contains secrets, the pickle holds only a reference to
    the URI in Ray's object store.

    Args:
        where: the URI, or an object reference to the URI.
    """

    def __init__(self, where: Any) -> None:
        uri = ray.get(where) if isinstance(where, ray.ObjectRef) else where
        system, path = open_storage(uri)
        super().__init__(path, system)
        self._where = where

    def __reduce__(self) -> tuple[type["SharedStorage"], tuple[Any]]:
        return SharedStorage, (self._where,)


def share(uri: str) -> SharedStorage:
    """Return the file system at a URI. Secrets in the URI stay in Ray's object store, so Ray must be running."""
    return SharedStorage(uri if redact_place(uri) == uri else ray.put(uri))
