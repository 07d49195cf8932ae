#!/usr/bin/env bash
# torch 2.14.1: `torch.use_deterministic_algorithms(True)` imports the compiler (torch._inductor and torch._dynamo, more
# than 500 modules), although nothing is compiled. `torch.set_deterministic_debug_mode("error")`, documented as another
# interface to the same setting, sets the same flag and imports nothing. In a program of many short processes, the
# import takes a large part of the time (here 1.5 s of processor time per process, half as much as `import torch`).
#
# Output seen (Python 3.11, x86_64): "debug mode: flag True, compiler imported False, more than 500 new modules False"
# and "switch: flag True, compiler imported True, more than 500 new modules True".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'torch==2.14.1' 'numpy==2.4.6'
cat > "$folder/program.py" <<'PYTHON'
import sys

import torch

before = len(sys.modules)
if sys.argv[1] == "switch":
    torch.use_deterministic_algorithms(True)
else:
    torch.set_deterministic_debug_mode("error")
flag, compiler = torch.are_deterministic_algorithms_enabled(), "torch._dynamo" in sys.modules
many = len(sys.modules) - before > 500
print(f"{sys.argv[1]}: flag {flag}, compiler imported {compiler}, more than 500 new modules {many}")
PYTHON
for way in "debug mode" switch; do
    "$folder/venv/bin/python" "$folder/program.py" "$way"
done > "$folder/said"
cat "$folder/said"
diff "$folder/said" - <<'EXPECTED'
debug mode: flag True, compiler imported False, more than 500 new modules False
switch: flag True, compiler imported True, more than 500 new modules True
EXPECTED
