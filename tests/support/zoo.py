"""Image files of every format, written by Pillow, with the pixels that Pillow reads back from them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

SIZE = (24, 40)


def picture() -> Image.Image:
    """A smooth picture without symmetries."""
    rows, columns = np.mgrid[0:24, 0:40]
    red = np.where((rows < 12) & (columns < 20), 200, 30)
    return Image.fromarray(np.stack([red, rows * 10, columns * 6], axis=-1).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(content: bytes) -> np.ndarray:
    """Pillow's pixels of the first frame, upright: uint8 [H, W, 3]."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


def files() -> dict[str, bytes]:
    """{name: content} of every kind of file that can be decoded."""
    image = picture()
    again = image.rotate(180)
    frames = {"save_all": True, "append_images": [again]}
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(np.tile(np.arange(0, 240, 6, dtype=np.uint8), (24, 1))))
    return {
        "grey.jpg": encode(image.convert("L"), "JPEG", quality=95),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG", quality=95),
        "progressive.jpg": encode(image, "JPEG", quality=95, progressive=True),
        "palette.png": encode(image.quantize(16), "PNG"),
        "transparent_palette.png": encode(image.quantize(16), "PNG", transparency=3),
        "alpha.png": encode(alpha, "PNG"),
        "grey_alpha.png": encode(alpha.convert("LA"), "PNG"),
        "one_bit.png": encode(image.convert("1"), "PNG"),
        "frames.png": encode(image, "PNG", **frames),
        "frames.gif": encode(image, "GIF", **frames),
        "grey.bmp": encode(image.convert("L"), "BMP"),
        "palette.bmp": encode(image.quantize(16), "BMP"),
        "color.bmp": encode(image, "BMP"),
        "lossy.webp": encode(image, "WEBP"),
        "lossless.webp": encode(image, "WEBP", lossless=True),
        "alpha.webp": encode(alpha, "WEBP", lossless=True),
        "lossy_alpha.webp": encode(alpha, "WEBP"),
    }


def turned(orientation: int, endian: str, kind: str = "JPEG") -> bytes:
    """A file with an EXIF orientation, in a JPEG behind a JFIF segment; endian "<" or ">"."""
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "maker"  # a tag in front of it
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    return encode(picture(), kind, exif=exif.tobytes(), **options)


def deep_png(values: np.ndarray, significant_bits: int | None = None) -> bytes:
    """A PNG file of 16 bits per value, uint16 [H, W, C] with C from 1 (grey) to 4, and perhaps an sBIT chunk."""
    height, width, channels = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    bits = b"" if significant_bits is None else chunk(b"sBIT", bytes([significant_bits] * channels))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = chunk(b"IHDR", header) + bits + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content
