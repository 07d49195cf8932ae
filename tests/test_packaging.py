"""The wheel, built and installed as a user would do it, outside the source tree."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.launcher

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # A copy, because a build writes into the source tree and would include files left there by an earlier build.
    source = tmp_path_factory.mktemp("source")
    for package in ("pesfkd", "study", "trainables", "search_spaces", "analysis"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "study_results").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_five_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"pesfkd", "study", "trainables", "search_spaces", "analysis"}
    notebook, page = "analysis/notebooks/01_first_look.ipynb", "analysis/report/template/page.html"
    files = [f"study/cluster_files/{name}" for name in ("ray-cluster.yaml", "rayjob.yaml", "slurm.sbatch")]
    typed = [f"{name}/py.typed" for name in tops]
    for needed in (*files, *typed, "study/launch.py", "trainables/methods/pesf_kd.py", notebook, page):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_an_installed_wheel_lists_its_spaces_from_any_folder(wheel, tmp_path):
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*")) / "site-packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    # The dependencies are those of this environment, so a test downloads nothing. A .pth file with this path makes the
    # packages importable, but not the editable installs, so that the wheel is imported.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = subprocess.run(
        [python, "-c", "import study; print(study.__file__)"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    for command in ([python, "-m", "study.launch"], [python, "-c", "from study.launch import main; main()"]):
        done = subprocess.run([*command, "--list-spaces"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "adapter_width\n" in done.stdout
