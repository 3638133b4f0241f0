"""mlbench: from a question about data to a served model, in notebooks that you can read, change and rerun."""

__version__ = "0.2.0"

import os as _os

from mlbench.core.lazy import lazy_names as _lazy_names
from mlbench.core.settings import thread_environment as _thread_environment

# Numerical libraries read these when they load, so they are set before any of them can.
for _name, _value in _thread_environment().items():
    _os.environ.setdefault(_name, _value)

__getattr__, __dir__, __all__ = _lazy_names(
    __name__,
    {
        "fit": "mlbench.evaluation.front",
        "load": "mlbench.evaluation.front",
        "evaluate": "mlbench.evaluation.front",
        "explain": "mlbench.evaluation.front",
        "Model": "mlbench.evaluation.front",
        "read_table": "mlbench.data.sources",
        "infer_schema": "mlbench.data.schema",
        "make_split": "mlbench.data.splits",
        "list_examples": "mlbench.data.examples",
        "load_example": "mlbench.data.examples",
        "Problem": "mlbench.problem.problem",
        "Project": "mlbench.chain.project",
        "Run": "mlbench.chain.run",
        "Stage": "mlbench.chain.stage",
        "list_runs": "mlbench.chain.run",
        "run_chain": "mlbench.chain.runner",
        "run_sweep": "mlbench.chain.sweep",
        "finish_run": "mlbench.chain.tracking",
        "Bundle": "mlbench.deployment.bundle",
        "start_service": "mlbench.deployment.client",
        "MlbenchError": "mlbench.core.errors",
    },
)
