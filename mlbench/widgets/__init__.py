"Views for a person in JupyterLab over what the chain and the stages hold; each has a static twin for a batch run."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "explore": "mlbench.widgets.exploring",
        "stage_form": "mlbench.widgets.form",
        "table_view": "mlbench.widgets.table",
    },
)
