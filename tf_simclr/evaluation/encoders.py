"""The encoders that an evaluation judges: this one, and those to compare it with."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from tf_simclr import devices, files
from tf_simclr.builders import own_encoder
from tf_simclr.keras import keras
from tf_simclr.models.heads import head_outputs, num_layers
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs import models, weights
from tf_simclr.runs.results import THIS
from tf_simclr.settings import RunConfig, override, to_dict


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenEncoder:
    """An encoder to judge, built when it is needed: what is known of its representations may be in the cache.

    Attributes:
      name: Prefix of its keys in result.json, such as "eval" or "eval_untrained".
      title: Its name in reports.
      image_size: Side S of its input in pixels; None if it takes PNG files.
      identity: What its representations of an image follow from, as JSON: digests of weights, settings, precision.
      build: Returns it: a `keras.Model`, or a function, from images float32 [b, S, S, 3] in [0, 1], or PNG files string
        [b], to [b, F]; or from the representations of `base`.
      origin: Where it is from, such as its path, for result.json.
      base: The encoder whose representations it takes in place of images, if it does.
    """

    name: str
    title: str
    image_size: int | None
    identity: Mapping[str, Any]
    build: Callable[[], Callable[..., tf.Tensor]]
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    base: "FrozenEncoder | None" = None

    @functools.cached_property
    def built(self) -> Callable[..., tf.Tensor]:
        """What `build` returns, built once."""
        return self.build()

    def describe(self) -> dict[str, Any]:
        """What result.json says about it."""
        return {"title": self.title, "image_size": self.image_size, **self.origin}


def this_encoder(config: RunConfig, model: EncoderTrainer) -> FrozenEncoder:
    """The encoder of a run's model, as its weights are now."""
    identity = {"weights": files.digest_of_arrays(model.encoder.get_weights()), **architecture(config)}
    return FrozenEncoder(THIS, "this encoder", config.data.image_size, identity, lambda: model.encoder)


def head_layers(model: EncoderTrainer, this: FrozenEncoder) -> Iterator[FrozenEncoder]:
    """The layers of a model's projection head, the last of which gives the projections, as `eval_head_1` and so on.

    Args:
      model: The model.
      this: Its encoder.
    """
    head = model.projection_head
    weights = files.digest_of_arrays(head.get_weights())
    for layer in range(1, num_layers(head) + 1):
        title = "the projections" if layer == num_layers(head) else f"layer {layer} of the head"
        identity = {"head": weights, "layer": layer, "of": dict(this.identity)}

        def build(layer: int = layer) -> Callable[[tf.Tensor], tf.Tensor]:
            return lambda representations: head_outputs(head, representations, training=False)[layer]

        yield FrozenEncoder(f"eval_head_{layer}", title, this.image_size, identity, build, base=this)


def untrained_encoder(config: RunConfig, model: EncoderTrainer, num_examples: int) -> FrozenEncoder:
    """The same encoder with the weights that a run of this seed starts from, unless it starts from a checkpoint."""

    def build() -> keras.Model:
        with model.distribute_strategy.scope():
            return _initial(config, model, num_examples).encoder

    identity = {"seed": config.seed, "tensorflow": tf.__version__, **architecture(config)}
    return FrozenEncoder("eval_untrained", "the untrained encoder", config.data.image_size, identity, build)


def start_encoder(config: RunConfig, model: EncoderTrainer, num_examples: int) -> FrozenEncoder | None:
    """The same encoder with the weights that the run started from; None if it started from none, or they are gone.

    The weights are those that `config.checkpoint` holds now.
    """
    checkpoint = config.checkpoint
    if checkpoint is None or not int(model.optimizer.iterations.numpy()):  # Without a step, this encoder is the start.
        return None
    try:
        identity = {"weights": weights.digest(checkpoint), **architecture(config)}
    except (FileNotFoundError, ValueError) as error:
        logging.warning("The encoder that this one started from is left out: %s", error)
        return None

    def build() -> keras.Model:
        with model.distribute_strategy.scope():
            start = _initial(config, model, num_examples)
            models.start_from(checkpoint, start)
        return start.encoder

    size, origin = config.data.image_size, {"path": checkpoint}
    return FrozenEncoder("eval_start", "the encoder it started from", size, identity, build, origin)


def raw_pixels(config: RunConfig) -> FrozenEncoder:
    """The pixels themselves."""
    size = config.data.image_size
    return FrozenEncoder(
        "eval_raw_pixels", "raw pixels", size, {"pixels": size}, lambda: keras.Sequential([keras.layers.Flatten()])
    )


def _initial(config: RunConfig, model: EncoderTrainer, num_examples: int) -> EncoderTrainer:
    """A model like the run's, with initial weights; it is not trained."""
    num_classes = getattr(model.classifier, "units", None)
    return models.initial_model(override(config, {"mode": "eval"}), num_examples, num_classes, model.teacher_width)


def architecture(config: RunConfig) -> dict[str, Any]:
    """The settings that an encoder follows from, besides its weights, and the code of one of the user's own."""
    precision, _ = devices.resolve_precision(config.train.precision)
    found = {"model": to_dict(config)["model"], "precision": precision}
    code = own_encoder.digest_of_code(config.model.encoder)
    return found if code is None else found | {"code": code}
