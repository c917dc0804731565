"""Opens the teacher of a distillation: a run, a checkpoint, or a SavedModel from anywhere."""

import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from tf_simclr import builders, files
from tf_simclr.builders import own_encoder
from tf_simclr.data import sources
from tf_simclr.keras import keras
from tf_simclr.models.distiller import Teacher
from tf_simclr.models.heads import head_outputs, linear_classifier
from tf_simclr.runs import architecture, export_inputs, saved_models, weights
from tf_simclr.runs.saved_outputs import Place
from tf_simclr.runs.saved_settings import settings_of_weights
from tf_simclr.settings import SETTINGS, RunConfig, typed

# What a run's teacher is, in the run's folder.
FILE = "teacher.json"


def open_teacher(config: RunConfig) -> Teacher:
    """Opens the teacher that `distill.teacher` names; call it in the scope of the run's strategy.

    A run's folder stands for its newest checkpoint, with the settings of that run; a checkpoint from elsewhere for the
    ResNet whose shapes it has, of which the classifier reads the representation. A SavedModel may be anybody's; see
    `saved_models.open_teacher`.

    Raises:
      FileNotFoundError: If it does not exist.
      ValueError: If it cannot be read, or has no logits where they are to be learnt.
    """
    setting = SETTINGS["distill.teacher"].title
    text = config.distill.teacher or ""
    place = Place.parse(text)
    files.check_file_system(place.path, setting)
    try:
        if saved_models.is_saved_model(place.path):
            teacher = _of_saved_model(place, config)
        else:
            teacher = _of_weights(text, config)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{setting}: {error}") from error
    except ValueError as error:  # Its subclasses, such as those of broken files, take other arguments.
        raise ValueError(f"{setting}: {error}") from error
    kind = "classes" if _of_classes(config) else "numbers for an image"
    logging.info("Teacher %s: %d %s, images of %d px", text, teacher.width, kind, teacher.image_size)
    return teacher


def kept_width(folder: pathlib.Path) -> int | None:
    """How many numbers the teacher of the run in a folder gives for an image; None if no step was taken with one."""
    path = folder / FILE
    return files.read_json(path)["width"] if path.is_file() else None


def teach(config: RunConfig, model: Any, teacher: Teacher) -> None:
    """Gives a run's model its teacher, and leaves XLA to teachers of Keras layers.

    Raises:
      ValueError: If the teacher's answers have another width than the student's.
    """
    model.learn_from(teacher)
    _choose_compilation(config, model)


def attach(config: RunConfig, model: Any, source: sources.Source, folder: pathlib.Path, start_step: int) -> None:
    """Gives a run's model its teacher, if it has none yet, and records in `teacher.json` which one that is.

    Args:
      config: The run.
      model: Its model, which learns from a teacher.
      source: The images that it trains on.
      folder: The run's folder.
      start_step: Step at which training starts; from 1 on, the teacher must be the one of the first step.

    Raises:
      FileNotFoundError: If the teacher does not exist.
      ValueError: If it has changed since the run started, or does not fit the images or the settings.
    """
    if model.teacher is None:
        teach(config, model, open_teacher(config))
    _check_names(config, source)
    found = {"width": model.teacher.width, "image_size": model.teacher.image_size, **model.teacher.identity}
    path = folder / FILE
    if start_step and path.is_file() and files.read_json(path) != found:
        raise ValueError(
            f"The teacher has changed since the run in {folder} started: put it back as it was, or start over in "
            f"another --model_dir. Received: {config.distill.teacher}"
        )
    files.write_json(path, found)


def _of_classes(config: RunConfig) -> bool:
    return config.distill.target == "logits"


def _of_weights(path: str, config: RunConfig) -> Teacher:
    """The teacher of a run or a checkpoint."""
    settings = settings_of_weights(path, config.train.precision)
    encoder = builders.build_encoder(settings)
    representation = encoder(keras.Input([settings.data.image_size] * 2 + [3]))
    parts: list[Any] = [encoder]
    if _of_classes(config):
        num_classes = architecture.read_heads(path)["num_classes"]
        if num_classes is None:
            raise ValueError(
                f"The teacher must have a classifier, whose logits are learnt: fine-tune it first, or use "
                f"{typed(distill__target='representations')}. Received: {path}"
            )
        head, classifier = builders.build_head(settings), linear_classifier(num_classes)
        head(representation)
        classifier(head_outputs(head, representation)[settings.model.classifier_layer])
        parts += [head, classifier]
    weights.load_weights(path, *parts)
    answer = _answer(settings.model.classifier_layer, *parts)
    width = parts[-1].units if _of_classes(config) else representation.shape[-1]
    digest = files.digest_of_arrays(value for part in parts for value in part.get_weights())
    identity = {"weights": digest, "classifier_layer": settings.model.classifier_layer if _of_classes(config) else None}
    identity["code"] = own_encoder.digest_of_code(settings.model.encoder)
    known = {name: value for name, value in identity.items() if value is not None}
    return Teacher(answer, width, settings.data.image_size, known)


def _answer(
    layer: int, encoder: keras.Model, head: Any = None, classifier: Any = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """From images to logits, or to representations if there is no classifier, in inference mode."""

    def answer(images: tf.Tensor) -> tf.Tensor:
        representations = encoder(images, training=False)
        if classifier is None:
            return representations
        return classifier(head_outputs(head, representations, training=False)[layer], training=False)

    return answer


def _of_saved_model(place: Place, config: RunConfig) -> Teacher:
    """The teacher of a SavedModel; one that takes image files gets the views as PNG files."""
    found = saved_models.open_teacher(place, config.data.image_size, of_classes=_of_classes(config))
    if found.image_size is None and config.train.jit_compile == "on":
        raise ValueError(
            "A teacher that is given image files does not compile: name a function for pixels of one size as "
            "--teacher=PATH#FUNCTION, such as encode of an export of this package, or use "
            f"{typed(train__jit_compile='off')}. Received: {config.distill.teacher}"
        )
    size = found.image_size or config.view_size

    def answer(images: tf.Tensor) -> tf.Tensor:
        if found.image_size is None:
            pixels = tf.image.convert_image_dtype(images, tf.uint8, saturate=True)
            images = tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)
        return found.encode(images)

    logging.info("The teacher's function %s takes %s; its output is %s", found.function, found.takes, found.output)
    width = int(saved_models.on_one_replica(answer, tf.zeros([1, size, size, 3])).shape[-1])
    described = {"function": found.function, "output": found.output, "takes": found.takes}
    return Teacher(answer, width, size, {"saved_model": saved_models.digest(place.path), **described})


def _check_names(config: RunConfig, source: sources.Source) -> None:
    """Raises a `ValueError` if the teacher is a run whose classes are known to be others."""
    kept = export_inputs.load(pathlib.Path(config.distill.teacher or ""))
    theirs, ours = kept and kept.class_names, source.class_names
    if _of_classes(config) and theirs and ours and theirs != ours:
        raise ValueError(
            "The classes of the images must be those of the teacher, in the same order: "
            f"use {typed(distill__target='representations')}, or another --teacher. "
            f"Received: {', '.join(ours)}, and {', '.join(theirs)}"
        )


def _choose_compilation(config: RunConfig, model: Any) -> None:
    """Leaves XLA to teachers of Keras layers: what a SavedModel consists of may not compile."""
    if "saved_model" in model.teacher.identity and config.train.jit_compile == "auto":
        model.jit_compile = False
