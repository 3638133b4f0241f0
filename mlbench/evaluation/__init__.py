"Evaluation: sealed rows, metrics with intervals, figures, slices, explanations, verdicts and the model card."

from mlbench.core.lazy import lazy_names

_MODULES = {
    "intervals": ["Evaluation", "evaluate_model", "bootstrap_rows", "bootstrap_values", "percentile_interval"],
    "curves": [
        "calibration_error",
        "calibration_figure",
        "confusion_figure",
        "confusion_matrix",
        "metrics_figure",
        "performance_figures",
        "precision_recall_figure",
        "predicted_figure",
        "residual_figure",
        "roc_figure",
        "threshold_figure",
        "threshold_sentence",
        "threshold_view",
        "wilson_interval",
    ],
    "slices": ["fairness_differences", "group_rates", "ranked_columns", "slice_column", "slice_figure", "slice_table"],
    "explain": ["Explanation", "importance_figure", "permutation_figure", "permutation_importance", "shap_values", "swarm_figure"],
    "front": ["Scores", "evaluate"],
    "card": ["criteria_metrics", "judge", "measured_figures", "model_card", "verdict_sentence", "verdict_table"],
}

__getattr__, __dir__, __all__ = lazy_names(__name__, {name: f"mlbench.evaluation.{module}" for module, names in _MODULES.items() for name in names})
