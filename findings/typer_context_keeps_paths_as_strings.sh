#!/usr/bin/env bash
# typer 0.28.0 passes a Path to a command's parameter that is declared as Path, but the same parameter in
# `context.params` is a str: types are converted between the context and the call. In 0.29.2, both are Paths. Some
# programs read options from the context to know which ones the user gave. They work with one version and fail with the
# other.
#
# Output seen (Python 3.11): "0.28.0: argument PosixPath, context str" and "0.29.2: argument PosixPath, context PosixPath".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
cat > "$folder/program.py" <<'PYTHON'
import importlib.metadata
from pathlib import Path

import typer

app = typer.Typer(add_completion=False)


@app.command()
def main(context: typer.Context, place: Path = Path()) -> None:
    version = importlib.metadata.version("typer")
    kinds = type(place).__name__, type(context.params["place"]).__name__
    print(f"{version}: argument {kinds[0]}, context {kinds[1]}")


app()
PYTHON
for version in 0.28.0 0.29.2; do
    "$folder/venv/bin/python" -m pip install --quiet "typer==$version"
    "$folder/venv/bin/python" "$folder/program.py" --place here
done > "$folder/said"
cat "$folder/said"
diff "$folder/said" - <<'EXPECTED'
0.28.0: argument PosixPath, context str
0.29.2: argument PosixPath, context PosixPath
EXPECTED
