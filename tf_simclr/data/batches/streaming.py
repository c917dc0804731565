"""Reading streamed records in the order of training, whatever some of them hold."""

import functools
import os
from typing import Any

import tensorflow as tf

from tf_simclr.data.batches.order import ORDER_STREAM, Steps
from tf_simclr.data.formats import decode
from tf_simclr.data.quality.broken import RECORD_SEPARATOR, broken_reason, in_short
from tf_simclr.data.sources.streams import TfdsSource, TfrecordSource

# Encoded images among which a streamed data set is shuffled, on top of the order of its files.
_SHUFFLE_BUFFER_EXAMPLES = 10_000

# How many records in a row may be broken before a run stops. All of them are held in memory.
_MAX_BROKEN_IN_A_ROW = 16


def streamed_examples(source: TfdsSource | TfrecordSource, steps: Steps, reports: bool) -> tf.data.Dataset:
    """Decoded records in the order of training: (key, image, label).

    In the place of a broken record comes the image of the next one that can be decoded, so that no other example of
    the run moves, and in the places of those that a damaged file lacks, the first ones of the source. On another
    machine, where this program's Python functions are not known, this happens without a report.
    """

    def shuffled(seed: tf.Tensor) -> tf.data.Dataset:
        shuffle_seed = tf.random.stateless_uniform([], seed, minval=None, maxval=None, dtype=tf.int64, alg="philox")
        # The shuffles would depend on `tf.random.set_seed`, too, and fail where that has set 0.
        shuffle_seed.graph.seed = ORDER_STREAM
        records = source.records(shuffle_seed)
        records = records.shuffle(_SHUFFLE_BUFFER_EXAMPLES, seed=shuffle_seed, reshuffle_each_iteration=False)
        records = records.map(lambda *record: (False, *record))
        records = records.concatenate(source.records().map(lambda *record: (True, *record)))
        return records.enumerate().window(_MAX_BROKEN_IN_A_ROW, shift=1).enumerate()

    def read_example(epoch: tf.Tensor, candidates: tuple[tf.Tensor, Any]) -> tuple[tf.Tensor, ...]:
        number, *example = _read_first(source, *candidates, reports=reports)
        return tf.stack([epoch, number]), *example

    examples = steps.chain_epochs(shuffled, elements_per_step=steps.batch_size)
    return steps.in_lane(examples).map(read_example, num_parallel_calls=tf.data.AUTOTUNE)


def readable_records(source: TfdsSource | TfrecordSource) -> tf.data.Dataset:
    """Decoded records in the order of the source, without the broken ones: (image, label)."""
    report = functools.partial(_report, source, False, False)

    def read(number: tf.Tensor, name: tf.Tensor, encoded: tf.Tensor, *label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = decode.try_decode_image(encoded, source.max_pixels)
        is_broken = tf.size(image) == 0
        is_broken = tf.cond(is_broken, lambda: tf.numpy_function(report, [name, encoded], tf.bool), lambda: is_broken)
        return tf.ensure_shape(is_broken, []), image, *label

    examples = source.records().map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.filter(lambda is_broken, *example: ~is_broken).map(lambda is_broken, *example: example)


def _read_first(
    source: TfdsSource | TfrecordSource, wanted: tf.Tensor, window: tuple[tf.data.Dataset, Any], *, reports: bool
) -> tuple[tf.Tensor, ...]:
    """(number of the first record of a window, image and label of the first one that can be decoded)."""

    def decoded(place: tf.Tensor, record: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        is_spare, number, _, encoded, *label = record
        return place, is_spare, number, decode.decode_image(encoded, source.max_pixels), *label

    def report(record: tuple[tf.Tensor, ...]) -> tf.Tensor:
        is_spare, number, name, encoded, *_ = record
        if not reports:
            return number
        done = tf.numpy_function(functools.partial(_report, source, True), [is_spare, name, encoded], tf.bool)
        with tf.control_dependencies([done]):
            return tf.identity(number)

    places, records = window
    candidates = tf.data.Dataset.zip((places, tf.data.Dataset.zip(records)))
    # TensorFlow graphs cannot catch errors, but a nested dataset can leave out elements that fail. The last candidate
    # is the wanted record again, whose error stops the run.
    readable = candidates.map(decoded).ignore_errors().concatenate(candidates.take(1).map(decoded))
    place, is_spare, number, *example = readable.take(1).get_single_element()
    is_wanted = (place == wanted) & ~is_spare
    number = tf.cond(is_wanted, lambda: number, lambda: report(candidates.take(1).get_single_element()[1]))
    return number, *example


def _report(source: TfdsSource | TfrecordSource, stops_run: bool, is_spare: bool, name: bytes, encoded: bytes) -> bool:
    """Remembers a broken record or, where the first ones stand in, those that are lost; always true."""
    path = os.fsdecode(name)
    if is_spare:
        source.broken.add(lost_records(source))
    elif path not in source.broken:
        source.broken.add({path: broken_reason(functools.partial(tf.identity, encoded), source.max_pixels)})
    if stops_run:
        source.broken.check()
    return True


@functools.cache
def lost_records(source: TfdsSource | TfrecordSource) -> dict[str, str]:
    """Name and reason of every record that is not where it should be; the source is read once."""
    read = {os.fsdecode(name) for name in source.records().map(lambda number, name, *_: name).as_numpy_iterator()}
    lost = [name for name in source.keys if name not in read]
    files = {name: name.partition(RECORD_SEPARATOR)[0] for name in lost}
    damages = {file: _damage(file) for file in set(files.values())}
    return {name: damages[file] for name, file in files.items()}


def _damage(file: str) -> str:
    try:
        for _ in tf.data.TFRecordDataset(file):
            pass
    except tf.errors.OpError as error:
        return f"its file is damaged: {in_short(error)}"
    return "it is not there, or no example of this data set"
