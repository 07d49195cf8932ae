"""Places named by a URI or by a folder, and what of a URI nobody should read."""

import re
from typing import Final

REDACTED: Final = "***"

_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Also with a slash in a password, which should have been written as %2F: a mistake must not show it.
_USER: Final = re.compile(r"://(?:[^/@\s]+|[^/@\s:]+:(?!\d+[/?])[^@\s]+)@")
_SECRET_PARAMETER: Final = re.compile(
    r"([?&](?:[^=&\s]*(?:secret|token|password|key|credential)[^=&\s]*|sig|sas)=)[^&\s'\"]+", re.IGNORECASE
)


def is_uri(place: str) -> bool:
    """Whether a place is named by a URI such as `s3://bucket/folder`; a plain path is a folder."""
    return _URI.match(place) is not None


def redact(text: str) -> str:
    """`text` with the secrets of every URI blotted out: its user part, and parameters that are named like a secret.

    The user part is that of `scheme://user:password@host`.
    """
    return _SECRET_PARAMETER.sub(rf"\g<1>{REDACTED}", _USER.sub(f"://{REDACTED}@", text))
