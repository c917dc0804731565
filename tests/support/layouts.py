"""Folders of images as people and public data sets lay them out."""

import functools
import pathlib

import numpy as np
import tensorflow as tf


@functools.cache
def png(value: int = 0, width: int = 8) -> bytes:
    """A file of one grey level."""
    return tf.io.encode_png(np.full([8, width, 3], value, np.uint8)).numpy()


def lay_out(root: pathlib.Path, *places: str) -> pathlib.Path:
    """Writes a picture at each place, or several at NAME*COUNT; "x" into what is neither .jpg nor .png."""
    for place in places:
        name, _, count = place.partition("*")
        for i in range(int(count or 1)):
            path = root / (name.replace(".", f"{i}.") if count else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(i) if path.suffix.lower() in (".jpg", ".png") else b"x")
    return root
