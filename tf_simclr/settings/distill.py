"""The settings of `--train_mode=distill`."""

import dataclasses
from typing import Literal

from tf_simclr.settings import rules
from tf_simclr.settings.declaration import expand_paths, setting

_DISTILLATION = ("train_mode", "distill")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Learning from a teacher, without labels or with few."""

    # What the teacher answers counts, not where it lies: the run's folder keeps a digest of its weights.
    teacher: str | None = setting(
        None, "The teacher: a run, a checkpoint or a SavedModel (PATH#FUNCTION:OUTPUT names one of several).",
        flag="teacher", resumable=True, card="shorten", is_path=True,
    )  # fmt: skip
    target: Literal["logits", "representations"] = setting(
        "logits", "What the student learns: the teacher's class probabilities, or its representations.",
        flag="distill_target",
        needs=_DISTILLATION,
    )  # fmt: skip
    temperature: float = setting(
        1.0, "Divides the logits of teacher and student; the paper takes 0.1 for self-distillation, else 1.",
        rule=rules.POSITIVE, flag="distill_temperature",
        needs=_DISTILLATION,
    )  # fmt: skip
    label_weight: float | None = setting(
        None, "Weight w of the labels' cross entropy, beside 1 - w for the teacher's; none leaves labels out.",
        rule=rules.PROPER_SHARE, flag="distill_label_weight", unset=0,
        needs=_DISTILLATION,
    )  # fmt: skip
    distance: Literal["cosine", "squared"] = setting(
        "cosine", "Compares representations by their angle, or by the mean squared difference of their entries.",
        flag="distill_distance",
        needs=("distill.target", "representations"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        expand_paths(self)
