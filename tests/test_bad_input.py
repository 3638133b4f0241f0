"Wrong input, as a user gives it at the command line: each ends in words that say what to do, or in a finding."

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlbench.core.files import read_json, read_yaml, write_yaml


def mlbench(*words, cwd):
    "Run the command line; a traceback on the screen is a failure in every case."
    done = subprocess.run([sys.executable, "-m", "mlbench", *map(str, words)], cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert "Traceback (most recent call last)" not in done.stdout + done.stderr
    return done


def customers(n=120, seed=0):
    rng = np.random.default_rng(seed)
    age, plan = rng.integers(18, 80, n), rng.choice(["basic", "gold"], n)
    left = np.where(rng.random(n) < 0.2 + 0.4 * (plan == "basic"), "Yes", "No")
    return pd.DataFrame({"age": age, "plan": plan, "spend": rng.normal(50, 9, n).round(2), "left": left})


def said(done):
    "What a person reads, in one line."
    return " ".join((done.stdout + done.stderr).replace("│", " ").split())


def project(tmp_path, frame, target="left", **changes):
    "A project whose problem.yaml was changed by hand."
    frame.to_csv(tmp_path / "customers.csv", index=False)
    customers().to_csv(tmp_path / "good.csv", index=False)
    done = mlbench("new", "shop", "--data", "good.csv", "--target", "left", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    problem = read_yaml(tmp_path / "shop" / "problem.yaml")
    problem["data"] = {"source": "../customers.csv"}
    problem["target"] = target
    for key, value in changes.items():
        problem[key] = value
    write_yaml(tmp_path / "shop" / "problem.yaml", problem)
    return tmp_path / "shop"


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", ["empty"]),
        (b"age,plan,left\n", ["no rows"]),
        (bytes(range(256)) * 40, ["binary"]),
    ],
    ids=["empty", "header only", "binary"],
)
def test_a_file_that_is_no_table(tmp_path, content, words):
    (tmp_path / "customers.csv").write_bytes(content)
    done = mlbench("new", "shop", "--data", "customers.csv", "--target", "left", cwd=tmp_path)
    assert done.returncode == 2 and "customers.csv" in said(done)
    assert all(w in said(done).lower() for w in words), said(done)
    assert not (tmp_path / "shop").exists()


def test_a_missing_file_names_what_is_near(tmp_path):
    customers().to_csv(tmp_path / "customers.csv", index=False)
    done = mlbench("new", "shop", "--data", "custmers.csv", "--target", "left", cwd=tmp_path)
    assert done.returncode == 2 and "customers.csv" in said(done) and not (tmp_path / "shop").exists()


def test_a_wrong_target_names_what_is_near(tmp_path):
    customers().to_csv(tmp_path / "customers.csv", index=False)
    done = mlbench("new", "shop", "--data", "customers.csv", "--target", "lefd", cwd=tmp_path)
    assert done.returncode == 2 and "left" in said(done) and not (tmp_path / "shop").exists()


def test_an_existing_project_is_not_overwritten(tmp_path):
    customers().to_csv(tmp_path / "customers.csv", index=False)
    assert mlbench("new", "shop", "--data", "customers.csv", "--target", "left", cwd=tmp_path).returncode == 0
    before = (tmp_path / "shop" / "problem.yaml").read_bytes()
    assert mlbench("new", "shop", "--data", "customers.csv", "--target", "plan", cwd=tmp_path).returncode == 2
    assert (tmp_path / "shop" / "problem.yaml").read_bytes() == before


def _forty(frame):
    return frame.assign(left=[f"reason {i % 40}" for i in range(len(frame))])


@pytest.mark.parametrize(
    "make, changes, words",
    [
        (lambda f: f, {"target": "lefd"}, ["lefd", "left"]),
        (lambda f: f.assign(left=np.nan), {}, ["left", "no value"]),
        (lambda f: f.assign(left="Yes"), {}, ["left", "Yes"]),
        (lambda f: f.head(2), {}, ["2 rows"]),
        (_forty, {}, ["40", "binary", "multiclass"]),
    ],
    ids=["wrong target", "all missing", "one class", "two rows", "40 values"],
)
def test_a_target_that_cannot_be_learned(tmp_path, make, changes, words):
    folder = project(tmp_path, make(customers()), **changes)
    done = mlbench("run", folder, "--to", "problem", cwd=tmp_path)
    assert done.returncode in (1, 2)
    for word in words:
        assert word in said(done), said(done)


def test_traps_in_the_data_become_findings(tmp_path):
    "A column that equals the target, duplicate rows, and 5,000 columns, in one table."
    frame = customers(300)
    rng = np.random.default_rng(1)
    wide = pd.DataFrame(rng.normal(size=(300, 5000)).round(3), columns=[f"sensor_{i}" for i in range(5000)])
    frame = pd.concat([frame, wide], axis=1).assign(cancelled=frame["left"].map({"Yes": "1 cancelled", "No": "0 stayed"}))
    frame = pd.concat([frame, frame.head(40)], ignore_index=True)
    folder = project(tmp_path, frame)
    done = mlbench("run", folder, "--to", "eda", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    run = Path(done.stdout.strip().splitlines()[-1])
    findings = read_json(tmp_path / run / "stages" / "02_eda" / "artifacts" / "findings.json")
    text = json.dumps(findings)
    assert "cancelled" in text and "duplicate" in text.lower()


def test_a_password_in_an_address_appears_nowhere(tmp_path):
    folder = project(tmp_path, customers(), data={"source": "postgresql://ana:canary-5b1f@127.0.0.1:9/shop", "query": "select 1"})
    done = mlbench("run", folder, "--to", "problem", cwd=tmp_path)
    assert done.returncode in (1, 2) and "canary-5b1f" not in done.stdout + done.stderr
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "problem.yaml":
            assert b"canary-5b1f" not in file.read_bytes(), file
