"""Versioned digests for identifying configs and plans."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

# Version 1 hashed all fields, with exceptions for fields added later. Version 2 hashes only read fields with other
# values than the defaults, so a new field changes no digest. Changing a default changes the meaning of existing
# digests, and needs another version.
DIGEST_VERSION: Final = 2


def digest_of(fields: Mapping[str, Any]) -> str:
    """Return 12 hex digits for the fields and the digest version.

    Args:
        fields: JSON values by name, without fields at their defaults.
    """
    content = json.dumps({"version": DIGEST_VERSION, "fields": fields}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]
