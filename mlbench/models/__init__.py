"Models by family, each a scikit-learn estimator, and the list of those that compete."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "OneRuleClassifier": "mlbench.models.baseline",
        "OneRuleRegressor": "mlbench.models.baseline",
        "rule_text": "mlbench.models.baseline",
        "linear_model": "mlbench.models.linear",
        "histogram_boosting": "mlbench.models.boosting",
        "lightgbm_boosting": "mlbench.models.boosting",
        "CatBoostTreesClassifier": "mlbench.models.catboosting",
        "CatBoostTreesRegressor": "mlbench.models.catboosting",
        "XGBoostTreesClassifier": "mlbench.models.xgboosting",
        "XGBoostTreesRegressor": "mlbench.models.xgboosting",
        "TabMClassifier": "mlbench.models.tabm",
        "TabMRegressor": "mlbench.models.tabm",
        "TorchMLPClassifier": "mlbench.models.neural",
        "TorchMLPRegressor": "mlbench.models.neural",
        "fit_rounds": "mlbench.models.rounds",
        "replay_parameters": "mlbench.models.rounds",
        "rounds_parameter": "mlbench.models.rounds",
        "ModelSpec": "mlbench.models.registry",
        "Setting": "mlbench.models.registry",
        "candidates": "mlbench.models.registry",
        "portfolio": "mlbench.models.registry",
        "model_spec": "mlbench.models.registry",
        "Dimension": "mlbench.models.spaces",
        "own_space": "mlbench.models.spaces",
        "space": "mlbench.models.spaces",
        "space_table": "mlbench.models.spaces",
        "SequenceTagger": "mlbench.models.tagging",
        "TransferClassifier": "mlbench.models.transfer",
        "TransferRegressor": "mlbench.models.transfer",
        "Embeddings": "mlbench.models.transfer",
    },
)
