"""A source of image files."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tf_simclr import files
from tf_simclr.data.files import archives, walk
from tf_simclr.data.files.broken import BrokenFiles, broken_reason, digest_of_files
from tf_simclr.data.files.names import Names, in_print
from tf_simclr.data.formats import decode
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.sources import lost_files
from tf_simclr.data.sources.base import check_labels
from tf_simclr.data.sources.encoded import EncodedSource, hold
from tf_simclr.data.sources.order import Steps, index_batches

# How many files of archives are read by one call of Python, and how many small files at once (benchmarks/reading.py).
_READ_AT_ONCE, _SMALL_BYTES = 16, 1 << 16


@dataclasses.dataclass(frozen=True, eq=False)
class FileSource(EncodedSource):
    """Image files that are read and decoded when needed, of any sizes and any number. They may lie in archives.

    Attributes:
      folder: The folder or archive that names are relative to; "" if there are several.
      names: The path of every file relative to the folder, with "/" between its parts.
      labels: int64 [N] in [0, number of classes), -1 for an unknown one, or None.
      class_names: The name of every class id, or None.
      skipped: (path, reason) of every file found broken when the folder was opened.
      contents: The bytes of the files, object [N], if the source holds them; None if they are read each time.
      keys: The names that decide which files are held out; `names` by default.
      max_pixels: Images with more pixels count as broken.
      broken: Collects the files found broken later.
      originals: The paths of the files in `broken`; their own paths by default.
    """

    folder: str
    names: Sequence[str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    contents: np.ndarray | None = None
    keys: Sequence[str] = ()
    max_pixels: int = MAX_PIXELS
    broken: BrokenFiles = dataclasses.field(default_factory=BrokenFiles)
    originals: Names | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels, self.num_examples)
        for field in ("names", "keys"):
            names = getattr(self, field) or self.names
            object.__setattr__(self, field, names if isinstance(names, Names) else Names(names))

    @property
    def num_examples(self) -> int:
        return len(self.names)

    @property
    def paths(self) -> Names:
        """The path that opens each file."""
        return Names(self.names).with_prefix(os.path.join(self.folder, "") if self.folder else "")

    @property
    def reported_paths(self) -> Names:
        """The path of each file in the report of broken files."""
        return self.paths if self.originals is None else self.originals

    @property
    def places(self) -> Names:
        return self.reported_paths

    def replacements(self) -> np.ndarray:
        """The file to read for each file, int64 [N]: the file itself, or the next intact one if it is broken."""
        indices = np.arange(self.num_examples)
        if not len(self.broken):
            return indices
        readable = np.flatnonzero([path not in self.broken for path in self.reported_paths])
        return readable[np.searchsorted(readable, indices) % len(readable)] if readable.size else indices

    @functools.cached_property
    def is_archived(self) -> bool:
        """Whether some of the files lie in archives."""
        if self.folder:
            return archives.split(self.folder) is not None
        return any(archives.split(path) is not None for path in self.paths)

    def sizes(self) -> Iterator[int]:
        """Yields the number of bytes of every file, 0 for one that is missing."""
        yield from map(walk.num_bytes, self.paths)

    @functools.cached_property
    def calls_at_once(self) -> int:
        """How many files a pipeline reads and decodes at once: with few cores, small ones need more than AUTOTUNE's."""
        has_few_cores, step = (os.cpu_count() or 1) < _READ_AT_ONCE, max(1, self.num_examples // _READ_AT_ONCE)
        sizes = (walk.num_bytes(self.paths[i]) for i in range(0, self.num_examples, step))
        suits = has_few_cores and self.contents is None and max(sizes, default=0) <= _SMALL_BYTES
        return _READ_AT_ONCE if suits else tf.data.AUTOTUNE

    def _digest_of_content(self) -> str:
        if self.contents is None:
            paths = self.paths
            # An archive is looked at once: its size or time changes with any of its members.
            return digest_of_files(dict.fromkeys(map(archives.file_of, paths)) if self.is_archived else paths)
        return files.digest("\n".join(map(files.digest, self.contents)).encode())

    def subset(self, indices: np.ndarray) -> "FileSource":
        names = Names(self.names).take(indices)
        return dataclasses.replace(
            self,
            names=names,
            labels=None if self.labels is None else self.labels[indices],
            contents=None if self.contents is None else self.contents[indices],
            originals=None if self.originals is None else self.originals.take(indices),
            keys=names if self.keys is self.names else Names(self.keys).take(indices),
        )

    def read_bytes(self, index: int) -> bytes:
        """The content of a file."""
        if self.contents is not None:
            return self.contents[index]
        return archives.read(self.paths[index])

    def read_if_possible(self, index: int) -> bytes:
        """The content of a file, b"" if it cannot be read."""
        try:
            return self.read_bytes(index)
        except (tf.errors.OpError, UnicodeDecodeError):  # TensorFlow's message cannot hold every name.
            return b""

    def reason(self, index: int) -> str:
        """Says in a few words why a file cannot be decoded."""
        return broken_reason(lambda: tf.constant(self.read_bytes(index)), self.max_pixels)

    def why_broken(self, handle: bytes) -> str:
        return self.reason(int(handle))

    def in_memory(self) -> "FileSource":
        if self.contents is not None:
            return self
        # A file that cannot be read is as broken as one that cannot be decoded.
        contents = [self.read_if_possible(index) for index in range(self.num_examples)]
        return dataclasses.replace(self, contents=np.array(contents, object))

    def sample_encoded(self, count: int) -> list[bytes]:
        return [content for index in self._spread(count) if (content := self.read_if_possible(index))]

    def _spread(self, count: int) -> np.ndarray:
        """At most `count` positions, evenly spaced from the first file to the last, int64 [n]."""
        return np.unique(np.linspace(0, self.num_examples - 1, count).astype(int))

    def _handles(self, count: int | None = None) -> tf.data.Dataset:
        """A handle is the number of the file in digits."""
        numbers = np.arange(self.num_examples) if count is None else self._spread(count)
        labels = () if self.labels is None else (self.labels[numbers],)
        path_at = self.paths.lookup()

        def find(number: tf.Tensor, *label: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return number, path_at(number), tf.strings.as_string(number), *label

        return tf.data.Dataset.from_tensor_slices((numbers, *labels)).map(find)

    def _fetch(self, handle: tf.Tensor) -> tf.Tensor:
        return self.fetcher()(tf.strings.to_number(handle, tf.int64))

    def fetcher(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Makes the graph function from the number of a file, int64 [], to its content, string []."""
        if self.contents is not None:
            return functools.partial(tf.gather, self._held)
        if self.is_archived:
            return archives.reader(self.paths)
        path_at = self.paths.lookup()
        return lambda index: tf.io.read_file(path_at(index))

    @functools.cached_property
    def _held(self) -> tf.Tensor:
        return hold(self.contents)

    def _prefetched(self, examples: tf.data.Dataset) -> tf.data.Dataset:
        """Appends to examples, whose last column is the number of a file, the contents of those in archives."""
        if not self.is_archived or self.contents is not None:
            return examples
        fetch = self.fetcher()
        return examples.batch(_READ_AT_ONCE).map(lambda *columns: (*columns, fetch(columns[-1]))).unbatch()

    def train_examples(self, steps: Steps, reports: bool = True) -> tf.data.Dataset:
        if self.is_archived and self.contents is None and not reports:
            raise ValueError(
                "tf.data services do not have this process's Python functions, which read archives: leave data.service "
                f"out, or unpack the archives. Received: {in_print(self.paths[0])!r}"
            )
        read = self._reader(reports)

        def replace_broken(order: tf.Tensor) -> tf.Tensor:
            used = tf.numpy_function(self.replacements, [], tf.int64) if reports else self.replacements()
            return tf.gather(tf.ensure_shape(used, [self.num_examples]), order)

        def read_example(
            epoch: tf.Tensor, example: tf.Tensor, index: tf.Tensor, *content: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            return tf.stack([epoch, example]), *read(index, *content)[1:]

        batches = index_batches(self.num_examples, steps, replace_broken)
        examples = batches.map(lambda epoch, indices: (tf.fill(tf.shape(indices[0]), epoch), *indices)).unbatch()
        return self._prefetched(steps.in_lane(examples)).map(read_example, num_parallel_calls=self.calls_at_once)

    def eval_examples(self, start: int = 0) -> tf.data.Dataset:
        read_one = self._decoder(self.fetcher())
        count, key_at = self.num_examples, Names(self.keys).lookup()
        known = self.replacements() == np.arange(count)
        indices = tf.data.Dataset.from_tensor_slices(np.flatnonzero(known[start:]) + start)
        # Files that fail are left out and noticed by the gaps, those at the end by the gap before an element behind it.
        readable = self._prefetched(indices.map(lambda index: (index,)))
        readable = readable.map(read_one, num_parallel_calls=self.calls_at_once).ignore_errors()
        label = () if self.labels is None else (np.int64(-1),)
        behind = tf.data.Dataset.from_tensors((np.int64(count), np.zeros([0, 0, 3], np.uint8), *label))

        def notice(expected: tf.Tensor, example: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
            index = tf.cond(
                example[0] == expected,
                lambda: example[0],
                lambda: tf.numpy_function(
                    functools.partial(lost_files.report_gap, self), [expected, example[0]], tf.int64, stateful=False
                ),
            )
            index = tf.ensure_shape(index, [])
            return index + 1, (index, *example[1:])

        examples = readable.concatenate(behind).scan(np.int64(start), notice)
        unlabelled = () if self.labels is not None else (tf.constant(-1, tf.int64),)
        return examples.filter(lambda index, *example: index < count).map(
            lambda index, *example: (index, key_at(index), *example, *unlabelled)
        )

    def _decoder(self, fetch: Callable[[tf.Tensor], tf.Tensor]) -> Callable[..., tuple[tf.Tensor, ...]]:
        """Makes the function from an index, and perhaps the content of its file, to (index, image, label)."""
        labels = () if self.labels is None else (tf.constant(self.labels),)

        def read_one(index: tf.Tensor, *content: tf.Tensor) -> tuple[tf.Tensor, ...]:
            image = decode.decode_image(content[0] if content else fetch(index), self.max_pixels)
            return index, image, *(tf.gather(column, index) for column in labels)

        return read_one

    def _reader(self, reports: bool) -> Callable[..., tuple[tf.Tensor, ...]]:
        """Makes the function index, content if it has been read -> (index of the file read, image, label) of training.

        The next readable file replaces a broken one, so that no other example of the batch moves. Too many broken files
        stop the run. Without reports, nothing stops.
        """
        count = self.num_examples
        fetch = self.fetcher()
        read_one = self._decoder(fetch)

        def read_candidate(index: tf.Tensor, offset: tf.Tensor, *content: tf.Tensor) -> tuple[tf.Tensor, ...]:
            candidate = (index + offset) % count
            if not content:
                return read_one(candidate)
            return read_one(candidate, tf.cond(offset == 0, lambda: content[0], lambda: fetch(candidate)))

        def read(index: tf.Tensor, *content: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # TensorFlow graphs cannot catch errors, but a nested dataset can leave out elements that fail. The
            # last candidate is the wanted file again, whose error stops the run.
            candidates = tf.data.Dataset.range(min(lost_files.MAX_IN_A_ROW, count))
            readable = candidates.map(lambda offset: read_candidate(index, offset, *content)).ignore_errors()
            readable = readable.concatenate(tf.data.Dataset.from_tensors(index).map(read_one))
            used, *example = readable.take(1).get_single_element()
            if not reports:
                return used, *example
            used = tf.cond(
                used == index,
                lambda: used,
                lambda: tf.numpy_function(
                    functools.partial(lost_files.report, self), [index, used], tf.int64, stateful=False
                ),
            )
            used = tf.ensure_shape(used, [])
            with tf.control_dependencies([used]):  # Reports even if the caller drops the index.
                return used, *(tf.identity(column) for column in example)

        return read
