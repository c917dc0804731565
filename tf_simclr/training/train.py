"""Pretraining, fine-tuning and supervised training, from a config to a trained model."""

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from tf_simclr import builders, devices, distribute
from tf_simclr.data import batches, sources
from tf_simclr.data.batches.waiting import WaitClock
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs import checkpoints, identity, weights
from tf_simclr.runs.folder import list_checkpoints, run_folder
from tf_simclr.settings import RunConfig
from tf_simclr.training import callbacks, stopping
from tf_simclr.training.progress import Progress


def load_model(config: RunConfig, source: sources.Source) -> tuple[SimCLR | Classifier, tf.train.Checkpoint, int]:
    """The run's model with the weights of its newest checkpoint, that checkpoint, and its step (0 without one).

    A run without a checkpoint of its own starts from the config's, if that names one. Call it in the scope of the
    run's strategy.
    """
    logging.info("Precision %s: %s", *devices.resolve_precision(config.train.precision))
    num_classes = source.num_classes
    has_own = bool(list_checkpoints(run_folder(config)))
    if config.mode == "export" and config.checkpoint is not None and not has_own:
        # What is exported is the checkpoint: its classifier stays, whatever the images are.
        num_classes = weights.read_architecture(config.checkpoint)["num_classes"]
    model = builders.build_model(config, source.num_examples, num_classes)
    checkpoint = checkpoints.make_checkpoint(model)
    step = checkpoints.restore_latest(checkpoint, run_folder(config))
    if step == 0 and config.checkpoint is not None:
        start_from(config.checkpoint, model, has_new_classifier=config.finetune.zero_init)
    return model, checkpoint, step


def start_from(checkpoint: str, model: SimCLR | Classifier, *, has_new_classifier: bool = False) -> None:
    """Loads the weights of another run, or of the reference, into a model.

    The projection head may be another one where nothing reads it. The classifier is loaded if it has as many classes.

    Args:
      checkpoint: A run's folder, a folder of checkpoints, a checkpoint's prefix, or a SavedModel.
      model: Gets the weights.
      has_new_classifier: Whether to leave the classifier as it is.

    Raises:
      FileNotFoundError: If there is no such checkpoint.
      ValueError: If it does not fit the model; the error lists what does not.
    """
    found = weights.read_architecture(checkpoint)
    head = model.projection_head
    is_read = isinstance(model, SimCLR) or model.classifier_layer != 0
    if not is_read and found["num_proj_layers"] != head.num_layers:
        head = None
    classifier = model.classifier
    if classifier is not None and (has_new_classifier or found["num_classes"] != classifier.units):
        logging.info("The classifier is new: the checkpoint's has %s classes", found["num_classes"])
        classifier = None
    weights.load_weights(checkpoint, model.encoder, head, classifier)


def load_trained_model(config: RunConfig, source: sources.Source) -> SimCLR | Classifier:
    """The run's model with the weights of its newest checkpoint, or of the config's, or else a `FileNotFoundError`."""
    model, _, step = load_model(config, source)
    if step == 0 and config.checkpoint is None:
        raise FileNotFoundError(
            f"{run_folder(config)} holds no checkpoint: train first (--mode=train), or name another --model_dir"
        )
    return model


def train(config: RunConfig, source: sources.Source, folder: pathlib.Path) -> SimCLR | Classifier:
    """Trains to the end of the run, from its newest checkpoint if it has one; a finished run is left as it is.

    Call it in the scope of the run's strategy.

    Args:
      config: The run.
      source: The images to train on.
      folder: The run's folder, as `open_run` returns it.

    Returns:
      The trained model.

    Raises:
      FloatingPointError: If the loss stops being finite.
      Stopped: If a signal asked the run to stop; its state is saved.
      OSError: If the disk is full.
      ValueError: If the settings do not fit together, the source has fewer images than a batch, or too many of its
        files are broken, or the images have changed since the run started.
    """
    model, checkpoint, start_step = load_model(config, source)
    _check_agreement(start_step)
    total_steps = config.total_steps(source.num_examples)
    if start_step >= total_steps:
        logging.info("The run is finished at step %d: nothing to train", start_step)
        return model
    with _explaining(source, folder), stopping.catch_signals() as stop_request:
        identity.check_same_images(source, folder, start_step)
        dataset = batches.train_dataset(
            source,
            global_batch_size=config.train.global_batch_size,
            seed=config.seed,
            start_step=start_step,
            total_steps=total_steps,
            augmentation=model.augmentation,
            data_service=config.data.service.split(",") if config.data.service else (),
        )
        if start_step == 0:
            first_batch = next(iter(dataset))
            batch = first_batch[0] if isinstance(first_batch, tuple) else first_batch
            callbacks.write_view_sheet(model, batch, folder)
        logging.info(
            "Training on %d images: steps %d to %d of %d images each",
            source.num_examples, start_step, total_steps, config.train.global_batch_size,
        )  # fmt: skip
        manager = checkpoints.make_manager(checkpoint, folder, config.train.keep_checkpoints)
        _fit(config, model, dataset, manager, source.num_examples, folder, stop_request)
    if stop_request:
        raise stopping.Stopped(stop_request.signal_number, int(model.optimizer.iterations.numpy()))
    return model


def _check_agreement(start_step: int) -> None:
    """Raises the same error on all workers of a strategy if they do not start from the same checkpoint."""
    first, last = -distribute.largest_of_workers(-start_step), distribute.largest_of_workers(start_step)
    if first != last:
        raise ValueError(
            "The workers must see the same checkpoints: put model_dir on a file system that all of them share. "
            f"Received: checkpoints from step {first} to step {last}"
        )


@contextlib.contextmanager
def _explaining(source: sources.Source, folder: pathlib.Path) -> Iterator[None]:
    """Where too many files are broken, a worker is gone, or files cannot be written, the error says what to do."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise ConnectionError(
            f"A worker does not answer any more ({error.message.splitlines()[0]}): start run.py again on all workers; "
            "the run goes on from the last checkpoint"
        ) from error
    except tf.errors.OpError:
        if not isinstance(source, sources.ArraySource):
            source.broken.check()
        raise
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror}): make space, or mend what else is wrong, and give the same "
            "command again; it goes on from the last checkpoint"
        ) from error


def _fit(
    config: RunConfig,
    model: SimCLR | Classifier,
    dataset: tf.data.Dataset,
    manager: tf.train.CheckpointManager,
    num_examples: int,
    folder: pathlib.Path,
    stop_request: stopping.StopRequest,
) -> None:
    """Goes on from the model's step to the end of the run, or until it is asked to stop."""
    start_step = int(model.optimizer.iterations.numpy())
    total_steps, batch_size = config.total_steps(num_examples), config.train.global_batch_size
    for name in ("metrics.jsonl", "speed.jsonl"):
        checkpoints.cut_after(folder / name, start_step)
    wait_clock = WaitClock()
    progress = Progress(
        folder,
        start_step=start_step,
        total_steps=total_steps,
        steps_per_epoch=num_examples / batch_size,
        global_batch_size=batch_size,
        every_steps=config.train.log_every_steps,
        every_seconds=config.train.log_every_seconds,
        wait_clock=wait_clock,
    )
    every_steps = config.train.log_every_steps
    save = callbacks.SaveCheckpoint(
        manager,
        start_step=start_step,
        every_steps=config.checkpoint_steps(num_examples),
        total_steps=total_steps,
        stop_request=stop_request,
        agree_every_steps=every_steps,
    )
    # In this order: what has diverged is not reported or saved, and what is saved has been reported.
    guard = callbacks.StopOnNaN(manager, start_step=start_step, every_steps=every_steps, total_steps=total_steps)
    used = [guard, progress, save]
    if isinstance(model, SimCLR) and (value := model.collapse_value(batch_size)) is not None:
        used.append(callbacks.WarnOfCollapse(value, start_step=start_step, every_steps=every_steps))
    model.fit(wait_clock.watch(dataset), steps_per_epoch=total_steps - start_step, verbose=0, callbacks=used)
