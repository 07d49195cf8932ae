import subprocess
import sys

import pytest

pytestmark = pytest.mark.launcher


@pytest.mark.parametrize(
    "module",
    [
        "trainables.spec.trial",
        "trainables.spec.measures",
        "trainables.spec.methods",
        "trainables.data.registry",
        "trainables.spec.architectures",
    ],
)
def test_a_plan_is_checked_without_importing_torch(module):
    program = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_trial_needs_neither_ray_nor_optuna_nor_mlflow():
    program = (
        "import trainables.teacher, trainables.run.checkpoint, sys;"
        "sys.exit(any(name in sys.modules for name in ('ray', 'optuna', 'mlflow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
