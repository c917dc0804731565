"""A source of records: encoded images that can only be read in sequence, and may be broken."""

import abc
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.data.files.broken import RECORD_SEPARATOR, broken_reason
from tf_simclr.data.formats import decode
from tf_simclr.data.sources.base import Source
from tf_simclr.data.sources.encoded import EncodedSource
from tf_simclr.data.sources.files import FileSource
from tf_simclr.data.sources.order import ORDER_STREAM, Steps

# Encoded images in the buffer that records are shuffled in, on top of the order of their files.
_SHUFFLE_BUFFER_EXAMPLES = 10_000

# How many records in a row may be broken before a run stops. All of them are held in memory.
_MAX_BROKEN_IN_A_ROW = 16


class RecordSource(EncodedSource):
    """Encoded images that can only be read in sequence. A subclass says how, in `records`.

    The name of a record is "FILE#record=INDEX".
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name of the source in messages."""

    @property
    @abc.abstractmethod
    def names(self) -> Sequence[str]:
        """The N names that reading should find."""

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(map(os.path.basename, self.names))  # They stay the same when the files move.

    @property
    def places(self) -> Sequence[str]:
        return self.names

    @abc.abstractmethod
    def records(self, shuffle_seed: tf.Tensor | None = None) -> tf.data.Dataset:
        """Reads every example once, still encoded. A damaged file ends where the damage starts.

        Args:
          shuffle_seed: int64 [] from which the order of the files follows; None reads them in order.

        Returns:
          Dataset of (number of the example int64 [], the same in every order; name string []; encoded image string [];
          label int64 []), without the label if there are none.
        """

    def why_lost(self, file: str) -> str:
        """Why records of a file are not found. A format that can tell damage from absence gives a better reason."""
        return "it is missing, or is not an example of this data set"

    @functools.cached_property
    def lost(self) -> dict[str, str]:
        read = {os.fsdecode(name) for name in self.records().map(lambda number, name, *_: name).as_numpy_iterator()}
        files = {name: name.partition(RECORD_SEPARATOR)[0] for name in self.names if name not in read}
        reasons = {file: self.why_lost(file) for file in set(files.values())}
        return {name: reasons[file] for name, file in files.items()}

    def train_examples(self, steps: Steps, reports: bool = True) -> tf.data.Dataset:
        """As `Source.train_examples`; shuffles the files, then a buffer of records.

        The next record that can be decoded replaces a broken one. The first records of the source replace those that a
        damaged file lacks.
        """

        def shuffled(seed: tf.Tensor) -> tf.data.Dataset:
            shuffle_seed = tf.random.stateless_uniform([], seed, minval=None, maxval=None, dtype=tf.int64, alg="philox")
            # Otherwise the shuffles would also depend on `tf.random.set_seed`, and fail if it has set 0.
            shuffle_seed.graph.seed = ORDER_STREAM
            records = self.records(shuffle_seed)
            records = records.shuffle(_SHUFFLE_BUFFER_EXAMPLES, seed=shuffle_seed, reshuffle_each_iteration=False)
            records = records.map(lambda *record: (False, *record))
            records = records.concatenate(self.records().map(lambda *record: (True, *record)))
            return records.enumerate().window(_MAX_BROKEN_IN_A_ROW, shift=1).enumerate()

        def read_example(epoch: tf.Tensor, candidates: tuple[tf.Tensor, Any]) -> tuple[tf.Tensor, ...]:
            number, *example = self._read_first(*candidates, reports=reports)
            return tf.stack([epoch, number]), *example

        examples = steps.chain_epochs(shuffled, elements_per_step=steps.batch_size)
        return steps.in_lane(examples).map(read_example, num_parallel_calls=tf.data.AUTOTUNE)

    def _read_first(
        self, wanted: tf.Tensor, window: tuple[tf.data.Dataset, Any], *, reports: bool
    ) -> tuple[tf.Tensor, ...]:
        """(number of the first record of a window, image and label of the first one that can be decoded)."""

        def decoded(place: tf.Tensor, record: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            is_spare, number, _, encoded, *label = record
            return place, is_spare, number, decode.decode_image(encoded, self.max_pixels), *label

        def report(record: tuple[tf.Tensor, ...]) -> tf.Tensor:
            is_spare, number, name, encoded, *_ = record
            if not reports:
                return number
            done = tf.numpy_function(functools.partial(self._report, True), [is_spare, name, encoded], tf.bool)
            with tf.control_dependencies([done]):
                return tf.identity(number)

        places, records = window
        candidates = tf.data.Dataset.zip((places, tf.data.Dataset.zip(records)))
        # TensorFlow graphs cannot catch errors, but a nested dataset can leave out elements that fail. The last
        # candidate is the wanted record again, whose error stops the run.
        readable = candidates.map(decoded).ignore_errors().concatenate(candidates.take(1).map(decoded))
        place, is_spare, number, *example = readable.take(1).get_single_element()
        is_wanted = (place == wanted) & ~is_spare
        number = tf.cond(is_wanted, lambda: number, lambda: report(candidates.take(1).get_single_element()[1]))
        return number, *example

    def eval_examples(self, start: int = 0) -> tf.data.Dataset:
        report = functools.partial(self._report, False, False)

        def read(position: tf.Tensor, record: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            _, name, encoded, *label = record
            image = decode.try_decode_image(encoded, self.max_pixels)
            is_broken = tf.size(image) == 0
            is_broken = tf.cond(
                is_broken, lambda: tf.numpy_function(report, [name, encoded], tf.bool), lambda: is_broken
            )
            key = tf.strings.regex_replace(name, r"^\C*/", "")  # As in `keys`.
            return tf.ensure_shape(is_broken, []), position, key, image, *(label or [tf.constant(-1, tf.int64)])

        examples = self.records().enumerate().skip(start).map(read, num_parallel_calls=tf.data.AUTOTUNE)
        readable = examples.filter(lambda is_broken, *example: ~is_broken)
        return readable.map(lambda is_broken, *example: example)

    def _report(self, stops_run: bool, is_spare: bool, name: bytes, encoded: bytes) -> bool:
        """Records a broken record or, if a spare one replaces it, the lost ones; always returns True."""
        path = os.fsdecode(name)
        if is_spare:
            self.broken.add(self.lost)
        elif path not in self.broken:
            self.broken.add({path: broken_reason(functools.partial(tf.identity, encoded), self.max_pixels)})
        if stops_run:
            self.broken.check()
        return True

    def _handles(self, count: int | None = None) -> tf.data.Dataset:
        """A handle is the encoded image itself."""
        return self.records().take(-1 if count is None else count)

    def sample_encoded(self, count: int) -> list[bytes]:
        return [encoded for _, _, encoded, *_ in self.records().take(count).as_numpy_iterator()]

    def in_memory(self) -> Source:
        """The examples in memory, which are shuffled in another order than those that are read one after the other."""
        _, read, encoded, *labels = zip(*self.records().as_numpy_iterator(), strict=True)
        if len(read) < self.num_examples:
            self.broken.add(self.lost)
        names = tuple(map(os.fsdecode, read))
        return FileSource(
            "",
            names,
            np.array(labels[0], np.int64) if labels else None,
            self.class_names,
            contents=np.array(encoded, object),
            keys=tuple(map(os.path.basename, names)),
            max_pixels=self.max_pixels,
            broken=self.broken,
        )
