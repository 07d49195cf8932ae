"""Process in the place of Ray's dashboard agent, which a Ray node requires. The process sleeps until the node ends."""

import os
import time

node = int(os.environ["RAY_RAYLET_PID"])
while os.getppid() == node:
    time.sleep(1)
