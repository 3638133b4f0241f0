"Models with fewer weights: pruned on the rows of their own folds, and students that never see the rows they are measured on."

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_media_export import QUICK, fitted, offers, planned

from mlbench.core.errors import UsageError
from mlbench.deployment.lighter import fold_rows, held_rows, is_network, left_alone, part_of, pruned_model, student_model, taught
from mlbench.deployment.parity import proven_onnx
from mlbench.deployment.shrinking import made_smaller
from mlbench.models.registry import model_spec
from mlbench.training.arena import Arena
from mlbench.training.blend import assembled
from mlbench.training.model import Model


def blended(task: str, names: list[str], folds: int = 2, scale: str = "identity", drop: tuple[str, ...] = ("photo",)):
    "A blend of offers, and its rows."
    data, problem, schema, target, plan = planned(offers(70), task, drop)
    number = np.arange(len(data)) % folds
    cut = [(np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in range(folds)]
    arena = Arena(plan, data, target.encode(data[task]), cut, schema=schema, target=target, metrics=["log_loss" if task == "binary" else "rmse"], n_jobs=1)
    specs = [model_spec(n).variant(n, QUICK.get(n, {})) for n in names]
    arena.compete([replace(s, scale=scale) if s.name == "network" else s for s in specs])
    assert set(arena.entries) == set(names)
    return Model(assembled(arena, dict.fromkeys(names, 1 / len(names)), 1.1), problem, schema, target, plan, "blend", facts={"rows": len(data)}), data


@pytest.fixture(scope="module")
def shop():
    return blended("binary", ["network", "word_linear", "lightgbm"])


def test_the_held_rows_are_those_that_the_part_has_not_seen(shop):
    model, frame = shop
    held = held_rows(model, frame)
    assert held.fair and held.position == 1
    assert held.rows.tolist() == [n for n in range(70) if n % 2 == 1]
    assert not set(held.rows) & set(held.free)
    parts = [part_of(model, k).predict_proba(frame) for k in (0, 1)]
    assert np.abs(parts[0] - parts[1]).max() > 1e-3
    said = taught(model, frame, np.arange(70))
    assert np.allclose(said[1::2], parts[1][1::2]) and np.allclose(said[::2], parts[0][::2])
    assert left_alone(model) == ["word_linear", "lightgbm"]


def test_rows_that_are_not_those_of_the_folds_have_no_fair_part(shop):
    model, frame = shop
    assert fold_rows(model, 69) == []
    assert fold_rows(replace(model, facts={"rows": 50}), 70) == []
    held = held_rows(model, frame.iloc[:60])
    assert not held.fair and held.model is model and len(held.rows) == 12
    gaps = frame.assign(binary=frame["binary"].where(np.arange(70) % 5 != 1))
    assert set(held_rows(model, gaps).rows) == {n for n in range(70) if n % 2 == 1 and n % 5 != 1}
    with pytest.raises(UsageError, match="0 rows have a known binary"):
        held_rows(model, frame.assign(binary=None))


def test_every_network_is_pruned_on_the_rows_of_its_fold_and_the_rest_is_left(shop, monkeypatch):
    import mlbench.models.pruning as pruning

    model, frame = shop
    real, seen = pruning.pruned, []

    def spy(estimator, X, y, **options):
        seen.append((len(X), np.asarray(y).tolist()))
        return real(estimator, X, y, epochs=1, **options)

    monkeypatch.setattr(pruning, "pruned", spy)
    held, codes = held_rows(model, frame), model.target.encode(frame["binary"])
    new = pruned_model(model, frame, held, "narrow", seconds=4.0)
    assert [y for _, y in seen] == [codes[np.arange(70) % 2 != k].tolist() for k in (0, 1)]
    for before, after in zip(model.pipeline.members_, new.pipeline.members_):
        same = [a is b for a, b in zip(before["estimators"], after["estimators"])]
        assert same == [not is_network(e) for e in before["estimators"]]
    assert proven_onnx(new, frame)[1].passed
    assert np.isfinite(new.predict_proba(frame)).all()


def test_all_ways_of_a_blend_are_measured_fairly(shop):
    from types import SimpleNamespace

    model, frame = shop
    data, parity = proven_onnx(model, frame)
    found = made_smaller("auto", data, parity, model, frame, SimpleNamespace(metric="log_loss", criteria=list), seconds=4.0)
    assert found.fair and not found.failures
    assert found.parity.passed
    assert "word_linear, lightgbm are left as before." in found.sentence() or found.chosen.name == "student"
    from mlbench.deployment.shrinking import metric_interval

    held = held_rows(model, frame)
    honest = metric_interval("log_loss", model.target.encode(frame["binary"])[held.rows], held.model.predict_proba(frame.iloc[held.rows]))
    assert np.allclose(found.variants[0].metric, honest, atol=1e-4), "the original is asked about rows that it has not seen"


@pytest.mark.parametrize("scale", ["identity", "log"])
def test_values_on_another_scale(scale):
    model, frame = blended("regression", ["network", "lightgbm"], scale=scale)
    held = held_rows(model, frame)
    new = pruned_model(model, frame, held, "zeros", seconds=4.0)
    typical = float(frame["regression"].mean())
    assert 0.5 * typical < new.predict(frame).mean() < 1.5 * typical
    pupil = student_model(model, frame, held, seconds=4.0)
    assert 0.5 * typical < pupil.predict(frame).mean() < 1.5 * typical
    assert proven_onnx(pupil, frame)[1].passed


def test_a_student_never_sees_the_held_rows(shop):
    model, frame = shop
    held = held_rows(model, frame)
    other = frame.copy()
    other.loc[held.rows, "binary"] = np.where(other.loc[held.rows, "binary"] == "sold", "left", "sold")
    one, two = (student_model(model, rows, held, seconds=None) for rows in (frame, other))
    assert one.estimator.model_.tobytes() == two.estimator.model_.tobytes()
    assert one.facts["rows"] == 35 and one.facts["teacher"] == "blend"
    assert model.pipeline.members_[0]["estimators"][0] is not one.estimator


def test_trees_of_a_plain_table_may_teach_and_cannot_be_pruned():
    model, frame = fitted(offers(), "binary", "lightgbm", ("note", "photo"))
    held = held_rows(model, frame)
    assert not held.fair
    with pytest.raises(UsageError, match="lightgbm: no network is part of the model"):
        pruned_model(model, frame, held)
    pupil = student_model(model, frame, held, seconds=4.0)
    assert proven_onnx(pupil, frame)[1].passed
    assert pupil.facts["rows"] == 48
