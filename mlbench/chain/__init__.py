"The chain: projects, stages, runs, and what executes them. It knows notebooks and artifacts, nothing of learning."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Project": "mlbench.chain.project",
        "Run": "mlbench.chain.run",
        "Stage": "mlbench.chain.stage",
        "list_runs": "mlbench.chain.run",
        "reproduce_run": "mlbench.chain.reproduce",
        "run_chain": "mlbench.chain.runner",
        "run_sweep": "mlbench.chain.sweep",
        "Sweep": "mlbench.chain.sweep",
        "finish_run": "mlbench.chain.tracking",
        "verify_run": "mlbench.chain.verification",
    },
)
