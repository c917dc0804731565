"""What every source answers: the same questions, about the same images."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.data import sources

pytestmark = pytest.mark.usefixtures("quick_decoder")

COUNT = 10
KINDS = ("array", "files", pytest.param("files in memory", marks=pytest.mark.slow), "records")


def pixels(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, [6, 5, 3]).astype(np.uint8)


@pytest.fixture
def source(request, tmp_path) -> sources.Source:
    """Ten images of alternating class: held decoded, in files, in memory as they are in files, and in a TFRecord."""
    labels = np.arange(COUNT) % 2
    contents = [tf.io.encode_png(pixels(i)).numpy() for i in range(COUNT)]
    names = tuple(f"{i}.png" for i in range(COUNT))
    if request.param == "array":
        return sources.ArraySource(np.stack([pixels(i) for i in range(COUNT)]), labels, names=names)
    if request.param == "files":
        for name, content in zip(names, contents, strict=True):
            (tmp_path / name).write_bytes(content)
        return sources.FileSource(str(tmp_path), names, labels)
    if request.param == "files in memory":
        return sources.FileSource("", names, labels, contents=np.array(contents, object))
    with tf.io.TFRecordWriter(f"{tmp_path}/ten.tfrecord") as writer:
        for content, label in zip(contents, labels, strict=True):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
            kind = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
            features = tf.train.Features(feature={"image": image, "label": kind})
            writer.write(tf.train.Example(features=features).SerializeToString())
    return sources.open_images(f"{tmp_path}/ten.tfrecord")


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


@pytest.mark.parametrize("source", KINDS, indirect=True)
def test_a_source_answers_for_itself(source):
    assert (source.num_examples, source.num_classes, len(source.keys), len(source.broken)) == (COUNT, 2, COUNT, 0)
    assert source.lost == {}
    for sample in source.sample(3):
        np.testing.assert_array_equal(sample.image, pixels(sample.number))
    (batch,) = source.inspect(lambda images: {"sum": tf.reduce_sum(tf.cast(images, tf.int64), axis=[1, 2, 3])})
    assert batch["sum"].tolist() == [pixels(i).sum() for i in range(COUNT)]
    assert set(batch["height"]) == {6} and set(batch["width"]) == {5} and set(batch["reason"]) == {""}
    np.testing.assert_array_equal(batch["label"], source.labels)
    assert all(name.endswith(key) for name, key in zip(batch["name"], source.keys, strict=True))
    if not source.has_one_size:
        assert all(content.startswith(b"\x89PNG") for content in source.sample_encoded(3))
    for read in (source, source.in_memory()):
        for start in (0, 7):
            positions, keys, images, labels = zip(*read.eval_examples(start).as_numpy_iterator(), strict=True)
            assert list(positions) == list(range(start, COUNT))
            assert [key.decode() for key in keys] == list(source.keys[start:])
            np.testing.assert_array_equal(np.stack(images), [pixels(i) for i in range(start, COUNT)])
            np.testing.assert_array_equal(labels, np.arange(start, COUNT) % 2)


@pytest.mark.parametrize("source", KINDS, indirect=True)
def test_what_a_resumed_run_compares_is_what_earlier_versions_wrote(source):
    """A change of these values would stop every run that is resumed after an update."""
    names = np.stack([pixels(i) for i in range(COUNT)]).tobytes() if source.has_one_size else None
    assert source.identity() == {
        "images": COUNT,
        "digest of the names": digest(names or "\n".join(source.keys).encode()),
        "digest of the labels": digest((np.arange(COUNT) % 2).astype("<i8").tobytes()),
    }
    unlabelled = sources.ArraySource(np.zeros([2, 1, 1, 3], np.uint8))
    assert unlabelled.identity() == {"images": 2, "digest of the names": digest(bytes(6))}


def test_two_images_of_known_names_have_this_identity():
    source = sources.FileSource("", ("a/1.png", "b/2.png"), np.array([0, 1]))
    assert source.identity() == {
        "images": 2,
        "digest of the names": "43f9b3d48f9e6670",
        "digest of the labels": "eb82aaee034ca970",
    }
