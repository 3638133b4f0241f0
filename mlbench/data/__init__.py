"Tables: reading them from anywhere, the kinds of their columns, snapshots, splits and examples."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "read_table": "mlbench.data.sources",
        "TableRead": "mlbench.data.sources",
        "source_fingerprint": "mlbench.data.places",
        "Assumption": "mlbench.data.dialect",
        "KINDS": "mlbench.data.schema",
        "Column": "mlbench.data.schema",
        "Schema": "mlbench.data.schema",
        "infer_schema": "mlbench.data.schema",
        "conform": "mlbench.data.schema",
        "table_version": "mlbench.data.snapshots",
        "write_snapshot": "mlbench.data.snapshots",
        "read_snapshot": "mlbench.data.snapshots",
        "Split": "mlbench.data.splits",
        "make_split": "mlbench.data.splits",
        "make_folds": "mlbench.data.splits",
        "Example": "mlbench.data.examples",
        "list_examples": "mlbench.data.examples",
        "load_example": "mlbench.data.examples",
        "Part": "mlbench.data.parts",
        "record_of": "mlbench.data.parts",
        "as_record": "mlbench.data.parts",
        "pixels_of": "mlbench.data.images",
        "image_bytes": "mlbench.data.images",
        "look_at_image": "mlbench.data.images",
        "ImageStore": "mlbench.data.images",
    },
)
