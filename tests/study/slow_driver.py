"""`python -m tests.study.slow_driver SECONDS ...`: the launcher, with longer epochs at no cost in processor time.

Only for `--executor in-process`. Without the delay, a study of digits would end before a test could interrupt it.
"""

import sys
import time
from typing import Any
from unittest import mock

from study import launch
from tests.study.epochs import before_each_epoch
from trainables.tune import session


def main() -> None:
    seconds = float(sys.argv.pop(1))
    begin = session.begin_run

    def begin_slow(settings: dict[str, Any], **options: Any) -> Any:
        return before_each_epoch(begin(settings, **options), lambda _: time.sleep(seconds))

    with mock.patch.object(session, "begin_run", begin_slow):
        launch.main()


if __name__ == "__main__":
    main()
