"Training: models compared by cross-validation, one chosen with reasons, fitted and kept."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Comparison": "mlbench.training.compare",
        "choose": "mlbench.training.compare",
        "cross_validate": "mlbench.training.compare",
        "fit": "mlbench.training.front",
        "limit_rows": "mlbench.training.fitting",
        "limited_threads": "mlbench.training.fitting",
        "output_of": "mlbench.training.fitting",
        "corrected_difference": "mlbench.training.intervals",
        "corrected_interval": "mlbench.training.intervals",
        "Model": "mlbench.training.model",
        "fit_model": "mlbench.training.model",
        "cost_figure": "mlbench.training.plots",
        "folds_figure": "mlbench.training.plots",
        "gain_sentence": "mlbench.training.plots",
        "leaderboard_figure": "mlbench.training.plots",
        "learning_figure": "mlbench.training.plots",
        "oof_figure": "mlbench.training.plots",
        "tell": "mlbench.training.plots",
        "rule_lines": "mlbench.training.rules",
        "estimator_bytes": "mlbench.training.store",
        "read_estimator": "mlbench.training.store",
        "Ensemble": "mlbench.training.ensemble",
        "ensemble_weights": "mlbench.training.ensemble",
        "guarded_ensemble": "mlbench.training.ensemble",
        "blend_outputs": "mlbench.training.ensemble",
        "calibrated": "mlbench.training.calibration",
        "fit_temperature": "mlbench.training.calibration",
        "guarded_temperature": "mlbench.training.calibration",
        "reliability_table": "mlbench.training.calibration",
        "temperature_figure": "mlbench.training.calibration",
    },
)
