"""The settings of the SavedModel."""

import dataclasses
import functools
from typing import Literal

from tf_simclr.settings import rules
from tf_simclr.settings.declaration import setting

# Any run can be exported again; the model card describes the export in a section of its own.
_of_export = functools.partial(setting, resumable=True, card="leave_out")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """The SavedModel."""

    keep: int | None = _of_export(
        1, "Exports to keep, those with the highest steps; none keeps all.",
        rule=rules.AT_LEAST_1, flag="keep_hub_module_max", unset=0,
    )  # fmt: skip
    embedding: Literal["raw", "normalized"] = _of_export(
        "raw", "Embeddings as the encoder returns them, or normalized to unit length.", flag="export_embedding"
    )
    pca_dim: int | None = _of_export(
        None, "Reduces embeddings to this many principal components of the training images' features.",
        rule=rules.AT_LEAST_1, flag="export_pca_dim", unset=0,
    )  # fmt: skip
    project: bool = _of_export(False, "Adds a signature for projections.", flag="export_project")
    precision: Literal["run", "float32", "mixed_bfloat16"] = _of_export(
        "run", "Precision of the export; run uses train.precision.", flag="export_precision"
    )
    batch_sizes: tuple[int, ...] = _of_export(
        (1, 8), "Batch sizes that servers are warmed up for.", rule=rules.INCREASING, flag="export_batch_sizes"
    )
    micro_batch_size: int | None = _of_export(
        None, "Largest batch in which the encoder merges simultaneous requests.",
        rule=rules.AT_LEAST_1, flag="export_micro_batch_size", unset=0,
    )  # fmt: skip
    micro_batch_timeout_us: int = _of_export(
        1000, "Microseconds that such a batch waits for more images.",
        rule=rules.AT_LEAST_0, flag="export_micro_batch_timeout_us",
    )  # fmt: skip
    micro_batch_threads: int = _of_export(
        2, "Number of such batches computed at the same time.", rule=rules.AT_LEAST_1, flag="export_micro_batch_threads"
    )
    license: str = _of_export("unknown", "Licence of the weights, for the model card.", flag="export_license")
    formats: tuple[Literal["tflite", "onnx"], ...] = _of_export(
        (), "Other formats to convert the encoder to.", flag="export_formats"
    )
