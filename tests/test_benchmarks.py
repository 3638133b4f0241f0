"How `benchmarks/quality.py` scores, ranks and resumes, on predictions made up here: no peer is installed or run."

import json

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def scoring(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "benchmarks"))
    from peers import scoring

    return scoring


@pytest.fixture
def quality(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "benchmarks"))
    import quality

    return quality


def outcome(scoring, name, task, y, predicted):
    rows = scoring.row_losses(task, y, predicted)
    return scoring.Outcome(name, scoring.of_rows(task, rows), scoring.second_score(task, y, predicted), rows, 1.0, 0.1, 100.0)


def test_losses_agree_with_scikit_learn(scoring):
    from sklearn.metrics import log_loss, roc_auc_score, root_mean_squared_error

    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, 200), rng.dirichlet(np.ones(3), 200)
    assert np.isclose(scoring.of_rows("multiclass", scoring.row_losses("multiclass", y, p)), log_loss(y, p))
    b, q = (y > 0).astype(int), np.round(np.column_stack([p[:, 0], 1 - p[:, 0]]), 1)  # rounded: there are ties
    assert np.isclose(scoring.second_score("binary", b, q), roc_auc_score(b, q[:, 1]))
    v, w = rng.normal(size=200), rng.normal(size=200)
    assert np.isclose(scoring.of_rows("regression", scoring.row_losses("regression", v, w)), root_mean_squared_error(v, w))


def test_one_impossible_row_is_bounded_and_shares_sum_to_one(scoring):
    p = np.array([[1.0, 0.0], [0.5, np.nan], [0.0, 0.0]])
    assert np.allclose(scoring.shares(p).sum(axis=1), 1)
    assert scoring.row_losses("binary", np.array([1, 0, 0]), p)[0] == pytest.approx(-np.log(scoring.FLOOR), rel=1e-3)


def test_the_constant_predictor_knows_the_training_rows_alone(scoring):
    assert scoring.constant("multiclass", np.array([0, 0, 0, 2]), 2, 3).tolist() == [[0.75, 0, 0.25]] * 2
    assert scoring.constant("regression", np.array([1.0, 3.0]), 3).tolist() == [2, 2, 2]


def test_normalised_scores(scoring):
    assert scoring.normalised(0.6, 0.6, 0.2) == 0
    assert scoring.normalised(0.2, 0.6, 0.2) == 1
    assert scoring.normalised(0.3, 0.6, 0.2) == pytest.approx(0.75)
    assert scoring.normalised(3.6, 0.6, 0.2) == -1, "one disaster does not decide a mean"
    assert scoring.normalised(np.inf, 0.6, 0.2) == 0, "a failure answers as the constant predictor does"
    assert scoring.normalised(0.7, 0.6, 0.7) == scoring.normalised(0.5999, 0.6, 0.5999) == 0, "nobody beats the constant predictor"


def test_ranks_share_ties_and_put_failures_last(scoring):
    assert scoring.ranks({"a": 0.3, "b": 0.1, "c": 0.3, "d": np.inf, "e": np.inf}) == {"b": 1, "a": 2.5, "c": 2.5, "d": 4.5, "e": 4.5}


def test_the_shortfall_is_a_share_of_the_gap_to_the_constant(scoring):
    assert scoring.shortfall(0.404, 0.4, 0.8) == pytest.approx(0.01)
    assert scoring.shortfall(0.3, 0.4, 0.8) < 0
    assert scoring.shortfall(np.inf, 0.4, 0.8) == np.inf
    assert scoring.shortfall(0.9, 0.85, 0.8) == 1, "the other is worse than the constant: being worse still counts in full"
    assert scoring.shortfall(0.8, 0.85, 0.8) == -1
    assert scoring.shortfall(0.9, np.inf, 0.8) == -np.inf


def test_noise_is_told_from_a_difference(scoring):
    rng = np.random.default_rng(1)
    y = rng.normal(size=400)
    good, same, worse = (outcome(scoring, n, "regression", y, y + s * rng.normal(size=400)) for n, s in (("good", 0.5), ("same", 0.51), ("worse", 0.7)))
    lines = {line["system"]: line for line in scoring.of_table("regression", [worse, good, same], 1.0)}
    best = min(lines.values(), key=lambda line: line["rank"])
    assert best["near"] and lines["good"]["near"] and lines["same"]["near"] and not lines["worse"]["near"]
    low, high = scoring.difference("regression", worse.rows, good.rows)
    assert 0 < low < worse.score - good.score < high
    assert scoring.difference("regression", worse.rows, good.rows) == (low, high), "the same draws every time"


def test_the_summary_counts_only_tables_that_all_systems_have(scoring):
    line = {"normalised": 1.0, "near": True, "shortfall": 0.0}
    tables = {
        "one": [{"system": "a", "rank": 1.0} | line, {"system": "b", "rank": 2.0} | line | {"normalised": 0.5, "near": False, "shortfall": 0.5}],
        "two": [{"system": "b", "rank": 1.0} | line, {"system": "a", "rank": 2.0} | line | {"shortfall": 0.02}],
        "three": [{"system": "a", "rank": 1.0} | line],
    }
    a, b = sorted(scoring.summary(tables), key=lambda found: found["system"])
    assert (a["tables"], a["rank"], a["normalised"], a["near"], a["first"], a["worst"]) == (2, 1.5, 1.0, 2, 1, "two")
    assert (b["rank"], b["normalised"], b["near"], b["shortfall"], b["worst"]) == (1.5, 0.75, 1, 0.5, "one")


def test_the_bars(quality):
    lines = [{"system": s, "rank": 2.0, "normalised": 0.9, "shortfall": 0.0, "worst": "x"} for s in quality.SYSTEMS]
    assert quality.bars(lines) == []
    assert quality.bars(lines[1:]) == [], "without all systems there is nothing to miss"
    lines[0] |= {"rank": 2.5, "normalised": 0.8, "shortfall": 0.02}
    missed = quality.bars(lines)
    assert len(missed) == 3 and "2.0% of the gap" in missed[2]


def test_rows_are_cut_and_split_the_same_for_everybody(scoring):
    from peers import tables

    n = 1000
    frame = pd.DataFrame({"row": range(n), "y": ["rare"] * 5 + ["b"] * 395 + ["a"] * 600})
    table = tables.Table("t", "multiclass", "y", "")
    train, test = tables.split(table, frame, seed=3)
    assert len(test) == 250 and not set(train.row) & set(test.row) and len(train) + len(test) == n
    assert test.y.value_counts().to_dict() == {"a": 150, "b": 99, "rare": 1}, "every class by its share"
    assert tables.split(table, frame, seed=3)[1].equals(test) and not tables.split(table, frame, seed=4)[1].equals(test)
    many = pd.concat([frame] * 30, ignore_index=True)
    assert abs(sum(map(len, tables.split(table, many))) - tables.LARGEST) <= 3


def test_no_table_keeps_its_target_or_a_leak(scoring, shared_data):
    from peers import tables

    folder = shared_data("README.md").parent
    assert len(tables.TABLES) >= 10 and {t.task for t in tables.TABLES.values()} == {"binary", "multiclass", "regression"}
    compas = tables.frame_of(tables.TABLES["compas"], folder)
    assert not [c for c in compas if c.startswith(("r_", "vr_", "decile")) or c in ("is_recid", "event")] and "two_year_recid" in compas
    assert compas.isna().any().any(), "missing cells stay missing"


def test_classes_are_put_in_the_order_of_the_job(scoring):
    from peers import worker

    p = np.array([[0.1, 0.9], [0.6, 0.4]])
    assert worker.ordered(["a", "b", "c"], ["c", "a"], p).tolist() == [[0.9, 0, 0.1], [0.4, 0, 0.6]]
    assert worker.ordered(["0", "1"], [0.0, 1.0], p).tolist() == p.tolist(), "0.0 is the class 0"
    assert worker.ordered(["no", "yes"], ["no", "yes"], np.array([0.25])).tolist() == [[0.75, 0.25]], "one column is that of the second class"
    with pytest.raises(ValueError, match="not among"):
        worker.ordered(["a"], ["b"], p[:, :1])
    train, test = pd.DataFrame({"n": [1, 2], "t": ["x", None]}), pd.DataFrame({"n": [3], "t": ["new"]})
    assert worker.as_categories(train)(test).t.isna().all() and worker.as_categories(train)(train).t.tolist()[0] == "x"


def test_results_are_kept_rendered_and_gone_on_from(quality, tmp_path, monkeypatch, capsys):
    tables, path = quality.TABLES, tmp_path / "out.json"
    frame = pd.DataFrame({"x": np.arange(200.0), "Survived": np.arange(200) % 2})
    asked = []

    def fit(python, job, train, test):
        asked.append(job["system"])
        known = {"memory": 10.0, "process": 1.0}
        if job["system"] == "flaml":
            return known | {"failed": "exit code 1: out of ideas"}, None
        sure = {"mlbench": 0.9, "catboost": 0.8}.get(job["system"], 0.7)
        p = np.where(test["Survived"].to_numpy()[:, None] == np.arange(2), sure, 1 - sure)
        return known | {"fit": 9.0 if job["system"] == "mljar" else 1.0, "predict": 0.1, "versions": {job["system"]: "1.0"}, "note": ""}, p

    monkeypatch.setattr(quality, "one_fit", fit)
    monkeypatch.setattr(quality, "frame_of", lambda table, folder: frame)
    monkeypatch.setattr(quality, "data_folder", lambda given: tmp_path)
    monkeypatch.setattr(quality, "python_of", lambda system, cache: tmp_path)
    monkeypatch.setattr(quality, "adopt_orphans", lambda: None)

    def command(*words):
        monkeypatch.setattr("sys.argv", ["quality.py", "--tables", "titanic", "--seconds", "5", "--out", str(path), *words])
        return quality.main()

    assert command("--systems", "catboost,flaml,mljar") == 0 and asked == ["flaml", "mljar", "catboost"]
    text = capsys.readouterr().out
    assert "FAILED: exit code 1: out of ideas" in text and "over the limit" in text and tables["titanic"].target in text
    assert command("--resume") == 0 and asked[3:] == ["mlbench", "autogluon", "lightgbm", "xgboost"], "only what is not there yet"
    capsys.readouterr()
    assert command("--report") == 0 and len(asked) == 7
    text = capsys.readouterr().out
    assert "every bar is met" in text and "mlbench 1.0" in text
    found = json.loads(path.read_text())["results"]["titanic"]
    assert found["mlbench"]["score"] == pytest.approx(-np.log(0.9), rel=1e-5) and found["mlbench"]["second"] == 1
    assert command("--resume", "--again", "mlbench") == 0 and asked[7:] == ["mlbench"]
    with pytest.raises(SystemExit, match="name another file"):
        command("--resume", "--seed", "7")
    with pytest.raises(SystemExit, match="no table"):
        command("--tables", "titanik")
