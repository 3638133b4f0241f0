"Features: what models see of a table, planned column by column."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DateParts": "mlbench.features.dates",
        "date_parts": "mlbench.features.dates",
        "Numbers": "mlbench.features.numbers",
        "FillText": "mlbench.features.text",
        "WordWeights": "mlbench.features.text",
        "FeatureColumn": "mlbench.features.plan",
        "FeatureOptions": "mlbench.features.plan",
        "FeaturePlan": "mlbench.features.plan",
        "feature_table": "mlbench.features.plan",
        "make_plan": "mlbench.features.plan",
    },
)
