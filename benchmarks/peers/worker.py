"""One system on one table, in the environment of that system: `python worker.py FOLDER`.

FOLDER holds job.json, train.parquet and test.parquet (without the target). Written there: predictions.npy, (rows, classes) in the order
of the job's classes or (rows,) values; done.json, seconds of fit and prediction and versions; phase, which of the two runs. Needs
pandas and pyarrow, and of this checkout nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Job = dict[str, Any]
Fitted = Callable[[pd.DataFrame], tuple[Iterable[Any], np.ndarray]]  # rows to (classes, probabilities), or ((), values)
MODULES = {"autogluon": "autogluon.tabular", "mljar": "supervised.automl"}
BOOSTERS = ["catboost", "lightgbm", "xgboost", "xgboost-cpu"]
PACKAGES = {
    "mlbench": ["mlbench", "torch", *BOOSTERS], "autogluon": ["autogluon.tabular", "torch", *BOOSTERS],
    "flaml": ["flaml", *BOOSTERS], "mljar": ["mljar-supervised", *BOOSTERS], "xgboost": ["xgboost", "xgboost-cpu"],
}  # fmt: skip


def words(frame: pd.DataFrame) -> list[str]:
    "Columns that are not numbers."
    return [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]


def as_categories(train: pd.DataFrame) -> Callable[[pd.DataFrame], pd.DataFrame]:
    "Text columns as pandas categories, those of the training rows: what LightGBM and XGBoost ask for. Unseen values are missing."
    kept = {c: pd.CategoricalDtype(sorted(train[c].dropna().astype(str).unique())) for c in words(train)}

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{c: frame[c].astype(object).where(frame[c].notna(), None).astype(kind) for c, kind in kept.items()})

    return change


def lightgbm(job: Job, X: pd.DataFrame, y: pd.Series) -> Fitted:
    "Defaults; text columns as pandas categories, which LightGBM then splits as such. Names of columns without signs that it refuses."
    from lightgbm import LGBMClassifier, LGBMRegressor

    change, plain = as_categories(X), [f"c{n}" for n in range(X.shape[1])]
    kind = LGBMRegressor if job["task"] == "regression" else LGBMClassifier
    model = kind(n_jobs=job["cores"], random_state=job["seed"], verbose=-1).fit(change(X).set_axis(plain, axis=1), y)
    return of_sklearn(model, lambda frame: change(frame).set_axis(plain, axis=1))


def xgboost(job: Job, X: pd.DataFrame, y: pd.Series) -> Fitted:
    "Defaults; text columns as pandas categories with enable_categorical; classes as codes, as it asks for."
    from xgboost import XGBClassifier, XGBRegressor

    change, options = as_categories(X), {"n_jobs": job["cores"], "random_state": job["seed"], "enable_categorical": True}
    if job["task"] == "regression":
        return of_sklearn(XGBRegressor(**options).fit(change(X), y), change)
    known = sorted(y.unique())
    model = XGBClassifier(**options).fit(change(X), y.map({c: n for n, c in enumerate(known)}))
    return lambda frame: (known, model.predict_proba(change(frame)))


def catboost(job: Job, X: pd.DataFrame, y: pd.Series) -> Fitted:
    "Defaults; text columns as cat_features, a missing one as a word."
    from catboost import CatBoostClassifier, CatBoostRegressor

    names = words(X)

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{c: frame[c].astype(object).where(frame[c].notna(), "missing").astype(str).astype(object) for c in names})

    kind = CatBoostRegressor if job["task"] == "regression" else CatBoostClassifier
    model = kind(cat_features=names, thread_count=job["cores"], random_seed=job["seed"], verbose=False, allow_writing_files=False)
    return of_sklearn(model.fit(change(X), y), change)


def of_sklearn(model: Any, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Fitted:
    "Predictions of an estimator that has predict_proba and classes_, or predict alone."
    if hasattr(model, "predict_proba"):
        return lambda frame: (model.classes_, model.predict_proba(change(frame)))
    return lambda frame: ((), model.predict(change(frame)))


def autogluon(job: Job, X: pd.DataFrame, y: pd.Series) -> Fitted:
    "The default preset for a minute, its best for five: as its documentation says, better presets pay when time allows."
    from autogluon.tabular import TabularPredictor

    metric = "root_mean_squared_error" if job["task"] == "regression" else "log_loss"
    model = TabularPredictor(job["target"], eval_metric=metric, problem_type=job["task"], path=str(Path(job["folder"]) / "autogluon"), verbosity=1)
    preset = "best_quality" if job["seconds"] >= 300 else "medium_quality"
    model.fit(X.assign(**{job["target"]: y}), time_limit=job["seconds"], presets=preset, num_cpus=job["cores"], num_gpus=0)
    job["note"] = preset
    if job["task"] == "regression":
        return lambda frame: ((), model.predict(frame).to_numpy())
    return lambda frame: (model.class_labels, model.predict_proba(frame)[model.class_labels].to_numpy())


def flaml(job: Job, X: pd.DataFrame, y: pd.Series) -> Fitted:
    "Defaults with a time budget."
    from flaml import AutoML

    model, plain = AutoML(), job["task"] == "regression"
    model.fit(X_train=X, y_train=y, task="regression" if plain else "classification", metric="rmse" if plain else "log_loss",
              time_budget=job["seconds"], n_jobs=job["cores"], seed=job["seed"], verbose=0)  # fmt: skip
    job["note"] = str(model.best_estimator)
    if plain:
        return lambda frame: ((), model.predict(frame))
    return lambda frame: (model.classes_, model.predict_proba(frame))


def mljar(job: Job, X: pd.DataFrame, y: pd.Series) -> Fitted:
    "Compete mode with a time limit."
    from supervised.automl import AutoML

    kind = {"binary": "binary_classification", "multiclass": "multiclass_classification", "regression": "regression"}[job["task"]]
    model = AutoML(results_path=str(Path(job["folder"]) / "mljar"), mode="Compete", ml_task=kind, total_time_limit=int(job["seconds"]), n_jobs=job["cores"],
                   eval_metric="rmse" if job["task"] == "regression" else "logloss", random_state=job["seed"], verbose=0)  # fmt: skip
    model.fit(X, y)
    if job["task"] == "regression":
        return lambda frame: ((), model.predict(frame))
    return lambda frame: (_mljar_classes(model, y), model.predict_proba(frame))


def _mljar_classes(model: Any, y: pd.Series) -> list[Any]:
    "The order of its probabilities, which it keeps with its metadata."
    labels = getattr(model, "_data_info", {}).get("labels") or sorted(y.unique())
    return list(labels)


def mlbench(job: Job, X: pd.DataFrame, y: pd.Series) -> Fitted:
    "`mb.fit` with a time limit, and told the metric as all others are."
    import mlbench as mb

    metric = "rmse" if job["task"] == "regression" else "log_loss"
    model = mb.fit(X.assign(**{job["target"]: y}), target=job["target"], task=job["task"], metric=metric, time_limit=job["seconds"], seed=job["seed"])
    job["note"] = str(model.spec_name)
    if job["task"] == "regression":
        return lambda frame: ((), model.predict(frame))
    return lambda frame: (model.classes_, model.predict_proba(frame))


SYSTEMS: dict[str, Callable[[Job, pd.DataFrame, pd.Series], Fitted]] = {
    "mlbench": mlbench, "autogluon": autogluon, "flaml": flaml, "mljar": mljar, "lightgbm": lightgbm, "catboost": catboost, "xgboost": xgboost
}  # fmt: skip


def ordered(classes: list[str], found: Iterable[Any], p: np.ndarray) -> np.ndarray:
    "Probabilities in the order of the job's classes; a class that the system does not know has 0."
    where = {spelled(c): n for n, c in enumerate(found)}
    unknown = set(where) - set(classes)
    if unknown:
        raise ValueError(f"classes {sorted(unknown)} are not among {classes}")
    p = np.asarray(p, dtype=float)
    p = np.stack([1 - p, p], axis=1) if p.ndim == 1 else p
    return np.stack([p[:, where[c]] if c in where else np.zeros(len(p)) for c in classes], axis=1)


def spelled(value: Any) -> str:
    "One spelling for 1, 1.0 and '1'."
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)


def versions(system: str) -> dict[str, str]:
    "What was installed."
    found = {}
    for name in [*PACKAGES.get(system, [system]), "pandas"]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main(folder: Path) -> None:
    "Fit and predict, and say how long each took."
    job = json.loads((folder / "job.json").read_text()) | {"folder": str(folder)}
    train, test = pd.read_parquet(folder / "train.parquet"), pd.read_parquet(folder / "test.parquet")
    X, y = train.drop(columns=job["target"]), train[job["target"]]
    import_module(MODULES.get(job["system"], job["system"]))  # before the clock starts, as in a session that has it at hand
    (folder / "phase").write_text("fit")
    start = time.perf_counter()
    predict = SYSTEMS[job["system"]](job, X, y)
    middle = time.perf_counter()
    (folder / "phase").write_text("predict")
    classes, output = predict(test)
    end = time.perf_counter()
    output = ordered(job["classes"], classes, output) if job["task"] != "regression" else np.asarray(output, dtype=float).ravel()
    if output.shape[0] != len(test) or not np.isfinite(output).all():
        raise ValueError(f"predictions of shape {output.shape} for {len(test)} rows, {int((~np.isfinite(output)).sum())} of them not finite")
    np.save(folder / "predictions.npy", output)
    done = {"fit": middle - start, "predict": end - middle, "versions": versions(job["system"]), "note": job.get("note", "")}
    (folder / "done.json").write_text(json.dumps(done))
    (folder / "phase").write_text("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
