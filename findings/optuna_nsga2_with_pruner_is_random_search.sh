#!/usr/bin/env bash
# optuna 5.0.0. NSGAIISampler with a pruner that stops most trials proposes exactly the points of RandomSampler with the
# same seed, for any number of trials. Only COMPLETE trials count towards a generation. A pruned trial has a value, but
# never becomes a parent. Nothing is logged.
#
# Output seen (optuna 5.0.0, Python 3.11): "60 of 60 points equal random search when trials are pruned, 21 of 60 when they
# complete".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet optuna==5.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def points(sampler, prunes):
    study = optuna.create_study(sampler=sampler, direction="maximize")
    found = []
    for number in range(60):
        trial = study.ask()
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        found.append((x, y))
        value = -((x - 0.3) ** 2) - (y - 0.7) ** 2
        trial.report(value, step=1)
        if prunes and number % 5:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
    return found


def nsga2():
    return optuna.samplers.NSGAIISampler(population_size=20, seed=7)


random = points(optuna.samplers.RandomSampler(seed=7), prunes=False)
pruned = sum(a == b for a, b in zip(points(nsga2(), prunes=True), random, strict=True))
completed = sum(a == b for a, b in zip(points(nsga2(), prunes=False), random, strict=True))
print(f"{pruned} of 60 points equal random search when trials are pruned, {completed} of 60 when they complete")
assert (pruned, completed) == (60, 21), "Optuna's behaviour has changed"
PYTHON
