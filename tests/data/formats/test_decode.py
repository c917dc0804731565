"""Decoding, and the preprocessing that evaluation and export share."""

import io

import numpy as np
import pytest
import tensorflow as tf
import zoo
from PIL import Image, PngImagePlugin

from tf_simclr.augment import center
from tf_simclr.data.formats import decode, headers

TRACED = tf.function(decode.decode_image, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, [20, 30, 3]).astype(np.uint8)


def test_lossless_formats_come_back_exactly(pixels):
    encoded = tf.io.encode_png(pixels)
    np.testing.assert_array_equal(decode.decode_image(encoded), pixels)


def test_grey_gets_three_channels_and_alpha_is_dropped(pixels):
    grey = decode.decode_image(tf.io.encode_png(pixels[..., :1]))
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, axis=-1))
    with_alpha = np.concatenate([pixels, pixels[..., :1]], axis=-1)
    np.testing.assert_array_equal(decode.decode_image(tf.io.encode_png(with_alpha)), pixels)


def test_an_animation_gives_its_first_frame():
    # Two frames of one pixel each, white and then black, with a palette of two colours.
    header = b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + b"\xff\xff\xff" + b"\x00\x00\x00"
    frame = b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02%s\x01\x00"
    animation = header + frame % b"\x44" + frame % b"\x4c" + b"\x3b"
    np.testing.assert_array_equal(decode.decode_image(animation), np.full([1, 1, 3], 255))


@pytest.mark.parametrize("name", zoo.files())
def test_every_format_comes_back_as_pillow_reads_it(name):
    if name.endswith(".webp") and ".webp" not in decode.IMAGE_SUFFIXES:
        pytest.skip("this TensorFlow decodes no WebP")
    content = zoo.files()[name]
    image = TRACED(tf.constant(content))
    assert image.dtype == tf.uint8 and image.shape == [*zoo.SIZE, 3]
    tolerance = {"cmyk.jpg": 16}.get(name, 8 if name.endswith("jpg") else 0)  # as many levels as JPEG's rounding moves
    np.testing.assert_allclose(image.numpy().astype(int), zoo.decode(content), atol=tolerance)
    decode.decode_image(content, max_pixels=24 * 40)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 959 pixels"):
        decode.decode_image(content, max_pixels=24 * 40 - 1)


def test_sixteen_bits_become_eight(pixels):
    encoded = tf.io.encode_png(pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode.decode_image(encoded), pixels)


@pytest.mark.parametrize(
    ("raw", "bits", "shift"),
    [
        ([0, 1, 4095], 12, 4),  # in the lower bits
        ([0, 16, 4095 * 16], 12, 8),  # in the upper ones, as the specification wants them
        ([0, 16, 4080], 12, 8),  # the same in a dark image
        ([0, 1, 1023], 10, 2),
        ([0, 1, 16383], 14, 6),
        ([0, 257, 65535], 16, 8),
        ([0, 257, 4095], None, 8),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_significant_bits_of_a_png_are_kept(raw, bits, shift, channels):
    values = np.resize(np.array(raw, np.uint16), [6, 5, channels])
    image = decode.decode_image(zoo.deep_png(values, bits)).numpy()
    colors = values[..., :1] if channels < 3 else values[..., :3]
    np.testing.assert_array_equal(image, np.broadcast_to(colors >> shift, [6, 5, 3]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_exif_data_asks(orientation, endian, kind):
    if kind == "WEBP" and ".webp" not in decode.IMAGE_SUFFIXES:
        pytest.skip("this TensorFlow decodes no WebP")
    content = zoo.turned(orientation, endian, kind)
    image = TRACED(tf.constant(content)).numpy()
    np.testing.assert_allclose(image.astype(int), zoo.decode(content), atol=8 if kind == "JPEG" else 0)


def test_exif_data_count_behind_the_pixels_of_a_png():
    content = zoo.turned(6, "<", "PNG")
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    moved = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    np.testing.assert_array_equal(decode.decode_image(moved), zoo.decode(content))
    about = zoo.encode(zoo.picture(), "PNG", pnginfo=_text("eXIfII*\0"))
    np.testing.assert_array_equal(decode.decode_image(about), zoo.decode(about))


def _text(text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    return info


@pytest.mark.parametrize(
    "before",
    [
        [b"\xfecomment"],
        [b"\xe1http://ns.adobe.com/xap/1.0/\0<x/>"],
        [b"\xe2ICC_PROFILE\0" + bytes([i + 1, 5]) + bytes(65_000) for i in range(5)],
        [b"\xfe%d" % i for i in range(30)],
    ],
)
def test_exif_data_count_behind_any_segments(before):
    content = zoo.turned(6, "<")
    exif = content.index(b"\xff\xe1")  # Behind the JFIF segment.
    more = b"".join(b"\xff" + part[:1] + (len(part) + 1).to_bytes(2, "big") + part[1:] for part in before)
    image = TRACED(tf.constant(content[:exif] + more + content[exif:]))
    np.testing.assert_allclose(image.numpy().astype(int), zoo.decode(content), atol=8)


def test_a_comment_about_exif_turns_nothing():
    content = zoo.encode(zoo.picture(), "JPEG", quality=95, comment=b"Exif\0\0MM\0*\0\0\0\x08")
    np.testing.assert_allclose(decode.decode_image(content).numpy().astype(int), zoo.decode(content), atol=8)


def test_branches_are_traced_once():
    for level in (0, 255):
        TRACED(tf.io.encode_png(np.full([4, 4 + level, 3], level, np.uint8)).numpy())
        TRACED(zoo.turned(3 if level else 6, "<"))
    branches = (headers._read_other, decode._decode_with_care, *decode._decoders(headers.MAX_PIXELS))
    assert {branch.experimental_get_tracing_count() for branch in branches} == {1}


def test_damaged_exif_data_leave_the_photo_as_it_is_unless_the_entry_is_found():
    content = bytearray(zoo.turned(6, "<"))
    start = content.index(b"Exif\0\0") + 6
    upright = zoo.decode(zoo.turned(1, "<"))
    turned = (40, 24, 3)
    damage = {
        "byte order": (0, b"??", upright.shape),
        "place of the directory": (4, b"\xff\xff\xff\xff", upright.shape),
        "number of entries": (8, b"\xff\xff", turned),
        "value": (30, b"\xff\xff", upright.shape),
    }
    for what, (place, value, expected) in damage.items():
        damaged = bytes(content[: start + place] + value + content[start + place + len(value) :])
        assert decode.decode_image(damaged).shape == expected, what


def test_a_decompression_bomb_is_refused_by_its_header():
    bomb = bytearray(zoo.files()["alpha.png"])
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"more than {headers.MAX_PIXELS} pixels"):
        decode.decode_image(bytes(bomb))


@pytest.mark.parametrize("size", [(16, 16), (300, 400)])
def test_only_the_first_frame_of_an_animation_is_unpacked(size):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, [*size, 3]).astype(np.uint8)).quantize(256) for _ in range(3)]
    animation = zoo.encode(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0, comment=b"x" * 700)
    still = headers.read_header(animation).still
    assert Image.open(io.BytesIO(still.numpy())).n_frames == 1
    np.testing.assert_array_equal(decode.decode_image(animation), zoo.decode(animation))
    damaged = animation[: len(animation) // 2] + b"?"  # In the second frame.
    np.testing.assert_array_equal(decode.decode_image(damaged), zoo.decode(animation))


def test_a_frame_that_is_larger_than_its_file_says_is_refused():
    content = bytearray(zoo.files()["frames.gif"])
    frame = content.index(b",\0\0\0\0" + bytes([40, 0, 24, 0]))
    content[frame + 5 : frame + 9] = b"\xff" * 4
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"more than {headers.MAX_PIXELS} pixels"):
        decode.decode_image(bytes(content))


def test_what_cannot_be_decoded_is_an_error_with_a_name():
    animation = zoo.encode(zoo.picture(), "WEBP", save_all=True, append_images=[zoo.picture().rotate(180)])
    for content in (animation, zoo.encode(zoo.picture(), "TIFF"), zoo.encode(zoo.picture().convert("1"), "BMP")):
        # TensorFlow 2.15 does not know WebP at all.
        reason = r"not a JPEG|WebP|[Nn]umber of channels|Unknown image file format"
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            decode.decode_image(content)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_broken_content_is_an_error(pixels, content):
    if content is None:
        content = tf.io.encode_jpeg(pixels).numpy()[:-200]
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_image(content)


@pytest.mark.parametrize("name", ["img0", "img1", "img2"])
@pytest.mark.parametrize("size", [24, 32, 40])
def test_central_crop_then_bicubic_is_the_references(golden_dir, name, size):
    golden = np.load(golden_dir / "image_ops.npz")
    image, expected = golden[name], np.clip(golden[f"{name}/center_crop_{size}"], 0.0, 1.0)
    cropped = tf.image.resize(center.central_crop(image), [size, size], "bicubic")
    np.testing.assert_allclose(tf.clip_by_value(cropped, 0.0, 1.0), expected, atol=1e-5)
    if size > 32:
        np.testing.assert_allclose(center.preprocess_for_eval(image, size), expected, atol=1e-5)


def test_small_images_keep_their_margin_and_their_pixels(photos):
    untouched = center.preprocess_for_eval(photos, 32)
    np.testing.assert_allclose(untouched, photos / 255.0, atol=1e-6)
    shrunk = center.preprocess_for_eval(photos, 16)
    expected = tf.clip_by_value(tf.image.resize(photos / 255.0, [16, 16], "bicubic"), 0.0, 1.0)
    np.testing.assert_allclose(shrunk, expected, atol=1e-5)


def test_preprocessing_is_the_same_in_a_graph_of_unknown_shape(photos):
    wide = np.concatenate([photos, photos], axis=2)
    specs = tf.TensorSpec([None, None, None, 3], tf.uint8)
    for size, images in ((48, wide), (32, wide), (32, photos)):
        in_graph = tf.function(lambda x, size=size: center.preprocess_for_eval(x, size), input_signature=[specs])
        one_by_one = [center.preprocess_for_eval(image, size) for image in images]
        np.testing.assert_array_equal(in_graph(images), np.stack(one_by_one))


def test_a_crop_is_cut_resized_and_rounded(pixels):
    box = tf.constant([3, 4, 10, 15])
    expected = tf.image.resize(pixels[3:13, 4:19].astype(np.float32), [8, 8], "bicubic")
    views = decode.crop_and_resize(pixels, box, 8)
    assert views.dtype == tf.uint8
    np.testing.assert_array_equal(views, np.clip(np.round(expected), 0, 255))
