"The registry under several processes, under a kill, and at the gate."

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlbench.core.errors import ArtifactError, GateRefused, UsageError
from mlbench.core.files import read_json, sha256_file, write_json, write_text
from mlbench.deployment import list_versions, load_version, promote, register, roll_back
from mlbench.deployment.graph import Block, Graph

REGISTER = "import sys; from mlbench.deployment import register; r = register(sys.argv[1], sys.argv[2]); print(r.version.version, r.decision.promoted)"


def tiny(folder: Path, value: float, metric: str = "r2", data: str = "d1", verdicts: tuple = (), factor: float | None = None) -> Path:
    "A bundle that multiplies an age."
    folder.mkdir(parents=True)
    graph = Graph()
    out = Block(graph.node("Mul", graph.input("age", "number").tensor, graph.constant(factor or value)), "number")
    (folder / "model.onnx").write_bytes(graph.build({"prediction": out}))
    record = {"format": 1, "name": "age", "question": "?", "classes": None, "threshold": None, "ignored": [], "metric": metric}
    record |= {"inputs": [{"name": "age", "type": "number"}], "made_from": {"train": data}, "verdicts": list(verdicts)}
    write_json(folder / "bundle.json", record | {"metrics": {metric: {"value": value, "low": value - 0.02, "high": value + 0.02}}})
    write_text(folder / "SHA256SUMS", "".join(f"{sha256_file(folder / n)}  {n}\n" for n in ("bundle.json", "model.onnx")))
    return folder


@pytest.fixture(scope="module")
def blank(tmp_path_factory) -> Path:
    "A registry with its tables and nothing in them: making them takes MLflow seconds, copying does not."
    from mlbench.deployment.registry import _opened

    place = tmp_path_factory.mktemp("blank")
    with _opened(place) as client:
        client.search_experiments()
    return place / "registry.db"


@pytest.fixture
def place(blank, tmp_path) -> Path:
    "A registry of its own for each test."
    folder = tmp_path / "registry"
    folder.mkdir()
    shutil.copy(blank, folder / "registry.db")
    return folder


def test_four_processes_meet_a_new_registry(tmp_path):
    place = tmp_path / "registry"
    bundles = [tiny(tmp_path / f"b{i}", 0.5 + i / 10) for i in range(4)]
    running = [
        subprocess.Popen([sys.executable, "-c", REGISTER, str(b), str(place)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for b in bundles
    ]
    said = [p.communicate(timeout=120) for p in running]
    assert [p.returncode for p in running] == [0] * 4, said
    versions = list_versions(place, "age")
    assert sorted(int(out.split()[0]) for out, _ in said) == [v.version for v in versions] == [1, 2, 3, 4]
    champion = next(v for v in versions if "champion" in v.aliases)
    assert champion.value == 0.8 and load_version(place, "age").predict([{"age": 10}])[0] == 8.0
    assert not any(err.strip() for _, err in said), said


@pytest.mark.parametrize("delay", [1.0, 2.5])
def test_killed_while_registering_leaves_no_half_version(tmp_path, delay):
    place, bundle = tmp_path / "registry", tiny(tmp_path / "b", 0.5)
    process = subprocess.Popen([sys.executable, "-c", REGISTER, str(bundle), str(place)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    after = register(bundle, place)
    assert after.version.version == 1 and after.version.aliases == ("champion",)
    assert len(list_versions(place, "age")) == 1 and load_version(place, "age").sha256 == after.version.sha256
    assert sqlite3.connect(place / "registry.db").execute("pragma integrity_check").fetchone() == ("ok",)


def test_smaller_is_better_where_it_is(place, tmp_path):
    for value in (3.0, 2.0, 2.5):
        register(tiny(tmp_path / str(value), value, metric="rmse"), place)
    assert {v.value: v.aliases for v in list_versions(place)} == {3.0: ("archived",), 2.0: ("champion",), 2.5: ("challenger",)}


def test_the_gate(place, tmp_path):
    missed = ({"criterion": {"metric": "r2"}, "passed": False, "sentence": "r2 is 0.5 and misses the goal of >= 0.9."},)
    with pytest.raises(GateRefused, match="r2 is 0.5 and misses") as caught:
        register(tiny(tmp_path / "a", 0.5, verdicts=missed), place)
    assert caught.value.exit_code == 3 and list_versions(place) == []
    first = register(tiny(tmp_path / "b", 0.6), place, promote="never")
    assert first.version.aliases == () and not first.decision.promoted
    assert register(tmp_path / "b", place).version.aliases == ("champion",)
    with pytest.raises(GateRefused, match="worse"):
        register(tiny(tmp_path / "c", 0.55), place, promote="require")
    same = register(tiny(tmp_path / "d", 0.6, factor=7.0, data="d2"), place)
    assert "no better" in same.decision.why and "different data" in same.decision.why and same.version.aliases == ("challenger",)
    other = register(tiny(tmp_path / "e", 0.9, metric="mae"), place)
    assert "cannot be compared" in other.decision.why and not other.decision.promoted


def test_promote_and_roll_back(place, tmp_path):
    with pytest.raises(UsageError, match="No model is registered under the name 'age'"):
        promote(place, "age", 1)
    for value in (0.5, 0.7):
        register(tiny(tmp_path / str(value), value), place)
    assert promote(place, "age", 1).version == 1 and roll_back(place, "age").version == 2
    assert {v.version: v.aliases for v in list_versions(place)} == {1: ("archived",), 2: ("champion",)}
    assert promote(place, "age", "champion").version == 2
    with pytest.raises(UsageError, match="has no version or alias 'champoin'. Did you mean 'champion'"):
        load_version(place, "age", "champoin")


def test_other_content_under_a_registered_version_is_refused(place, tmp_path):
    version = register(tiny(tmp_path / "a", 0.5), place).version
    folder = Path(version.source.removeprefix("file://"))
    for name in ("model.onnx", "bundle.json", "SHA256SUMS"):
        os.remove(folder / name)
    for file in tiny(tmp_path / "b", 0.9).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ArtifactError, match="has other content than was registered"):
        load_version(place, "age")


def test_any_sqlite_address_and_nothing_left_elsewhere(blank, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(blank, tmp_path / "elsewhere" / "models.db")
    address = f"sqlite:///{tmp_path / 'elsewhere' / 'models.db'}"
    registered = register(tiny(tmp_path / "a", 0.5), address)
    assert load_version(address, "age").predict([{"age": 2}])[0] == 1.0 and registered.version.place == address
    assert list(work.iterdir()) == [] and (tmp_path / "elsewhere" / "models.db").exists()
    json.dumps(registered.to_dict())
    assert read_json(tmp_path / "a" / "bundle.json")["name"] == registered.to_dict()["name"]
