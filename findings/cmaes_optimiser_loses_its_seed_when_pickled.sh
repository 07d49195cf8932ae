#!/usr/bin/env bash
# cmaes 0.13.1. A pickled optimiser does not keep its random generator. Loading it makes a new generator from the
# system's entropy. Two copies loaded from one pickle of CMA(seed=1) therefore propose different points, and both differ
# from the points of the original optimiser. CMAwM has the same problem. To store an optimiser and continue later, also
# store and restore the generator.
#
# Output seen (Python 3.11, numpy 2.4.6): "CMA: the original and 2 copies propose 3 different points" and the same for CMAwM.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet cmaes==0.13.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import pickle

import numpy as np
from cmaes import CMA, CMAwM

bounds, steps = np.array([[-5.0, 5.0]] * 3), np.array([0.0, 0.0, 1.0])
optimisers = {
    "CMA": CMA(mean=np.zeros(3), sigma=1.0, seed=1),
    "CMAwM": CMAwM(mean=np.zeros(3), sigma=1.0, bounds=bounds, steps=steps, seed=1),
}
for name, optimiser in optimisers.items():
    stored = pickle.dumps(optimiser)
    asked = [np.asarray(each.ask()).tobytes() for each in (optimiser, pickle.loads(stored), pickle.loads(stored))]
    different = len(set(asked))
    print(f"{name}: the original and 2 copies propose {different} different points")
    assert different == 3, "the behaviour of cmaes has changed"
PYTHON
