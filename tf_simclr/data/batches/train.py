"""From a source to batches, in an order that follows from the seed alone.

The order of an epoch is a function of (seed, epoch), and all that is random about a view of (seed, epoch, example).
So a run that starts at step s gets exactly the batches that an uninterrupted run gets from there on, and neither the
number of replicas nor the batch size changes a pixel. Batches carry the keys (epoch, example), from which the model
draws the rest of the augmentation.

Batches are global: a distribution strategy cuts each into contiguous slices, one per replica, so that the
same pixels come with any number of replicas. The auto-shard policy is DATA, under which every worker of a
multi-worker strategy reads all batches and keeps its own slices of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.data.batches.order import Steps, index_batches
from tf_simclr.data.batches.service import read_in_turn
from tf_simclr.data.batches.streaming import readable_records, streamed_examples
from tf_simclr.data.formats import decode
from tf_simclr.data.quality.broken import broken_reason
from tf_simclr.data.sources import ArraySource, FileSource, Source, TfdsSource, TfrecordSource

# How many files in a row may be broken before a run stops: a few are an accident, this many a lost disk.
_MAX_BROKEN_IN_A_ROW = 100


def train_dataset(
    source: Source,
    *,
    global_batch_size: int,
    seed: int,
    start_step: int = 0,
    total_steps: int,
    augmentation: Augmentation,
    data_service: Sequence[str] = (),
) -> tf.data.Dataset:
    """Makes the batches of steps `start_step` to `total_steps` - 1 of a training run.

    An epoch is N // B batches without repetition, in an order that follows from (seed, epoch): a uniformly
    random one for arrays and files, files and then a buffer shuffled for streamed data. The N % B
    examples that fill no batch change from epoch to epoch. A file that turns out to be broken is replaced by
    the next one of the source that is not, named in the log and, from the next epoch on, not read again.

    Args:
      source: N examples.
      global_batch_size: B, the examples in a batch, for all replicas together.
      seed: any integer.
      start_step: first step wanted, to resume a run.
      total_steps: steps of the whole run.
      augmentation: how to draw the crops, and their side S in pixels; unused for an ArraySource.
      data_service: "host:port" of tf.data services that make the same batches on their machines, see
        `service.read_in_turn`; unused for an ArraySource.

    Returns:
      Dataset of total_steps - start_step batches ({"images", "keys"}, labels int64 [B]), or the former alone without
      labels. Keys are int64 [B, 2], (epoch, example). Images are uint8 [B, H, W, 3] from an ArraySource, to be cropped
      on the device, and else V = `num_views` crops of every image, resized: uint8 [B, V, S, S, 3].

    Raises:
      ValueError: when the source has fewer than B examples, or the steps are out of order.
    """
    steps_per_epoch = source.num_examples // global_batch_size
    if steps_per_epoch == 0:
        raise ValueError(
            "There are fewer images than one batch holds: add images or lower the batch size. "
            f"Received: {source.num_examples} images and a global batch size of {global_batch_size}"
        )
    if not 0 <= start_step <= total_steps:
        raise ValueError(
            "start_step must be between 0 and total_steps. "
            f"Received: start_step={start_step}, total_steps={total_steps}"
        )
    steps = Steps(seed, global_batch_size, steps_per_epoch, start_step, total_steps)
    with tf.device("CPU:0"):  # Arrays that the pipeline holds stay off the accelerator.
        if isinstance(source, ArraySource):
            dataset = _array_batches(source, steps)
        elif data_service:
            dataset = read_in_turn(
                lambda lane: _view_batches(source, dataclasses.replace(steps, lane=lane), augmentation, reports=False),
                data_service,
            )
        else:
            dataset = _view_batches(source, steps, augmentation)
        return _finish(dataset.apply(tf.data.experimental.assert_cardinality(total_steps - start_step)))


def eval_dataset(source: Source, *, image_size: int, batch_size: int) -> tf.data.Dataset:
    """Goes through a source once, in order, with the preprocessing of `decode.preprocess_for_eval`.

    Args:
      source: N examples. Files that turn out to be broken are left out, and named in the log once.
      image_size: side S of the images in pixels.
      batch_size: examples in a batch; the last batch holds the rest.

    Returns:
      Dataset of (images float32 [b, S, S, 3] in [0, 1], labels int64 [b]), or images alone without labels.
    """

    def preprocess(images: tf.Tensor, *labels: tf.Tensor) -> Any:
        return _element(decode.preprocess_for_eval(images, image_size), *labels)

    with tf.device("CPU:0"):
        if isinstance(source, ArraySource):
            columns = (source.images,) if source.labels is None else (source.images, source.labels)
            batches = tf.data.Dataset.from_tensor_slices(columns).batch(batch_size)
            return _finish(batches.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE))
        examples = _readable_files(source) if isinstance(source, FileSource) else readable_records(source)
        return _finish(examples.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size))


def _array_batches(source: ArraySource, steps: Steps) -> tf.data.Dataset:
    """Gathers whole batches: ({"images": uint8 [B, H, W, 3], "keys": [B, 2]}, labels [B])."""
    images = tf.constant(source.images)
    labels = () if source.labels is None else (tf.constant(source.labels),)

    def gather(epoch: tf.Tensor, indices: tuple[tf.Tensor, tf.Tensor]) -> Any:
        examples, _ = indices
        keys = tf.stack([tf.fill(tf.shape(examples), epoch), examples], axis=1)
        batch = {"images": tf.gather(images, examples), "keys": keys}
        return _element(batch, *(tf.gather(column, examples) for column in labels))

    return index_batches(source.num_examples, steps).map(gather)


def _file_examples(source: FileSource, steps: Steps, reports: bool) -> tf.data.Dataset:
    """Decoded files in the order of training: (key, image, label)."""
    read = _file_reader(source, stops_run=True, reports=reports)

    def replace_broken(order: tf.Tensor) -> tf.Tensor:
        used = tf.numpy_function(source.replacements, [], tf.int64) if reports else source.replacements()
        return tf.gather(tf.ensure_shape(used, [source.num_examples]), order)

    def read_example(epoch: tf.Tensor, example: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tf.stack([epoch, example]), *read(index)[1:]

    batches = index_batches(source.num_examples, steps, replace_broken)
    examples = batches.map(lambda epoch, indices: (tf.fill(tf.shape(indices[0]), epoch), *indices)).unbatch()
    return steps.in_lane(examples).map(read_example, num_parallel_calls=tf.data.AUTOTUNE)


def _readable_files(source: FileSource) -> tf.data.Dataset:
    """Decoded files in the order of the source, without the broken ones: (image, label)."""
    read = _file_reader(source, stops_run=False)
    known = source.replacements() == np.arange(source.num_examples)
    indices = tf.data.Dataset.from_tensor_slices(np.flatnonzero(known))
    examples = indices.map(lambda index: (index, *read(index)), num_parallel_calls=tf.data.AUTOTUNE)
    readable = examples.filter(lambda index, used, *example: used == index)
    return readable.map(lambda index, used, *example: example)


def _file_reader(
    source: FileSource, *, stops_run: bool, reports: bool = True
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Makes the function index -> (index of the file that was read, image, label).

    In the place of a broken file, the next one that can be read is taken, so that no other example of the
    batch moves. Too many broken files stop a run, but not what comes after it. On another machine, where this program's
    Python functions are not known, nothing is reported, and so nothing stops.
    """
    paths = source.paths
    content_at = None if source.contents is None else functools.partial(tf.gather, tf.constant(source.contents))
    path_at = paths.lookup()
    labels = () if source.labels is None else (tf.constant(source.labels),)

    def fetch(index: tf.Tensor) -> tf.Tensor:
        return tf.io.read_file(path_at(index)) if content_at is None else content_at(index)

    report = functools.partial(_report_broken, source, fetch, stops_run)

    def read_one(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = decode.decode_image(fetch(index), source.max_pixels)
        return index, image, *(tf.gather(column, index) for column in labels)

    def read(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # TensorFlow graphs cannot catch errors, but a nested dataset can leave out elements that fail. The
        # last candidate is the wanted file again, whose error stops the run.
        candidates = tf.data.Dataset.range(min(_MAX_BROKEN_IN_A_ROW, len(paths)))
        readable = candidates.map(lambda offset: read_one((index + offset) % len(paths))).ignore_errors()
        readable = readable.concatenate(tf.data.Dataset.from_tensors(index).map(read_one))
        used, *example = readable.take(1).get_single_element()
        if not reports:
            return used, *example
        used = tf.cond(
            used == index,
            lambda: used,
            lambda: tf.numpy_function(report, [index, used], tf.int64, stateful=False),
        )
        used = tf.ensure_shape(used, [])
        with tf.control_dependencies([used]):  # Who drops the index gets the report all the same.
            return used, *(tf.identity(column) for column in example)

    return read


def _report_broken(
    source: FileSource, fetch: Callable[[tf.Tensor], tf.Tensor], stops_run: bool, wanted: int, used: int
) -> int:
    """Remembers the files from the one wanted up to the one used as broken."""
    paths = source.reported_paths
    found = (i % len(paths) for i in range(wanted, used if used > wanted else used + len(paths)))
    new = [i for i in found if paths[i] not in source.broken]
    source.broken.add({paths[i]: broken_reason(functools.partial(fetch, i), source.max_pixels) for i in new})
    if stops_run:
        source.broken.check()
    return used


def _view_batches(
    source: FileSource | TfdsSource | TfrecordSource,
    steps: Steps,
    augmentation: Augmentation,
    reports: bool = True,
) -> tf.data.Dataset:
    """Crops the views out of every image: ({"images": uint8 [B, V, S, S, 3], "keys": [B, 2]}, labels [B]).

    The image is decoded whole, once for all views. Two calls of `tf.io.decode_and_crop_jpeg` take 1.6 times as long,
    and one for the window around both saves 5 % and gets its edges wrong (docs/input_speed.md).
    """
    if isinstance(source, FileSource):
        examples = _file_examples(source, steps, reports)
    else:
        examples = streamed_examples(source, steps, reports)

    def make_views(key: tf.Tensor, image: tf.Tensor, *label: tf.Tensor) -> Any:
        boxes = augmentation.crop_boxes(key[tf.newaxis], tf.shape(image)[0], tf.shape(image)[1])
        boxes = tf.unstack(boxes, num=augmentation.num_views)
        views = tf.stack([decode.crop_and_resize(image, box, augmentation.image_size) for box in boxes])
        return _element({"images": views, "keys": key}, *label)

    views = examples.map(make_views, num_parallel_calls=tf.data.AUTOTUNE)
    return views.batch(steps.batch_size, drop_remainder=True)


def _element(images: Any, *labels: tf.Tensor) -> Any:
    """(images, labels), or images alone where there are no labels."""
    return (images, *labels) if labels else images


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
