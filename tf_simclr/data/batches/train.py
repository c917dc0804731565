"""Makes training batches from a source, in an order that follows from the seed alone.

The order of an epoch is a function of (seed, epoch), and the randomness of a view is a function of (seed, epoch,
example). So a run that starts at step s gets exactly the batches that an uninterrupted run gets from step s on, and
neither the number of replicas nor the batch size changes a pixel. Batches carry the keys (epoch, example), from which
the model draws the rest of the augmentation.

Batches are global: a distribution strategy cuts each into contiguous slices, one per replica, so any number of
replicas sees the same pixels. The auto-shard policy is DATA: every worker of a multi-worker strategy reads all batches
and keeps its own slices.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.data.batches.elements import as_element, finish
from tf_simclr.data.batches.service import read_in_turn
from tf_simclr.data.batches.views import crop_views
from tf_simclr.data.sources import Source
from tf_simclr.data.sources.order import Steps


def train_dataset(
    source: Source,
    *,
    global_batch_size: int,
    seed: int,
    start_step: int = 0,
    total_steps: int,
    augmentation: Augmentation,
    small_views: Augmentation | None = None,
    data_service: Sequence[str] = (),
) -> tf.data.Dataset:
    """Makes the batches of steps `start_step` to `total_steps` - 1 of a training run.

    An epoch is N // B batches without repetition, in an order that follows from (seed, epoch): uniformly random for
    arrays and files; for records, the files and then a buffer are shuffled. The N % B examples left over change from
    epoch to epoch. A broken file is replaced by the next intact one of the source, named in the log and, from the next
    epoch on, not read again.

    Args:
      source: N examples.
      global_batch_size: B, examples in a batch over all replicas.
      seed: Any integer.
      start_step: The first step to make, when a run resumes.
      total_steps: Steps of the whole run.
      augmentation: How to draw the crops, and their side S in pixels; unused for a source that `has_one_size`.
      small_views: The same for W small views of every image, of s pixels, if there are any.
      data_service: "host:port" of tf.data services that make the same batches on their machines, see
        `service.read_in_turn`; unused for a source that `has_one_size`.

    Returns:
      Dataset of total_steps - start_step batches ({"images", "keys"}, labels int64 [B]), or only {"images", "keys"}
      without labels. Keys are int64 [B, 2], (epoch, example). If the source `has_one_size`, images are uint8
      [B, H, W, 3], which the device crops; if not, V = `num_views` resized crops of every image, uint8 [B, V, S, S, 3],
      and, with small views, "small_images", uint8 [B, W, s, s, 3].

    Raises:
      ValueError: If the source has fewer than B examples, or the steps are out of order.
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
    augmentations = {"images": augmentation}
    if small_views is not None:
        augmentations["small_images"] = small_views

    def make_lane(lane: tuple[int, int]) -> tf.data.Dataset:
        return _view_batches(source, dataclasses.replace(steps, lane=lane), augmentations, reports=False)

    with tf.device("CPU:0"):  # Arrays that the pipeline holds stay off the accelerator.
        if source.has_one_size:
            dataset = _image_batches(source, steps)
        elif data_service:
            dataset = read_in_turn(make_lane, data_service)
        else:
            dataset = _view_batches(source, steps, augmentations)
        return finish(dataset.apply(tf.data.experimental.assert_cardinality(total_steps - start_step)))


def _image_batches(source: Source, steps: Steps) -> tf.data.Dataset:
    """Whole images of one size: ({"images": uint8 [B, H, W, 3], "keys": [B, 2]}, labels [B])."""

    def name(keys: tf.Tensor, images: tf.Tensor, *labels: tf.Tensor) -> Any:
        return as_element({"images": images, "keys": keys}, *labels)

    return source.train_examples(steps).map(name)


def _view_batches(
    source: Source, steps: Steps, augmentations: Mapping[str, Augmentation], reports: bool = True
) -> tf.data.Dataset:
    """Crops the views out of every image: ({"images": uint8 [B, V, S, S, 3], "keys": [B, 2]}, labels [B]).

    There is a tensor of views for each of `augmentations`, under its name.

    The whole image is decoded once for all views. Two calls of `tf.io.decode_and_crop_jpeg` take 1.6 times as long; one
    call for the window around both saves 5 % but gets its edges wrong (docs/input_speed.md).
    """

    def make_views(key: tf.Tensor, image: tf.Tensor, *label: tf.Tensor) -> Any:
        views = {name: crop_views(image, key, augmentation) for name, augmentation in augmentations.items()}
        return as_element(views | {"keys": key}, *label)

    views = source.train_examples(steps, reports).map(make_views, num_parallel_calls=tf.data.AUTOTUNE)
    return views.batch(steps.batch_size, drop_remainder=True)
