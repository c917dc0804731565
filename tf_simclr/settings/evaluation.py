"""The settings of the evaluation."""

import dataclasses
from typing import Literal

from tf_simclr.settings import rules
from tf_simclr.settings.declaration import expand_paths, setting


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation of the frozen encoder."""

    batch_size: int = setting(256, "Images per batch.", rule=rules.AT_LEAST_1, flag="eval_batch_size", resumable=True)
    steps: int | None = setting(
        None, "Batches to evaluate on; none uses them all.",
        rule=rules.AT_LEAST_1, flag="eval_steps", unset=0, resumable=True,
    )  # fmt: skip
    protocols: tuple[str, ...] = setting(
        ("knn", "linear"), "Protocols that judge the encoder.",
        rule=rules.NOT_EMPTY, flag="eval_protocols", resumable=True,
    )  # fmt: skip
    knn_k: int = setting(
        200, "Neighbours that vote in the kNN evaluation, or all training images if there are fewer.",
        rule=rules.AT_LEAST_1, flag="knn_k", resumable=True,
    )  # fmt: skip
    head_layers: bool = setting(
        False, "Evaluates the layers of the projection head, and the projections, as well.",
        flag="eval_head_layers", resumable=True,
    )  # fmt: skip
    baselines: bool = setting(False, "Evaluates raw pixels and the untrained encoder as well.", resumable=True)
    compare_encoders: tuple[str, ...] = setting(
        (), "Encoders to evaluate as well: runs, checkpoints and SavedModels (PATH#SIGNATURE names one of several).",
        flag="compare_encoder", resumable=True, card="leave_out", is_path=True,
    )  # fmt: skip
    finetune_grid: Literal["small", "paper"] = setting(
        "small", "Rates and decays that finetune and supervised choose from: 3, or the paper's 56.", resumable=True
    )
    map_images: int | None = setting(2000, "Most images on the map, or none.", rule=rules.AT_LEAST_1, resumable=True)
    finetune_steps: int = setting(
        500, "Steps that they train for, for each pair; the paper takes 20000.", rule=rules.AT_LEAST_1, resumable=True
    )
    finetune_batch_size: int = setting(
        256, "Most images per step of the protocols that train.", rule=rules.AT_LEAST_2, resumable=True
    )
    label_efficiency: Literal["off", "frozen", "trained"] = setting(
        "off", "Measures the accuracy with 1 to 100 % of the labels, on frozen encoders alone or by training as well.",
        flag="label_efficiency", resumable=True,
    )  # fmt: skip
    suite: Literal["transfer"] | None = setting(
        None, "Judges the encoder on the paper's transfer data sets, too.", flag="eval_suite", resumable=True
    )
    suite_dir: str | None = setting(
        None, "Folder of the suite's data sets; none takes data_dir if it is TFDS's, else TFDS's own folder.",
        flag="eval_suite_dir", resumable=True, card="shorten", is_path=True, needs=("eval.suite",),
    )  # fmt: skip

    def __post_init__(self) -> None:
        expand_paths(self)
