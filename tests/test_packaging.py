"What is installed is whole: the source distribution, the wheel made from it, and the notebooks inside."

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ["mlbench", "templates", "settings.ini", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    "A source distribution and the wheel that was built from it, made in a copy."
    folder = tmp_path_factory.mktemp("package")
    for part in PARTS:
        source = ROOT / part
        shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__")) if source.is_dir() else shutil.copy(source, folder / part)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "dist"


def wheel_names(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as file:
        return set(file.namelist())


def test_the_source_distribution_can_be_built_from(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as file:
        names = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    assert {"settings.ini", "setup.py", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert len([n for n in names if n.startswith("templates/") and n.endswith(".ipynb")]) == 6


def test_the_wheel_holds_every_module_and_every_file_beside_them(dist):
    names = wheel_names(dist)
    kept = [p for p in (ROOT / "mlbench").rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc"]
    missing = [p.relative_to(ROOT).as_posix() for p in kept if p.relative_to(ROOT).as_posix() not in names]
    assert missing == []


def test_the_templates_travel_inside(dist):
    inside = sorted(n for n in wheel_names(dist) if n.startswith("mlbench/templates/"))
    assert [Path(n).name for n in inside] == sorted(p.name for p in (ROOT / "templates").glob("0*.ipynb"))


def test_nothing_else_is_installed(dist):
    tops = {n.split("/")[0] for n in wheel_names(dist)}
    assert tops == {"mlbench", next(t for t in tops if t.endswith(".dist-info"))}


def test_commands_and_engine_are_registered(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as file:
        text = file.read(next(n for n in file.namelist() if n.endswith("entry_points.txt"))).decode()
        about = file.read(next(n for n in file.namelist() if n.endswith("METADATA"))).decode()
    assert "mlbench = mlbench.cli:main" in text and "[papermill.engine]" in text and "mlbench.chain.engine:MlbenchEngine" in text
    assert "Requires-Python: >=3.11" in about and "protobuf<7" in about and "nbdev" not in about.split("Provides-Extra")[0]


def test_the_installed_wheel_makes_a_project_away_from_the_checkout(dist, tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(next(dist.glob("*.whl")))]
    subprocess.run(command, check=True)
    env = {**os.environ, "PYTHONPATH": str(site)}
    where = subprocess.run([sys.executable, "-c", "import mlbench; print(mlbench.__file__)"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(str(site))
    done = subprocess.run([sys.executable, "-m", "mlbench", "new", "flowers", "--example", "iris"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "flowers").glob("0*.ipynb"))) == 6


def test_the_constraints_hold_the_requirements():
    "Every version that make installs is one that the package asks for."
    from packaging.requirements import Requirement

    import mlbench.cli.doctor as doctor

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    lines = doctor.metadata.requires("mlbench")
    wrong = []
    for requirement in map(Requirement, lines):
        pin = pins.get(requirement.name.lower().replace("_", "-"))
        if pin is None or not requirement.specifier.contains(pin):
            wrong.append(f"{requirement}: {pin}")
    assert wrong == []
