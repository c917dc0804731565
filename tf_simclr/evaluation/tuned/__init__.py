"""Protocols that train: fine-tuning on all or few of the labels, and the same from random weights."""

import functools
from collections.abc import Callable

from tf_simclr.evaluation.tuned.finetune import Finetune, all_labels, few_labels
from tf_simclr.evaluation.tuned.training import Material
from tf_simclr.settings import RunConfig

# What `eval.protocols` may name besides the protocols on frozen encoders.
TUNED: dict[str, Callable[[RunConfig], Finetune]] = {
    "finetune": functools.partial(all_labels, is_pretrained=True),
    "semi_supervised_1": functools.partial(few_labels, percent=1, is_pretrained=True),
    "semi_supervised_10": functools.partial(few_labels, percent=10, is_pretrained=True),
    "supervised": functools.partial(all_labels, is_pretrained=False),
    "supervised_1": functools.partial(few_labels, percent=1, is_pretrained=False),
    "supervised_10": functools.partial(few_labels, percent=10, is_pretrained=False),
}

__all__ = ["TUNED", "Finetune", "Material", "few_labels"]
