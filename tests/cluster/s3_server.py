"""S3-compatible server that can be made to fail: `python -m tests.cluster.s3_server PORT TROUBLE_FILE`.

The file holds the share of requests to answer with 503, from 0 to 1. Without the file, all requests are answered.
"""

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

BUCKET = "studies"
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message>'
    b"<RequestId>test</RequestId></Error>"
)


class Unreliable:
    """Web application that answers a share of all requests with 503.

    Args:
        application: the reliable application.
        file: file with the share. Answers are counted in the file next to it with the ending `.json`.
    """

    def __init__(self, application: Any, file: Path) -> None:
        self._application = application
        self._file = file
        self._chance = random.Random(11)
        self._answers: Counter[str] = Counter()
        self._counting = threading.Lock()

    def __call__(self, request: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        share = float(self._file.read_text()) if self._file.exists() else 0.0
        with self._counting:
            fails = self._chance.random() < share
            self._answers["503" if fails else "others"] += 1
            self._file.with_suffix(".json").write_text(json.dumps(self._answers))
        if not fails:
            return self._application(request, begin)  # type: ignore[no-any-return]
        if length := int(request.get("CONTENT_LENGTH") or 0):
            request["wsgi.input"].read(length)
        begin("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_SLOW_DOWN)))])
        return [_SLOW_DOWN]


def main() -> None:
    """Serve until the end of this process."""
    port, file = int(sys.argv[1]), Path(sys.argv[2])
    application = Unreliable(DomainDispatcherApplication(create_backend_app), file)
    run_simple("0.0.0.0", port, application, threaded=True)


if __name__ == "__main__":
    main()
