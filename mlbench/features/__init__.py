"Features: what models see of a table, planned column by column."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DateParts": "mlbench.features.dates",
        "date_parts": "mlbench.features.dates",
        "Numbers": "mlbench.features.numbers",
        "TargetMeans": "mlbench.features.categories",
        "TextScores": "mlbench.features.scores",
        "FillText": "mlbench.features.text",
        "TextTopics": "mlbench.features.text",
        "WordWeights": "mlbench.features.text",
        "FeatureColumn": "mlbench.features.plan",
        "FeatureOptions": "mlbench.features.options",
        "FeaturePlan": "mlbench.features.plan",
        "category_positions": "mlbench.features.plan",
        "feature_table": "mlbench.features.plan",
        "make_plan": "mlbench.features.plan",
        "Change": "mlbench.features.changes",
        "changes_figure": "mlbench.features.changes",
        "changes_of": "mlbench.features.changes",
        "changes_sentence": "mlbench.features.changes",
        "changes_table": "mlbench.features.changes",
        "most_changed": "mlbench.features.changes",
        "FittedFeatures": "mlbench.features.preview",
        "before_after": "mlbench.features.preview",
        "check_features": "mlbench.features.preview",
        "checks_sentence": "mlbench.features.preview",
        "fit_features": "mlbench.features.preview",
        "plan_markdown": "mlbench.features.preview",
        "preview_rows": "mlbench.features.preview",
        "proposals": "mlbench.features.preview",
        "proposals_sentence": "mlbench.features.preview",
        "width_figure": "mlbench.features.preview",
    },
)
