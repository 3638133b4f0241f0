"How `benchmarks/quality.py` scores, ranks and resumes, on predictions made up here, and what the options refuse: no peer is installed or run."

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


@pytest.fixture
def engine(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "benchmarks"))
    import engine

    return engine


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
    fits = scoring.Fits("regression", {0: (1.0, 1.0)}, 1 / 3, {o.system: {0: o} for o in (worse, good, same)})
    lines = {line["system"]: line for line in scoring.of_table(fits)}
    best = min(lines.values(), key=lambda line: line["rank"])
    assert best["near"] and lines["good"]["near"] and lines["same"]["near"] and not lines["worse"]["near"]
    low, high = scoring.difference("regression", worse.rows, good.rows)
    assert 0 < low < worse.score - good.score < high
    assert scoring.difference("regression", worse.rows, good.rows) == (low, high), "the same draws every time"


def of_splits(scoring, ratio=1 / 3, **scores):
    "Fits of a regression whose constant predictor loses 1 on every split; None is a failure."
    of = {}
    for system, losses in scores.items():
        made = {s: scoring.Outcome(system, np.inf if v is None else v, 0.5 if v else np.nan, np.full(9, v or 9.0), s, 0.1, 100.0 + s, "" if v else "FAILED: x")
                for s, v in losses.items()}  # fmt: skip
        of[system] = made
    return scoring.Fits("regression", {s: (1.0, 1.0) for made in of.values() for s in made}, ratio, of)


def test_means_over_splits_rank_and_are_normalised(scoring):
    fits = of_splits(scoring, mlbench={0: 0.50, 1: 0.30}, catboost={0: 0.45, 1: 0.45})
    first, second = scoring.of_table(fits)
    assert (first["system"], second["system"]) == ("mlbench", "catboost"), "by the mean, though behind on split 0"
    assert first["mean"].score == pytest.approx(0.4) and first["mean"].fit == 0.5 and first["mean"].memory == 101, "mean seconds, most memory"
    assert first["normalised"] == 1 and second["normalised"] == pytest.approx(0.55 / 0.6)
    assert first["shortfall"] == pytest.approx(np.mean([0.05 / 0.55, -0.15 / 0.55])) and first["splits"] == 2
    assert fits.least() == (1, 1) and second["shortfall"] == 0 and second["error"] == 0


def test_the_standard_error_over_splits_is_that_of_the_library(scoring):
    from mlbench.training.intervals import corrected_error, corrected_interval

    gaps = np.array([0.03, -0.01, 0.02, 0.05])
    assert scoring.corrected_error(gaps, 1 / 3) == pytest.approx(corrected_error(gaps, 1 / 3))
    assert np.isnan(scoring.corrected_error(gaps[:1], 1 / 3)), "one split says nothing of others"
    fits = of_splits(scoring, mlbench=dict(enumerate(0.4 + gaps)), catboost=dict.fromkeys(range(4), 0.4))
    line = next(line for line in scoring.of_table(fits) if line["system"] == "mlbench")
    assert (line["shortfall"], line["error"]) == pytest.approx((gaps.mean() / 0.6, corrected_error(gaps, 1 / 3) / 0.6))
    assert line["near"] == (corrected_interval(gaps, 1 / 3)[1] <= 0) and line["near"]
    sure = of_splits(scoring, mlbench=dict(enumerate(0.5 + gaps / 10)), catboost=dict.fromkeys(range(4), 0.4))
    assert not scoring.of_table(sure)[1]["near"], "always behind by about as much"


def test_ranks_rest_on_shared_splits_and_the_shortfall_on_those_of_the_pair(scoring):
    fits = of_splits(scoring, mlbench={0: 0.5, 1: 0.3, 2: 0.3}, catboost={0: 0.4, 1: 0.4, 2: 0.4}, flaml={0: 0.45})
    lines = {line["system"]: line for line in scoring.of_table(fits)}
    assert fits.shared == [0] and lines["mlbench"]["rank"] == 3 and lines["mlbench"]["mean"].score == 0.5
    assert lines["mlbench"]["splits"] == 3 and lines["mlbench"]["shortfall"] < 0 and lines["flaml"]["splits"] == 1
    assert scoring.of_table(of_splits(scoring, mlbench={0: 0.5}, catboost={1: 0.4})) == [], "nothing to compare"


def test_a_split_that_failed_counts_as_the_constant_predictor(scoring):
    fits = of_splits(scoring, mlbench={0: 0.4, 1: None}, catboost={0: 0.5, 1: 0.5}, flaml={0: None, 1: None})
    lines = {line["system"]: line for line in scoring.of_table(fits)}
    assert lines["mlbench"]["mean"].score == pytest.approx(0.7) and lines["mlbench"]["mean"].second == 0.75
    assert lines["mlbench"]["mean"].note == "FAILED: x (1)" and lines["mlbench"]["mean"].fit == 0, "seconds are those of the fits that ended"
    assert lines["mlbench"]["shortfall"] == pytest.approx((-0.2 + 1) / 2)
    assert lines["flaml"]["mean"].failed and lines["flaml"]["rank"] == 3 and lines["flaml"]["normalised"] == 0 and not lines["flaml"]["near"]
    assert scoring.counted_words(["tabm", "ensemble", "ensemble"]) == "ensemble (2), tabm (1)" and scoring.counted_words(["a", "a"]) == "a"


def test_the_summary_counts_only_tables_that_all_systems_have(scoring):
    line = {"normalised": 1.0, "near": True, "shortfall": 0.0, "error": 0.01, "splits": 3}
    tables = {
        "one": [{"system": "a", "rank": 1.0} | line, {"system": "b", "rank": 2.0} | line | {"normalised": 0.5, "near": False, "shortfall": 0.5}],
        "two": [{"system": "b", "rank": 1.0} | line, {"system": "a", "rank": 2.0} | line | {"shortfall": 0.02}],
        "three": [{"system": "a", "rank": 1.0} | line],
    }
    a, b = sorted(scoring.summary(tables), key=lambda found: found["system"])
    assert (a["tables"], a["rank"], a["normalised"], a["near"], a["first"], a["worst"]) == (2, 1.5, 1.0, 2, 1, "two")
    assert (b["rank"], b["normalised"], b["near"], b["shortfall"], b["worst"]) == (1.5, 0.75, 1, 0.5, "one")
    assert (b["error"], b["splits"]) == (0.01, 3), "those of the table where it is furthest behind"


def test_the_bars(quality):
    lines = [{"system": s, "rank": 2.0, "normalised": 0.9, "shortfall": 0.0, "error": np.nan, "splits": 1, "worst": "x"} for s in quality.SYSTEMS]
    assert quality.bars(lines) == []
    assert quality.bars(lines[1:]) == [], "without all systems there is nothing to miss"
    lines[0] |= {"rank": 2.5, "normalised": 0.8, "shortfall": 0.02}
    missed = quality.bars(lines)
    assert len(missed) == 3 and "by 2.0% of the gap" in missed[2]
    lines[0] |= {"error": 0.005, "splits": 5}
    assert "by 2.0% ± 0.5% (5) of the gap" in quality.bars(lines)[2]


def test_rows_are_cut_and_split_the_same_for_everybody(scoring):
    from peers import tables

    n = 1000
    frame = pd.DataFrame({"row": range(n), "y": ["rare"] * 5 + ["b"] * 395 + ["a"] * 600})
    table = tables.Table("t", "multiclass", "y", "")
    train, test = tables.split(table, frame, seed=3)
    assert len(test) == 250 and not set(train.row) & set(test.row) and len(train) + len(test) == n
    assert test.y.value_counts().to_dict() == {"a": 150, "b": 99, "rare": 1}, "every class by its share"
    assert tables.split(table, frame, seed=3)[1].equals(test) and not tables.split(table, frame, seed=4)[1].equals(test)
    assert tables.split(table, frame.iloc[::50])[1].row.tolist() == [850, 100, 150, 750, 500], "the first split stays what it was"
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


@pytest.fixture
def command(quality, tmp_path, monkeypatch):
    "quality.py with words, on 200 rows and with fits that are made up; `.asked` are those that were made, `.path` is --out."
    frame = pd.DataFrame({"x": np.arange(200.0), "Survived": np.arange(200) % 2})
    asked, path = [], tmp_path / "out.json"

    def fit(python, job, train, test):
        asked.append((job["system"], job["seed"]))
        known = {"memory": 10.0, "process": 1.0}
        if job["system"] == "flaml":
            return known | {"failed": "exit code 1: out of ideas"}, None
        sure = {"mlbench": 0.9, "catboost": 0.8}.get(job["system"], 0.7) - (job["seed"] / 50 if job["system"] == "mlbench" else 0)
        p = np.where(test["Survived"].to_numpy()[:, None] == np.arange(2), sure, 1 - sure)
        return known | {"fit": 9.0 if job["system"] == "mljar" else 1.0, "predict": 0.1, "versions": {job["system"]: "1.0"}, "note": ""}, p

    def run(*words):
        monkeypatch.setattr("sys.argv", ["quality.py", "--tables", "titanic", "--seconds", "5", "--out", str(path), *words])
        return quality.main()

    for name, work in (
        ("one_fit", fit), ("frame_of", lambda table, folder: frame), ("data_folder", lambda given: tmp_path), ("missing_files", lambda table, folder: []),
        ("python_of", lambda system, cache: tmp_path), ("adopt_orphans", lambda: None),
    ):  # fmt: skip
        monkeypatch.setattr(quality, name, work)
    run.asked, run.path = asked, path
    return run


def test_results_are_kept_rendered_and_gone_on_from(quality, command, capsys):
    asked, path = command.asked, command.path
    assert command("--systems", "catboost,flaml,mljar") == 0 and [s for s, _ in asked] == ["flaml", "mljar", "catboost"]
    text = capsys.readouterr().out
    assert "FAILED: exit code 1: out of ideas" in text and "over the limit" in text and quality.TABLES["titanic"].target in text
    assert command("--resume") == 0 and [s for s, _ in asked[3:]] == ["mlbench", "autogluon", "lightgbm", "xgboost"], "only what is not there yet"
    capsys.readouterr()
    assert command("--report") == 0 and len(asked) == 7
    text = capsys.readouterr().out
    assert "every bar is met" in text and "mlbench 1.0" in text and "split" not in text and "±" not in text
    found = json.loads(path.read_text())["results"]["titanic"]
    assert found["mlbench"]["score"] == pytest.approx(-np.log(0.9), rel=1e-5) and found["mlbench"]["second"] == 1
    assert command("--resume", "--again", "mlbench") == 0 and asked[7:] == [("mlbench", 0)]
    with pytest.raises(SystemExit, match="name another file"):
        command("--resume", "--seed", "7")


def test_splits_are_added_to_a_result_of_one(quality, command, capsys):
    asked, path = command.asked, command.path
    command("--systems", "mlbench,catboost,lightgbm")
    one = json.loads(path.read_text())
    assert list(one["results"]) == list(one["tables"]) == ["titanic"], "one split is written as ever"
    command("--systems", "mlbench,catboost", "--resume", "--splits", "3")
    assert asked[3:] == [("mlbench", 1), ("catboost", 1), ("mlbench", 2), ("catboost", 2)], "split 0 is there; number k has its own seed"
    known = json.loads(path.read_text())
    assert list(known["results"]) == ["titanic", "titanic@1", "titanic@2"] and known["results"]["titanic"] == one["results"]["titanic"]
    assert (known["settings"], known["tables"]["titanic"]) == (one["settings"], one["tables"]["titanic"])
    capsys.readouterr()
    command("--report")
    text = capsys.readouterr().out
    assert "means of the splits" not in text and "(3)" in text, "LightGBM has one split: ranks rest on it, the gap to CatBoost on three"
    command("--report", "--systems", "mlbench,catboost")
    text = capsys.readouterr().out
    assert "means of the splits 0, 1, 2" in text and "splits: 3 of titanic" in text
    assert next(line for line in text.splitlines() if line.startswith("catboost")).split()[5] == "0.0%", "nothing to say of CatBoost behind itself"
    mean = np.mean([-np.log(0.9 - k / 50) for k in range(3)])
    assert f"{mean:.5g}" in text
    command("--report", "--splits", "1", "--systems", "mlbench,catboost")
    assert "±" not in capsys.readouterr().out


def test_what_is_run_again_goes_on_where_it_was_broken_off(quality, command, monkeypatch, capsys):
    command("--systems", "mlbench,catboost", "--splits", "3")
    whole, done = quality.one_fit, []

    def broken(python, job, train, test):
        if done:
            raise KeyboardInterrupt
        done.append(job["seed"])
        return whole(python, job, train, test)

    monkeypatch.setattr(quality, "one_fit", broken)
    assert command("--systems", "mlbench,catboost", "--splits", "3", "--resume", "--again", "mlbench") == quality.INTERRUPTED
    assert "holds what was done, and --resume goes on from it" in capsys.readouterr().out
    monkeypatch.setattr(quality, "one_fit", whole)
    command("--report")
    assert "to be run again, and told as they were until then: mlbench on titanic@1, mlbench on titanic@2" in capsys.readouterr().out
    del command.asked[:]
    command("--systems", "mlbench,catboost", "--splits", "3", "--resume")
    assert command.asked == [("mlbench", 1), ("mlbench", 2)] and "again" not in command.path.read_text()


def test_results_that_do_not_fit_are_refused(quality, command, monkeypatch):
    command("--systems", "catboost")
    other = pd.DataFrame({"x": np.arange(200.0), "Survived": (np.arange(200) // 2) % 2})
    monkeypatch.setattr(quality, "frame_of", lambda table, folder: other)
    with pytest.raises(SystemExit, match="other rows of titanic"):
        command("--systems", "lightgbm", "--resume")
    (command.path.with_name("out-predictions") / "titanic.truth.npy").unlink()
    with pytest.raises(SystemExit, match="titanic.truth.npy is not there: out.json and the folder out-predictions belong together"):
        command("--report")
    for text in ("no json", "[1]", '{"settings": {}}', '{"settings": {}, "tables": {}, "results": {"titanic": {}}}'):
        command.path.write_text(text)
        with pytest.raises(SystemExit, match="holds no results of this benchmark"):
            command("--report")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--tables titanik", "no table titanik: there are titanic"), ("--tables ,", "',' names no table"),
        ("--systems lightgbm,cat", "no system cat: there are mlbench"),
        ("--seconds 0", "'0' must be a number of seconds above 0"), ("--seconds nan", "above 0"), ("--seconds inf", "above 0"), ("--seconds soon", "above 0"),
        ("--splits 0", "'0' must be the number of splits: a whole number from 1 to 1,000, such as 5"), ("--splits 2.5", "whole number"),
        ("--splits x", "whole number"),
        ("--seed -1", "'-1' must be a seed: a whole number from 0"), ("--seed 1e3", "seed"), ("--seed 99999999999", "seed"),
        ("--resume --again cat", "no system cat"), ("--again mlbench", "--again needs --resume"), ("--again mlbench --splits 2", "--again needs --resume"),
        ("--resume --systems catboost --again mlbench", "--again mlbench is not among --systems catboost"), ("--report", "out.json is not there"),
        ("--out .", "is a folder: give a file in it"), ("--cache FILE", "is a file, and a folder"), ("--out FILE/a/results.json", "is a file, and a folder"),
        ("--out FILE", "is there already: add --resume"), ("--parts fit", "unrecognized arguments"),
    ],
)  # fmt: skip
def test_wrong_options_of_quality_are_refused(command, capsys, tmp_path, words, told):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SystemExit) as ended:
        command(*[w.replace("FILE", str(tmp_path / "file")) for w in words.split()])
    assert ended.value.code == 2 and told in capsys.readouterr().err and not command.asked


def test_results_need_a_file(quality, monkeypatch, capsys):
    for word in ("--resume", "--report"):
        monkeypatch.setattr("sys.argv", ["quality.py", word])
        with pytest.raises(SystemExit):
            quality.main()
        assert "need --out FILE" in capsys.readouterr().err


def test_missing_data_are_told_before_anything_is_run(quality, tmp_path, monkeypatch):
    (tmp_path / "titanic.csv").write_text("x\n1\n")
    monkeypatch.setattr("sys.argv", ["quality.py", "--tables", "titanic,ames,fraud", "--systems", "catboost", "--data", str(tmp_path)])
    monkeypatch.setattr(quality, "adopt_orphans", lambda: None)
    with pytest.raises(SystemExit) as ended:
        quality.main()
    told = str(ended.value)
    assert "ames_house_prices.csv (ames)" in told and "credit_fraud_baskets.csv.gz (fraud)" in told and "titanic" not in told and "--data" in told
    monkeypatch.setattr("sys.argv", ["quality.py", "--data", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="nowhere is not there"):
        quality.main()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--parts fit,sleep", "no part sleep: there are fit, predict, growth"), ("--parts ,", "names no part"), ("--seconds -3", "above 0"),
        ("--seconds 1m", "above 0"),
        ("--rows 5", "'5' must be the rows of a table: a whole number of at least 100"), ("--rows 1e4", "whole number"),
        ("--growth 10000,many", "such as 10000,100000"),
        ("--growth 10000,0", "at least 100"), ("--growth ,", "whole numbers"), ("--tables titanic", "unrecognized arguments"),
    ],
)  # fmt: skip
def test_wrong_options_of_engine_are_refused(engine, monkeypatch, capsys, words, told):
    monkeypatch.setattr("sys.argv", ["engine.py", *words.split()])
    with pytest.raises(SystemExit) as ended:
        engine.main()
    assert ended.value.code == 2 and told in capsys.readouterr().err


def test_every_moment_of_a_fit_is_counted_once(engine, capsys):
    spans = [
        ("making", 1, 1.0, 3.0), ("features", 1, 1.0, 3.1), ("fits", 1, 3.1, 7.0), ("predictions", 1, 7.0, 7.5),
        ("features", 2, 2.0, 3.2), ("fits", 2, 3.2, 5.0), ("fits", 2, 8.0, 9.0),
    ]  # fmt: skip
    told = engine.moments(spans, 0.0, 10.0)
    assert sum(told.values()) == pytest.approx(10) and told["fits", "fits"] == pytest.approx(1.8) and told["making", "features"] == pytest.approx(1.0)
    assert engine.split_by(told, 2) == pytest.approx({"nothing": 1.8})
    assert engine.split_by(told, 1) == pytest.approx({"nothing": 2.0 + 1.0, "features": 0.1})
    assert engine.split_by(told, 0) == pytest.approx({"nothing": 1.0 + 0.5 + 1.0, "making": 2.0, "features": 0.1, "predictions": 0.5})
    assert sum(engine.moments(spans, 0.0, 3.1).values()) == pytest.approx(3.1) and engine.split_by(engine.moments(spans, 9.0, 10.0), 0) == {"nothing": 1.0}
    capsys.readouterr()
    engine.lost(spans, 0.0, 10.0)
    lines = capsys.readouterr().out.splitlines()
    assert "18% of the time" in lines[0] and "before the first fit 3.10 (features 2.00), between fits 1.00 (features 0.00), after the last 1.00" in lines[2]
    assert float(lines[3].split(" two cores")[1].split()[0]) == pytest.approx(10 - (3.9 + 1.8 + 1.0) / 2, abs=0.01), "the wall time less that of the fits"
    engine.lost([], 0.0, 2.0)
    assert "before the first fit 2.00" in capsys.readouterr().out


def test_calls_are_clocked_on_every_thread_and_left_as_they_were(engine):
    from concurrent.futures import ThreadPoolExecutor
    from types import SimpleNamespace

    owner = SimpleNamespace(work=lambda n: n + 1)
    whole = owner.work
    with engine.clocked({"fits": (owner, "work")}) as (spent, spans), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda n: owner.work(n), range(5))) == [1, 2, 3, 4, 5]
        with pytest.raises(TypeError):
            owner.work("x")
    assert owner.work is whole and spent["fits: calls"] == len(spans) == 6
    assert spent["fits"] == pytest.approx(sum(end - start for _, _, start, end in spans))
