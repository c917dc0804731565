"""Pretraining, fine-tuning and supervised training, from a config to a trained model."""

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from tf_simclr import builders, distribute
from tf_simclr.data import batches, sources
from tf_simclr.data.batches.waiting import WaitClock
from tf_simclr.models.simclr import SimCLR
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs import checkpoints, export_inputs, identity, models, teachers, workers, writers
from tf_simclr.runs.cadence import Cadence
from tf_simclr.settings import DEFAULT_BATCH_SIZE, RunConfig
from tf_simclr.training import callbacks, health, stopping
from tf_simclr.training.progress import Progress


def train(config: RunConfig, images: builders.Sources, folder: pathlib.Path) -> EncoderTrainer:
    """Trains to the end of the run, from its newest checkpoint if it has one; a finished run stays as it is.

    Call it in the scope of the run's strategy.

    Args:
      config: The run.
      images: The images of the run, which trains on `images.train`. The others are recorded with it.
      folder: The run's folder, as `open_run` returns it.

    Returns:
      The trained model.

    Raises:
      FloatingPointError: If the loss stops being finite.
      Stopped: If a signal asked the run to stop; its state is saved.
      FileNotFoundError: If the teacher is gone.
      OSError: If the disk is full.
      ValueError: If the settings do not fit together, the source has fewer images than a batch, or too many of its
        files are broken, or the images have changed since the run started.
    """
    source = images.train
    model, checkpoint, start_step = models.load_model(config, source)
    _check_agreement(start_step)
    trains = start_step < config.total_steps(source.num_examples)
    if trains and config.train_mode == "distill":
        teachers.attach(config, model, source, folder, start_step)
    with _explaining(source, folder), stopping.catch_signals() as stop_request:
        identity.check_same_images(images, config.data, folder, start_step)
        if trains:
            _check_space(config, model, folder)
            if start_step == 0 or export_inputs.load(folder) is None:
                export_inputs.keep(export_inputs.of_sources(config, images), folder)
            _continue(config, model, checkpoint, images, folder, stop_request)
        else:
            logging.info("The run is finished at step %d: nothing to train", start_step)
        step = int(model.optimizer.iterations.numpy())
        strategy = tf.distribute.get_strategy()
        if distribute.has_workers(strategy) and step >= config.total_steps(source.num_examples):
            if distribute.is_chief(strategy):
                workers.mark_trained(folder, step)
            distribute.largest_of_workers(step)  # Nobody leaves before that, for those who have left do not come back.
    if stop_request:
        raise stopping.Stopped(stop_request.signal_number, step)
    return model


def _continue(
    config: RunConfig,
    model: EncoderTrainer,
    checkpoint: tf.train.Checkpoint,
    images: builders.Sources,
    folder: pathlib.Path,
    stop_request: stopping.StopRequest,
) -> None:
    """Trains from the model's step to the end of the run, or until it is asked to stop."""
    source = images.train
    start_step, total_steps = int(model.optimizer.iterations.numpy()), config.total_steps(source.num_examples)
    batch_size = config.global_batch_size(source.num_examples)
    dataset = batches.train_dataset(
        source,
        global_batch_size=batch_size,
        seed=config.seed,
        start_step=start_step,
        total_steps=total_steps,
        augmentation=model.augmentation,
        small_views=model.small_views,
        data_service=config.data.service,
    )
    if start_step == 0:
        first_batch = next(iter(dataset))
        batch = first_batch[0] if isinstance(first_batch, tuple) else first_batch
        callbacks.write_view_sheet(model, batch, folder)
    if config.train.global_batch_size is None and batch_size < DEFAULT_BATCH_SIZE:
        logging.info(
            "A step takes %d images, since there are fewer than %d; --train_batch_size changes that",
            batch_size, DEFAULT_BATCH_SIZE,
        )  # fmt: skip
    logging.info(
        "Training on %d images: steps %d to %d of %d images each",
        source.num_examples, start_step, total_steps, batch_size,
    )  # fmt: skip
    manager = checkpoints.make_manager(checkpoint, folder, config.train.keep_checkpoints)
    more = health.make(config, model, images, folder, start_step) if isinstance(model, SimCLR) else []
    _fit(config, model, dataset, manager, source.num_examples, folder, stop_request, more)


def _check_agreement(start_step: int) -> None:
    """Raises the same error on all workers of a strategy if they do not start from the same checkpoint."""
    first, last = -distribute.largest_of_workers(-start_step), distribute.largest_of_workers(start_step)
    if first != last:
        raise ValueError(
            "The workers must see the same checkpoints: put model_dir on a file system that all of them share. "
            f"Received: checkpoints from step {first} to step {last}"
        )


def _check_space(config: RunConfig, model: EncoderTrainer, folder: pathlib.Path) -> None:
    """Raises a `ValueError` if the checkpoints and the export will not fit on the disk."""
    _, needed, free = checkpoints.space(config, model, folder)
    if free <= needed:
        raise ValueError(
            f"The checkpoints and the export must fit on the disk of {folder}: free some space, lower "
            f"--keep_checkpoint_max, or choose another --model_dir. Received: {free / 1e6:,.1f} MB free, of up to "
            f"{needed / 1e6:,.1f} MB needed"
        )


@contextlib.contextmanager
def _explaining(source: sources.Source, folder: pathlib.Path) -> Iterator[None]:
    """Adds advice to the errors of too many broken files, a lost worker, or a full disk."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise ConnectionError(
            f"A worker stopped answering ({error.message.splitlines()[0]}): start run.py again on all workers; "
            "the run continues from the last checkpoint"
        ) from error
    except tf.errors.OpError:
        source.broken.check()
        raise
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror}): free some space or fix the cause, then run the same "
            "command again; it continues from the last checkpoint"
        ) from error


def _fit(
    config: RunConfig,
    model: EncoderTrainer,
    dataset: tf.data.Dataset,
    manager: tf.train.CheckpointManager,
    num_examples: int,
    folder: pathlib.Path,
    stop_request: stopping.StopRequest,
    more: list[health.ReportHealth],
) -> None:
    """Fits the model, with the callbacks that report and save, and more that report."""
    start_step = int(model.optimizer.iterations.numpy())
    total_steps, batch_size = config.total_steps(num_examples), config.global_batch_size(num_examples)
    for name in ("metrics.jsonl", "speed.jsonl", health.FILE):
        writers.cut_after(folder / name, start_step)
    wait_clock = WaitClock()
    reporting = Cadence(config.train.log_every_steps, total_steps)
    progress = Progress(
        folder,
        start_step=start_step,
        cadence=reporting,
        steps_per_epoch=num_examples / batch_size,
        global_batch_size=batch_size,
        every_seconds=config.train.log_every_seconds,
        wait_clock=wait_clock,
    )
    save = callbacks.SaveCheckpoint(
        manager,
        start_step=start_step,
        cadence=Cadence(config.checkpoint_steps(num_examples), total_steps),
        stop_request=stop_request,
        agreement=reporting,
    )
    # In this order, a diverged step is neither reported nor saved, and a saved step has been reported.
    used = [callbacks.StopOnNaN(manager, start_step=start_step, cadence=reporting), progress, *more, save]
    if isinstance(model, SimCLR) and (value := model.collapse_value(batch_size)) is not None:
        used.append(callbacks.WarnOfCollapse(value, start_step=start_step, cadence=reporting))
    model.fit(wait_clock.watch(dataset), steps_per_epoch=total_steps - start_step, verbose=0, callbacks=used)
