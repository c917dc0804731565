"""Trains a classifier as a run of its own, in a folder below that of the run that is evaluated.

So it shows its progress, continues from its checkpoints after a kill, and is not trained again when it is finished.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr import builders, files
from tf_simclr.data import batches, sources
from tf_simclr.evaluation.cache import Images, digest_of, remove_older
from tf_simclr.evaluation.encoders import FrozenEncoder
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.progress import progress
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs.folder import as_started, open_run
from tf_simclr.settings import SETTINGS, RunConfig, flatten, override
from tf_simclr.training.train import train

# Steps between checkpoints, at most: a killed training loses no more, and no more than a quarter.
_CHECKPOINT_STEPS = 500


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """What a protocol that trains works with.

    Attributes:
      config: The run that is evaluated.
      model: Its model.
      encoder: Its encoder, whose weights a fine-tuning starts from.
      train: The labelled images to learn from.
      test: The images whose classes are predicted.
      folder: The `features/` of the run.
    """

    config: RunConfig
    model: EncoderTrainer
    encoder: FrozenEncoder
    train: Images
    test: Images
    folder: pathlib.Path

    def saved_weights(self) -> str:
        """Where the weights of the encoder are, written when they are first needed."""
        place = self.folder / f"start_{digest_of(self.encoder.identity)}"
        prefix = place / "ckpt-0"
        if not prefix.with_name("ckpt-0.index").is_file():
            place.mkdir(exist_ok=True)
            tf.train.Checkpoint(model=self.model).write(files.for_tensorflow(prefix))
            remove_older(place)
        return str(prefix)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: by SGD with Nesterov momentum 0.9 and a cosine schedule, on crops and flips.

    Attributes:
      learning_rate: Its peak, at the first step.
      weight_decay: Coefficient of an L2 penalty on all weights but those of batch norm.
      scaling: What the peak is multiplied by: "linear" takes B / 256, "none" takes 1.
      steps: Steps to train for; if None, `epochs` count.
      epochs: Epochs to train for.
      batch_size: Images per step B, or the largest power of two that fewer images fill, if the replicas divide it.
    """

    learning_rate: float
    weight_decay: float
    scaling: str
    steps: int | None
    epochs: int
    batch_size: int

    def settings(self, num_examples: int, num_replicas: int) -> dict[str, Any]:
        """The settings of a run on so many images, by name.

        Batch norm keeps max(1 - 10 / s, 0.9) of its moving averages in a step, s being the steps of an epoch (Chen et
        al., 2020, appendix B.8; Kornblith et al., 2019).
        """
        batch_size = min(self.batch_size, 1 << num_examples.bit_length() - 1)
        batch_size = max(1, batch_size // num_replicas) * num_replicas
        total = self.steps or num_examples * self.epochs // batch_size + 1
        return {
            "optimizer.name": "momentum",
            "optimizer.momentum": 0.9,
            "optimizer.base_learning_rate": self.learning_rate,
            "optimizer.learning_rate_scaling": self.scaling,
            "optimizer.warmup_epochs": 0,
            "optimizer.weight_decay": self.weight_decay,
            "model.batch_norm_momentum": max(1 - 10 * batch_size / num_examples, 0.9),
            "train.global_batch_size": batch_size,
            "train.steps": total,
            "train.checkpoint_steps": max(1, min(total // 4, _CHECKPOINT_STEPS)),
        }


# What differs from the settings of a pretraining besides the recipe. Views are cropped and flipped as in the paper,
# whatever else the pretraining did with them; only its sampler and area of crops stay. The classifier is a new one:
# that of the pretraining has seen all labels.
_ALWAYS = {
    "mode": "train",
    "train_mode": "supervised",
    "data.data_dir": None,  # The images are open.
    "data.eval_data_dir": None,
    "augmentation.view_size": None,
    "augmentation.operators": ("crop", "flip"),
    "augmentation.more_operators": (),
    "model.classifier_layer": 0,
    "finetune.after_block": None,
    "distill.teacher": None,
    "distill.label_weight": None,
    "finetune.zero_init": True,
    "train.microbatch_size": None,
    "train.steps_per_execution": 1,
    "train.keep_checkpoints": 1,
}


def child(
    material: Material, recipe: Recipe, source: sources.Source, folder: pathlib.Path, start: str | None
) -> RunConfig:
    """The run that trains a classifier on the images of a source.

    Args:
      material: Has the run whose model and augmentation it shares.
      recipe: How it trains.
      source: The labelled images to train on.
      folder: Its folder.
      start: Weights to start from; None takes those that follow from the seed.
    """
    changes = {
        **_ALWAYS,
        **recipe.settings(source.num_examples, material.model.distribute_strategy.num_replicas_in_sync),
        "model_dir": str(folder),
        "train_mode": "supervised" if start is None else "finetune",
        "checkpoint": start,
    }
    return override(material.config, changes)


def fit(config: RunConfig, source: sources.Source, strategy: tf.distribute.Strategy) -> Classifier:
    """Trains the classifier of a run, or loads it if the run is finished."""
    # No image to test on is named, so that none can count.
    images = builders.Sources(source, source, source)
    config = as_started(config)
    with open_run(config) as folder, strategy.scope():
        return train(config, images, folder)  # type: ignore[return-value]


def predict(model: Classifier, images: Images, title: str, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The logits of the images that have a label, float32 [M, C], and those labels, int64 [M]."""
    dataset = batches.eval_dataset(images.source, image_size=model.image_size, batch_size=batch_size, stop=images.limit)
    found = list(progress(extract(model, dataset), title, done=0, total=images.num_examples))
    labels = np.concatenate([batch.labels for batch in found])
    logits = np.concatenate([batch.representations for batch in found])
    return logits[labels >= 0], labels[labels >= 0]


def identity_of(config: RunConfig) -> dict[str, Any]:
    """The settings that a run's weights follow from, besides its images and the weights to start from, as JSON."""
    return {
        name: value
        for name, value in flatten(override(config, _ALWAYS)).items()
        if not SETTINGS[name].resumable and name != "checkpoint" and not name.startswith("data.")
    }
