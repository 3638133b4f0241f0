"A model packed as the last stage packs it, for the tests of services, and the libraries that a service must not load."

from __future__ import annotations

from mlbench.deployment import proven_onnx, write_bundle

BLOCKED = ("pandas", "sklearn", "torch", "scipy", "lightgbm", "onnx", "plotly", "pydantic", "mlflow", "skops", "pyarrow", "papermill", "ruamel")


def packed_in(folder, model, frame):
    "The bundle of a binary model, in a folder whose name is that of the model."
    onnx, parity = proven_onnx(model, frame)
    metrics = {"roc_auc": {"value": 0.8, "low": 0.7, "high": 0.9}}
    return write_bundle(folder, model, onnx, parity, frame, folder.name, metrics=metrics, metric="roc_auc")
