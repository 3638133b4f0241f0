"Looking at the training rows: quality, findings with proposed choices, and figures."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Finding": "mlbench.eda.look",
        "Findings": "mlbench.eda.findings",
        "Look": "mlbench.eda.look",
        "column_against_target": "mlbench.eda.views",
        "column_strength": "mlbench.eda.strength",
        "correlation_figure": "mlbench.eda.views",
        "find_all": "mlbench.eda.findings",
        "look_at": "mlbench.eda.look",
        "missing_figure": "mlbench.eda.views",
        "quality_report": "mlbench.eda.quality",
        "quality_sentence": "mlbench.eda.quality",
        "quality_table": "mlbench.eda.quality",
        "split_drift": "mlbench.eda.drift",
        "strength_figure": "mlbench.eda.views",
        "strengths": "mlbench.eda.strength",
        "text_findings": "mlbench.eda.texts",
        "text_figures": "mlbench.eda.texts",
        "languages_of": "mlbench.eda.languages",
        "scripts_of": "mlbench.eda.languages",
        "image_findings": "mlbench.eda.images",
        "image_figures": "mlbench.eda.images",
        "media_figures_of": "mlbench.eda.images",
    },
)
