"Deployment: exact export with proof, bundle, registry and service."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Bundle": "mlbench.deployment.bundle",
        "Parity": "mlbench.deployment.parity",
        "Version": "mlbench.deployment.registry",
        "check_parity": "mlbench.deployment.parity",
        "list_versions": "mlbench.deployment.registry",
        "load_version": "mlbench.deployment.registry",
        "measure_latency": "mlbench.deployment.client",
        "parity_figure": "mlbench.deployment.parity",
        "promote": "mlbench.deployment.registry",
        "proven_onnx": "mlbench.deployment.parity",
        "register": "mlbench.deployment.registry",
        "roll_back": "mlbench.deployment.registry",
        "start_service": "mlbench.deployment.client",
        "to_onnx": "mlbench.deployment.onnx",
        "write_bundle": "mlbench.deployment.bundle",
    },
)
