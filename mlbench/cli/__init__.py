"The command line: `mlbench`, or `python -m mlbench`."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {"main": "mlbench.cli.app"})
