#!/usr/bin/env bash
# ray 2.60.0: `RayTaskError` sets `ip`, `pid` and `function_name` in its constructor, so an error handler that names the
# failing node reads `error.ip`. `ray.get` raises an object of a class made at run time, which inherits from
# `RayTaskError` and from the type of the original error, and has another constructor. It sets none of the three:
# attribute access goes on to the original error and fails with "'KeyError' object has no attribute 'ip'". So the handler
# replaces the error with its own. The address is in the text of the error alone. With `except RayTaskError`, a type
# checker finds nothing wrong.
#
# Output seen (Python 3.11, x86_64): "is a RayTaskError True", "ip missing", "pid missing", "function_name missing",
# "cause KeyError", "address in the text True".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'ray==2.60.0'
cat > "$folder/program.py" <<'PYTHON'
import os
import re

os.environ |= {"RAY_AUTH_TOKEN": "a" * 40, "RAY_USAGE_STATS_ENABLED": "0"}
import ray

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote
def failing():
    return {}["absent"]


try:
    ray.get(failing.remote())
except Exception as error:
    print("is a RayTaskError", isinstance(error, ray.exceptions.RayTaskError))
    for name in ("ip", "pid", "function_name"):
        print(name, "set" if hasattr(error, name) else "missing")
    print("cause", type(error.cause).__name__)
    print("address in the text", re.search(r"ip=[\d.]+", str(error)) is not None)
ray.shutdown()
PYTHON
"$folder/venv/bin/python" "$folder/program.py" 2> "$folder/errors" > "$folder/said" || { cat "$folder/errors"; exit 1; }
cat "$folder/said"
diff "$folder/said" - <<'EXPECTED'
is a RayTaskError True
ip missing
pid missing
function_name missing
cause KeyError
address in the text True
EXPECTED
