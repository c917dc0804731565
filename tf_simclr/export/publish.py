"""Exports a run as its config asks, verifies the export in a fresh process, publishes it, and prunes old ones."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA

from tf_simclr import builders
from tf_simclr.data import batches, sources
from tf_simclr.data.files.names import in_print
from tf_simclr.evaluation.features import extract
from tf_simclr.export import convert
from tf_simclr.export.classifier import Chosen, answers_with, choose_classifier
from tf_simclr.export.directory import CARD, prune
from tf_simclr.export.saved_model import export_encoder
from tf_simclr.export.served import Served, to_served
from tf_simclr.export.signatures import MicroBatching, Serving
from tf_simclr.export.verify import verify
from tf_simclr.files import read_json
from tf_simclr.keras import keras
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs import weights
from tf_simclr.runs.export_inputs import ExportInputs
from tf_simclr.settings import SETTINGS, RunConfig, flatten, override, to_dict, to_text, typed

NUM_VERIFIED_IMAGES = 32
# More training images than these hardly change principal components.
MAX_PCA_IMAGES = 50_000
_RENEW = "move this export away (servers that watch the folder unload it at once), then run --mode=export"

# Where weights files store their step: ours, and the reference's for TensorFlow 2 and for TensorFlow 1.
_STEPS = (
    "optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE",
    "global_step/.ATTRIBUTES/VARIABLE_VALUE",
    "global_step",
)


def publish(
    config: RunConfig,
    model: EncoderTrainer,
    inputs: ExportInputs,
    open_images: Callable[[], builders.Sources],
    folder: pathlib.Path,
) -> str:
    """Exports the encoder to saved_model/<step>/ unless that exists, and verifies it in a fresh process.

    For weights trained elsewhere, the step is the one in their file, or else 1.

    Args:
      config: The run.
      model: The run's model, restored or just trained.
      inputs: What the export needs of the run's images.
      open_images: Opens the images themselves, to fit PCA on; called only if that is asked for.
      folder: The run's folder.

    Returns:
      Lines for the terminal.

    Raises:
      OSError: If the export cannot be written.
      ValueError: If the export does not compute what the encoder in memory does, breaks a rule of `audit`, or was
        published with other settings before.
    """
    step = int(model.optimizer.iterations.numpy())
    target = folder / "saved_model" / str(step or _step_of(config.checkpoint or ""))
    if target.exists():
        check_same_settings(target, config)
    chosen = _choose_classifier(config, model, folder, step)
    if remark := _remark(chosen, model, target):
        chosen = dataclasses.replace(chosen, served=dataclasses.replace(chosen.served, classifier=None))
    served = chosen.served
    class_names = chosen.class_names or (inputs.class_names if step else None)
    serving = _make_serving(config, served, open_images, class_names if served.classifier is not None else None)
    sample = inputs.images[:NUM_VERIFIED_IMAGES]
    differences = []

    def check(directory: str) -> None:
        differences.append(verify(directory, served, sample, serving=serving))

    if target.exists():
        check(str(target))
    else:
        details = _make_details(config, inputs, folder, step)
        details |= {"export": _settings(config), "classifier": chosen.card}
        export_encoder(served, str(target), serving=serving, details=details, check=check)
    prune(target.parent, config.export.keep or 0, target)
    return "\n".join(
        [
            f"SavedModel:   {target}",
            f"              verified in a process without tf_simclr on {len(sample)} images: "
            f"embeddings differ by at most {differences[0]:.1e}",
            *remark,
            *_convert(config, inputs, target, folder / "converted" / target.name),
        ]
    )


def _choose_classifier(config: RunConfig, model: EncoderTrainer, folder: pathlib.Path, step: int) -> Chosen:
    """The parts to export; `step` is 0 if the weights are not the run's own."""
    checkpoint = config.checkpoint or ""
    return choose_classifier(
        _at_precision(config, model),
        folder if step else pathlib.Path(weights.find_checkpoint(checkpoint)).parent.resolve().parent,
        step or _step_of(checkpoint),
        is_pretrained=model.is_pretrained,
        is_own=step > 0,
    )


def _remark(chosen: Chosen, model: EncoderTrainer, target: pathlib.Path) -> list[str]:
    """A line for the terminal if the export does not answer with the classifier that was evaluated."""
    if target.exists() and not answers_with(target, chosen.card):
        return [f"              `classify` is not the classifier of the last evaluation: {_RENEW}"]
    if chosen.served.classifier is None and model.classifier is not None:
        return [f"              without `classify`, since no classifier was evaluated: run --mode=eval, {_RENEW}"]
    return []


def _convert(config: RunConfig, inputs: ExportInputs, target: pathlib.Path, directory: pathlib.Path) -> list[str]:
    """Writes the export in the other formats that the config asks for; returns lines for the terminal."""
    if not config.export.formats:
        return []
    lines = convert.convert(target, directory, config.export.formats, inputs.images.astype(np.float32) / 255)
    return [f"Converted:    {directory}", *(f"              {line}" for line in lines)]


def _step_of(checkpoint: str) -> int:
    """The step at which a weights file was saved, or 1 if it does not state one: servers may take 0 for "any"."""
    reader = tf.train.load_checkpoint(weights.find_checkpoint(checkpoint))
    steps = [int(reader.get_tensor(name)) for name in _STEPS if reader.has_tensor(name)]
    return max([1, *steps])


def _settings(config: RunConfig) -> dict[str, Any]:
    """The settings that affect an export."""
    return {name: value for name, value in to_dict(config)["export"].items() if name not in ("keep", "formats")}


def check_same_settings(target: pathlib.Path, config: RunConfig) -> None:
    """Raises a `ValueError` if the export at `target` was made with other settings."""
    card = target / CARD
    before = read_json(card).get("export", {}) if card.is_file() else {}
    changed = [
        f"export.{name} was {to_text(before.get(name, 'unknown'))}, is {to_text(value)}"
        for name, value in _settings(config).items()
        if before.get(name) != value
    ]
    if changed:
        raise ValueError(
            "An export of this step with other settings exists and is not replaced, since a server may hold it: "
            f"move it away (servers that watch the folder unload it at once), or use its settings "
            f"({'; '.join(changed)}). Received: {target}"
        )


def _at_precision(config: RunConfig, model: EncoderTrainer) -> Served:
    """The parts of the model, with an encoder of the same weights in the export's precision."""
    served = to_served(model)
    if config.export.precision == "run":
        return served
    other = override(config, {"train.precision": config.export.precision})
    encoder = builders.build_encoder(other, batch_norm_momentum=config.model.batch_norm_momentum)
    encoder.set_weights(model.encoder.get_weights())
    for layer, original in zip(encoder.layers, model.encoder.layers, strict=True):
        layer.trainable = original.trainable
    return dataclasses.replace(served, encoder=encoder)


def _make_serving(
    config: RunConfig,
    served: Served,
    open_images: Callable[[], builders.Sources],
    class_names: tuple[str, ...] | None,
) -> Serving:
    """How the export serves; the names of the classes in UTF-8."""
    export = config.export
    batching = None
    if export.micro_batch_size is not None:
        batching = MicroBatching(export.micro_batch_size, export.micro_batch_timeout_us, export.micro_batch_threads)
    return Serving(
        normalize=export.embedding == "normalized",
        pca=_fit_pca(config, served.encoder, open_images().train) if export.pca_dim is not None else None,
        project=export.project,
        class_names=None if class_names is None else tuple(map(in_print, class_names)),
        max_pixels=config.data.max_pixels,
        batch_sizes=export.batch_sizes,
        micro_batching=batching,
    )


def _fit_pca(config: RunConfig, encoder: keras.Model, source: sources.Source) -> tuple[np.ndarray, np.ndarray]:
    """Mean, float [F], and principal axes, float [k, F], of the features of the run's training images.

    With more than MAX_PCA_IMAGES images, uses as many, evenly spread.
    """
    batch_size, wanted = config.eval.batch_size, config.export.pca_dim
    if source.num_examples > MAX_PCA_IMAGES:
        source = source.subset(np.linspace(0, source.num_examples - 1, MAX_PCA_IMAGES).astype(int))
    dataset = batches.eval_dataset(source, image_size=config.data.image_size, batch_size=batch_size)
    features = np.concatenate([batch.representations for batch in extract(encoder, dataset)])
    check_pca_dim(config, features.shape[1], len(features))
    pca = PCA(wanted, svd_solver="covariance_eigh").fit(features.astype(np.float64))
    return pca.mean_, pca.components_


def check_pca_dim(config: RunConfig, num_features: int, num_examples: int) -> None:
    """Raises a `ValueError` if there are fewer features or training images than principal components."""
    largest, wanted = min(num_features, num_examples), config.export.pca_dim
    if wanted is not None and wanted > largest:
        raise ValueError(
            f"{SETTINGS['export.pca_dim'].title} must be at most the number of features and of training images: use "
            f"{typed(export__pca_dim=largest)}. Received: {wanted} of {num_features} features of {num_examples} images"
        )


def _make_details(config: RunConfig, inputs: ExportInputs, folder: pathlib.Path, step: int) -> dict[str, Any]:
    """The entries of the model card about the run: only what was measured, and no paths."""
    details: dict[str, Any] = {"license": config.export.license}
    if step == 0:  # The weights come from elsewhere; how they were trained is not known.
        return details
    result = folder / f"result_{step}.json"
    return details | {
        "training": {
            "global_step": step,
            **card_settings(config),
            "train.global_batch_size": config.global_batch_size(inputs.num_examples),
        },
        "accuracy": _without_paths(read_json(result)) if result.is_file() else None,
        "data": {
            "dataset": config.data.dataset,
            "training_images": inputs.num_examples,
            "classes": inputs.num_classes,
        },
    }


def _without_paths(result: dict[str, Any]) -> dict[str, Any]:
    """The result without the titles of encoders, which may be paths, and without where a suite was looked for."""
    kept = {name: value for name, value in result.items() if name != "encoders"}
    if "transfer" in kept:
        kept["transfer"] = kept["transfer"]["sets"]
    return kept


def card_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that the model card states, without paths."""
    return {
        name: _last_parts(value) if SETTINGS[name].card == "shorten" and value else value
        for name, value in flatten(config).items()
        if SETTINGS[name].card != "leave_out"
    }


def _last_parts(paths: str) -> str:
    """The last parts of comma-separated paths."""
    return ",".join(pathlib.PurePath(path).name for path in paths.split(","))
