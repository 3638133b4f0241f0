"Training: models compared by cross-validation, one chosen with reasons, fitted and kept."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Model": "mlbench.training.model",
        "fit_model": "mlbench.training.model",
        "limited_threads": "mlbench.training.fitting",
        "output_of": "mlbench.training.fitting",
        "estimator_bytes": "mlbench.training.store",
        "read_estimator": "mlbench.training.store",
    },
)
