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


def test_a_trial_does_not_import_the_compiler_of_pytorch():
    program = (
        "import sys, torch;"
        "from trainables.process.threads import use_one_thread;"
        "from trainables.costs.epoch import run_epoch; from trainables.data import load_dataset;"
        "from trainables.run.run import DistillationRun; from trainables.spec.trial import TrialConfig;"
        "use_one_thread(); assert torch.are_deterministic_algorithms_enabled();"
        "run_epoch(DistillationRun(TrialConfig(method='ce', epochs=1), load_dataset('digits', None), None));"
        "sys.exit(any(name in sys.modules for name in ('torch._dynamo', 'torch._inductor')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
