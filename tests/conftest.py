"What every test may ask for: real data kept beside the checkout, and a clean surrounding."

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
MLBENCH_NAMES = ("MLBENCH_RUN", "MLBENCH_STAGE", "MLBENCH_PROJECT", "MLBENCH_PARAMETERS")


def shared_data_folder() -> Path | None:
    "The folder of shared data: `MLBENCH_SHARED_DATA`, else `../shared/data` beside the checkout, else none."
    named = os.environ.get("MLBENCH_SHARED_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data():
    "`shared_data('adult.csv.gz')` is the path of that file; the test is skipped with the reason where the data are not there."

    def find(name: str) -> Path:
        folder = shared_data_folder()
        if folder is None:
            pytest.skip("no shared data: set MLBENCH_SHARED_DATA, or keep the data in ../shared/data beside the checkout")
        path = folder / name
        if not path.exists():
            pytest.skip(f"{name} is not in the shared data ({folder.name}/)")
        return path

    return find


@pytest.fixture(scope="session")
def checkout() -> Path:
    "The root of the checkout: where `settings.ini`, `nbs` and `templates` lie."
    return CHECKOUT


@pytest.fixture(autouse=True)
def _outside_any_run(monkeypatch):
    "A test never writes into the run or project of the shell that started it."
    for name in MLBENCH_NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def source_held_fixed(monkeypatch):
    "Whoever edits mlbench while the tests run does not make its results outdated."
    import mlbench.chain.cache
    import mlbench.chain.record

    for module in (mlbench.chain.cache, mlbench.chain.record):
        monkeypatch.setattr(module, "mlbench_source", lambda: "m" * 64)


@pytest.fixture
def say(capsys):
    "Run a command in this process; gives exit code, standard output, standard error."
    from mlbench.cli import main

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main([str(w) for w in words])
        out = capsys.readouterr()
        return end.value.code, out.out, out.err

    return run
