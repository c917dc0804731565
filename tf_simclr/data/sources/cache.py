"""Caches a data set: its encoded images in memory, or its decoded images on disk."""

import dataclasses
import os
import pathlib
import shutil
import struct

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr import devices, files
from tf_simclr.data.formats import decode
from tf_simclr.data.sources.base import Source
from tf_simclr.data.sources.files import FileSource
from tf_simclr.data.sources.records import RecordSource

# Number of images that the estimate of the cache's size is based on.
_SAMPLE_EXAMPLES = 64


def keep(source: Source, place: str, folder: pathlib.Path) -> Source:
    """Returns the same examples in the same order, cached where they are read faster.

    Before it reads them all, it estimates their size from a sample, logs it, and compares it with the free space.
    Decoded files of an earlier run in `folder` are reused if the original has the same size and time.

    Args:
      source: Images; decoded ones are already in memory.
      place: "none", "memory" (files as they are) or "disk" (decoded files).
      folder: Where decoded files go.

    Returns:
      `source` itself, or a FileSource of the same pixels.

    Raises:
      ValueError: If the images do not fit, or `place` is "disk" for records.
    """
    if place == "none":
        return source
    if place == "memory":
        if sample := source.sample_encoded(_SAMPLE_EXAMPLES):
            needed_bytes = np.mean([len(content) for content in sample]) * source.num_examples
            _check_fits(needed_bytes, devices.free_memory(), "in memory", "memory")
        return source.in_memory()
    if isinstance(source, RecordSource):
        raise ValueError(
            f"data.cache=disk decodes image files; data.cache=memory also takes records. Received: {source.name}"
        )
    return _decoded(source, folder) if isinstance(source, FileSource) else source


def _decoded(source: FileSource, folder: pathlib.Path) -> FileSource:
    names = tuple(f"{name}.{_fingerprint(path)}.bmp" for name, path in zip(source.names, source.paths, strict=True))
    missing = [index for index, name in enumerate(names) if not (folder / name).exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        sample = source.sample_encoded(_SAMPLE_EXAMPLES)
        needed_bytes = np.mean([_decoded_bytes(content) for content in sample]) * len(missing)
        _check_fits(needed_bytes, shutil.disk_usage(folder).free, f"in {folder}", "disk")
        paths = tf.data.Dataset.from_tensor_slices([os.fsencode(source.paths[index]) for index in missing])
        images = paths.map(lambda path: decode.try_decode_image(tf.io.read_file(path)), tf.data.AUTOTUNE)
        for index, image in zip(missing, images, strict=True):
            path = folder / names[index]
            path.parent.mkdir(parents=True, exist_ok=True)
            # A broken image is kept as it is; whoever reads it reports it.
            content = _to_bmp(image.numpy()) if len(image) else source.read_bytes(index)
            with files.replacing(path) as beside:
                beside.write_bytes(content)
    return dataclasses.replace(source, folder=str(folder), names=names, originals=source.paths)


def _to_bmp(image: np.ndarray) -> bytes:
    """A BMP file, which decodes three times as fast as a JPEG; an uncompressed PNG takes as long as a JPEG."""
    height, width, _ = image.shape
    rows = np.zeros([height, -(-width * 3 // 4) * 4], np.uint8)
    rows[:, : width * 3] = image[::-1, :, ::-1].reshape([height, width * 3])
    header = struct.pack("<2sIII", b"BM", 54 + rows.size, 0, 54)
    return header + struct.pack("<IiiHH6I", 40, width, height, 1, 24, 0, rows.size, 0, 0, 0, 0) + rows.tobytes()


def _fingerprint(path: str) -> str:
    """A digest that changes with the file's path, size or time."""
    status = tf.io.gfile.stat(os.fsencode(path))
    return files.digest(os.fsencode(f"{path} {status.length} {status.mtime_nsec}"), size=6)


def _decoded_bytes(content: bytes) -> int:
    try:
        return int(tf.size(decode.decode_image(content)))
    except tf.errors.InvalidArgumentError:
        return len(content)


def _check_fits(needed_bytes: float, free_bytes: int, where: str, place: str) -> None:
    text = f"about {needed_bytes / 1e9:.2f} GB {where}, where {free_bytes / 1e9:.2f} GB are free"
    if needed_bytes > free_bytes:
        raise ValueError(f"The images do not fit in the cache: they need {text}. Received: data.cache={place}")
    logging.info("The cache takes %s", text)
