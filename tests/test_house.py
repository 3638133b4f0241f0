"The house stands: floors, light imports, notebooks and modules that belong together."

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlbench

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import house

HEAVY = ["numpy", "pandas", "sklearn", "torch", "plotly", "nbdev", "pydantic", "mlflow", "wandb", "shap", "lightgbm", "onnxruntime"]


def loaded_by(code: str, *watched: str) -> list[str]:
    "Which of the watched modules a fresh interpreter has loaded after some code."
    code = f"import sys\n{code}\nprint(*[m for m in {list(watched)!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split() if done.stdout.strip() else []


def test_nothing_imports_from_a_higher_floor():
    assert house.floor_mistakes() == []


def test_the_environment_is_read_in_core_alone():
    assert house.environment_mistakes() == []


def test_every_module_has_one_notebook():
    assert house.module_mistakes() == []


def test_templates_have_one_parameters_cell():
    assert house.template_mistakes() == []


@pytest.mark.parametrize("path", house.notebooks(), ids=lambda p: p.stem)
def test_notebook_is_sound(path):
    assert house.notebook_mistakes(path) == []


def test_importing_mlbench_loads_nothing_heavy():
    assert loaded_by("import mlbench", *HEAVY, "typer", "rich") == []


def test_help_loads_nothing_heavy():
    code = "import io, contextlib\nfrom mlbench.cli import main\n"
    code += "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n    main(['--help'])"
    assert loaded_by(code, *HEAVY) == []


def test_threads_are_set_before_a_numerical_library_can_load():
    code = "import os\nfor k in list(os.environ):\n    if k.startswith(('OMP_', 'MKL_', 'OPENBLAS_')): del os.environ[k]\n"
    code += "import mlbench\nassert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE' and int(os.environ['OMP_NUM_THREADS']) >= 1"
    assert loaded_by(code, "numpy") == []


def test_a_users_own_thread_setting_stays():
    code = "import os\nos.environ['OMP_NUM_THREADS'] = '7'\nimport mlbench\nassert os.environ['OMP_NUM_THREADS'] == '7'"
    assert loaded_by(code) == []


def test_every_public_name_is_there():
    import mlbench

    for name in mlbench.__all__:
        assert getattr(mlbench, name) is not None, name


def test_the_version_is_the_one_of_the_settings():
    import configparser

    import mlbench

    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    assert settings["DEFAULT"]["version"] == mlbench.__version__


def test_an_import_from_above_is_found(tmp_path):
    "The check itself: a chain module that imports training, a data module that loads torch, a registry that loads networks."
    for name, text in {
        "chain/runner.py": "from ..training.model import Model\n",
        "data/schema.py": "import torch\ndef f():\n    import shap\n",
        "models/loop.py": "import torch\nfrom mlbench.models.layers import Drop\n",
        "models/registry.py": "from mlbench.models.loop import Trainer\ndef f():\n    from mlbench.models.layers import Drop\n",
        "models/linear.py": "import os\nx = os.environ['HOME']\ndef g():\n    from mlbench.eda import quality\n",
    }.items():
        (tmp_path / "mlbench" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mlbench" / name).write_text(text)
    found = house.floor_mistakes(tmp_path)
    names = [line.split(" imports ")[1].split(",")[0].split(" when")[0] for line in found]
    assert names == ["mlbench.training.model", "torch", "mlbench.eda", "mlbench.models.loop"]
    assert len(house.environment_mistakes(tmp_path)) == 1


def test_two_notebooks_for_one_module_are_found(tmp_path):
    for name in ("10_data.schema", "11_data.schema"):
        cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "#| default_exp data.schema", "outputs": [], "execution_count": None}
        (tmp_path / "nbs").mkdir(exist_ok=True)
        (tmp_path / "nbs" / f"{name}.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (tmp_path / "mlbench" / "data").mkdir(parents=True)
    (tmp_path / "mlbench" / "data" / "old.py").write_text("")
    found = "\n".join(house.module_mistakes(tmp_path))
    assert "the last one wins" in found and "no module data.schema" in found and "old.py has no notebook" in found


def test_a_half_merged_notebook_is_found(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text('{"cells": [\n<<<<<<< HEAD\n]}')
    assert "conflict" in house.notebook_mistakes(path)[0]
    cells = [{"cell_type": "code", "id": "a", "metadata": {}, "source": "1", "outputs": [{}], "execution_count": 1}] * 2
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": {"name": "julia"}}, "nbformat": 4, "nbformat_minor": 5}))
    assert len(house.notebook_mistakes(path)) == 3


def test_modules_parse_on_the_oldest_python():
    for path in (ROOT / "mlbench").rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))


def test_no_public_name_of_a_package_is_the_name_of_one_of_its_modules():
    "Importing the module first would put it in the place of the name."
    for found in pkgutil.iter_modules(mlbench.__path__):
        if found.ispkg:
            package = importlib.import_module(f"mlbench.{found.name}")
            modules = {m.name for m in pkgutil.iter_modules(package.__path__)}
            assert not modules & set(getattr(package, "__all__", [])), found.name
