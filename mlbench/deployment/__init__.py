"Deployment: exact export with proof, bundle, registry and service."

from mlbench.core.lazy import lazy_names

_MODULES = {
    "bundle": ["Bundle", "check_hashes", "contents", "safe_name", "write_bundle"],
    "client": [
        "Latency",
        "ask",
        "compare_speed",
        "measure_latency",
        "request_rows",
        "serving_figures",
        "smoke_test",
        "speed_figure",
        "speed_sentence",
        "start_service",
    ],
    "eject": ["eject_model", "largest_difference"],
    "lighter": ["held_rows", "pruned_model", "student_model"],
    "onnx": ["pipeline_to_onnx", "to_onnx"],
    "parity": ["Parity", "check_parity", "parity_figure", "proven_onnx"],
    "registry": [
        "Version",
        "check_verdicts",
        "goals_frame",
        "list_versions",
        "load_version",
        "promote",
        "register",
        "registry_place",
        "roll_back",
        "versions_frame",
    ],
    "rows": ["InputError"],
    "shrinking": ["ALL_WAYS", "Variant", "made_smaller", "pick", "shrunk", "without_zeros"],
    "torchgraph": ["network_difference"],
    "whatif": ["swings", "what_if_figure"],
}

__getattr__, __dir__, __all__ = lazy_names(__name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names})
