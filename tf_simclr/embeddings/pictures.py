"""The image files behind embeddings: their bytes, sizes and thumbnails. Members of archives are files, too."""

import base64
import io
import os
import pathlib

from PIL import Image, ImageOps

_SIDE_PX = 160


def read(path: str) -> bytes:
    """The content of a file.

    Raises:
      OSError: If it cannot be read. A record is no file.
    """
    place = _place_in_archive(path)
    if place is None:
        return pathlib.Path(path).read_bytes()
    import tensorflow as tf

    from tf_simclr.data.files import archives

    try:
        return archives.read(path)
    except (tf.errors.OpError, ValueError) as error:
        raise OSError(f"It cannot be read from {place[0]}: {error}") from error


def num_bytes(path: str) -> int:
    """The size of a file in bytes; -1 if there is none."""
    try:
        place = _place_in_archive(path)
        if place is None:
            return os.stat(path).st_size
        from tf_simclr.data.files import archives

        return archives.num_bytes(*place) if archives.exists(*place) else -1
    except (OSError, ValueError):  # An archive may be gone, or damaged by now.
        return -1


def _place_in_archive(path: str) -> tuple[str, str] | None:
    """(archive, member), or None for a path that leads into no archive."""
    if not any(f"{suffix}/" in path.lower() for suffix in (".zip", ".tar")):
        return None
    from tf_simclr.data.files import archives  # Loads TensorFlow.

    return archives.split(path)


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
