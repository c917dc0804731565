"""The image files behind embeddings: their bytes, sizes and thumbnails. Members of archives are files, too."""

import base64
import io
import os
import pathlib

from PIL import Image, ImageOps

from tf_simclr.data.files import archive_index

_SIDE_PX = 160


def read(path: str) -> bytes:
    """The content of a file.

    Raises:
      OSError: If it cannot be read. A record is no file.
    """
    if not _may_lead_into_archive(path):
        return pathlib.Path(path).read_bytes()
    import tensorflow as tf

    from tf_simclr.data.files import archives

    try:
        return archives.read(path)
    except (tf.errors.OpError, ValueError) as error:
        raise OSError(f"{path} cannot be read: {error}") from error


def num_bytes(path: str) -> int:
    """The size of a file in bytes; 0 if there is none."""
    try:
        if not _may_lead_into_archive(path):
            return os.stat(path).st_size
        from tf_simclr.data.files import walk  # Loads TensorFlow.

        return walk.num_bytes(path)
    except (OSError, ValueError):  # An archive may be gone, or damaged by now.
        return 0


def _may_lead_into_archive(path: str) -> bool:
    """Whether a part of a path has the name of an archive, as far as can be told without TensorFlow."""
    return any(f"{suffix}/" in path.lower() for suffix in archive_index.SUFFIXES)


def thumbnail(path: str) -> str | None:
    """A small JPEG of an image as a data URL; None if it cannot be read."""
    try:
        with Image.open(io.BytesIO(read(path))) as image:
            image.draft("RGB", (2 * _SIDE_PX, 2 * _SIDE_PX))
            small = ImageOps.exif_transpose(image)
            small.thumbnail((_SIDE_PX, _SIDE_PX))
            content = io.BytesIO()
            small.convert("RGB").save(content, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
