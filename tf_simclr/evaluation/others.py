"""The encoders that `eval.compare_encoders` names: runs, checkpoints and SavedModels from anywhere."""

from collections.abc import Iterator

import tensorflow as tf

from tf_simclr import builders, files
from tf_simclr.evaluation.encoders import FrozenEncoder, architecture
from tf_simclr.keras import keras
from tf_simclr.runs import saved_models, weights
from tf_simclr.runs.saved_outputs import Place
from tf_simclr.runs.saved_settings import settings_of_weights
from tf_simclr.settings import SETTINGS, RunConfig


def open_others(config: RunConfig, strategy: tf.distribute.Strategy) -> Iterator[FrozenEncoder]:
    """Opens the encoders that `eval.compare_encoders` names, as "eval_other_1" and so on.

    A run's folder stands for its newest checkpoint, with the settings and the image size of that run; a checkpoint
    from elsewhere for the ResNet whose shapes it has. A SavedModel may be anybody's; see `saved_models.open_encoder`.

    Args:
      config: The run that they are compared with.
      strategy: Encodes the images, except for SavedModels.

    Raises:
      FileNotFoundError: If one does not exist.
      ValueError: If one cannot be read or is no encoder.
    """
    for number, text in enumerate(config.eval.compare_encoders, 1):
        yield open_encoder(text, config, strategy, name=f"eval_other_{number}", setting="eval.compare_encoders")


def open_encoder(
    text: str, config: RunConfig, strategy: tf.distribute.Strategy, *, name: str, setting: str
) -> FrozenEncoder:
    """Opens one of them.

    Args:
      text: A run, a checkpoint or a SavedModel, as in `open_others`.
      config: The run that asks for it: its precision and, where a SavedModel leaves it open, its image size.
      strategy: Encodes the images, except for SavedModels.
      name: Prefix of its keys.
      setting: The setting that holds the text, for errors.

    Raises:
      FileNotFoundError: If it does not exist.
      ValueError: If it cannot be read or is no encoder.
    """
    place = Place.parse(text)
    files.check_file_system(place.path, SETTINGS[setting].title)
    if saved_models.is_saved_model(place.path):
        return _of_saved_model(name, text, place, config.data.image_size)
    return _of_weights(name, text, config, strategy, setting)


def check(config: RunConfig, strategy: tf.distribute.Strategy) -> None:
    """Raises what `open_others` raises, so that a training does not end in it."""
    for _ in open_others(config, strategy):
        pass


def _of_saved_model(name: str, text: str, place: Place, image_size: int) -> FrozenEncoder:
    found = saved_models.open_encoder(place, image_size)
    described = {"takes": found.takes, "function": found.function, "output": found.output}
    identity = {"saved_model": saved_models.digest(place.path), **described}
    return FrozenEncoder(name, text, found.image_size, identity, lambda: found.encode, {"path": text, **described})


def _of_weights(
    name: str, path: str, config: RunConfig, strategy: tf.distribute.Strategy, setting: str
) -> FrozenEncoder:
    try:
        digest = weights.digest(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{SETTINGS[setting].title}: {error}") from None
    settings = settings_of_weights(path, config.train.precision)
    identity = {"weights": digest, **architecture(settings)}

    def build() -> keras.Model:
        with strategy.scope():
            encoder = builders.build_encoder(settings)
            weights.load_weights(path, encoder)
        return encoder

    return FrozenEncoder(name, path, settings.data.image_size, identity, build, {"path": path})
