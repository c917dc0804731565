"""TFDS data sets, prepared in a temporary folder by builders of our own."""

import dataclasses
import hashlib
import os
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import Augmentation, center
from tf_simclr.data import sources
from tf_simclr.data.batches import eval_dataset, train_dataset
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.formats import decode
from tf_simclr.data.sources.tfds import from_tfds

COUNT = 30
SEVERAL = ([0], [2, 1], [1, 1, 2], [])


def pixels(i: int, height: int = 9, width: int = 7) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, [height, width, 3]).astype(np.uint8)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    """A folder with the prepared data sets small_images, varied_images, odd_names, several_labels and only_text."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Prepared(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        features: dict

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

    class SmallImages(Prepared):
        features = {
            "image": tfds.features.Image(shape=(9, 7, 3)),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
        }

        def _generate_examples(self):
            for i in range(COUNT):
                yield i, {"image": pixels(i), "label": i % 2}

    class VariedImages(Prepared):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=COUNT)}

        def _generate_examples(self):
            for i in range(COUNT):
                yield i, {"image": pixels(i, 20 + i, 50 - i), "label": i}

    class OddNames(Prepared):
        features = {
            "id": tfds.features.Text(),
            "photo": tfds.features.Image(),
            "mask": tfds.features.Image(),
            "kind": tfds.features.ClassLabel(names=["even", "odd"]),
        }

        def _generate_examples(self):
            for i in range(COUNT):
                photo = pixels(i, 150, 20)
                yield i, {"id": str(i), "photo": photo, "mask": 255 - photo, "kind": i % 2}

    class SeveralLabels(Prepared):
        features = {
            "image": tfds.features.Image(shape=(9, 7, 3)),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b", "c"])),
            "objects": tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b", "c"])),
            "view": tfds.features.ClassLabel(names=["left", "right"]),
        }

        def _generate_examples(self):
            for i, labels in enumerate(SEVERAL):
                yield i, {"image": pixels(i), "labels": labels, "objects": [], "view": 0}

    class OnlyText(Prepared):
        features = {"text": tfds.features.Text()}

        def _generate_examples(self):
            yield 0, {"text": "no image"}

    folder = str(tmp_path_factory.mktemp("tfds"))
    for builder in (SmallImages, VariedImages, OddNames, SeveralLabels, OnlyText):
        builder(data_dir=folder).download_and_prepare()
    return folder


def test_small_images_of_one_size_are_loaded(data_dir):
    source = from_tfds("small_images", "train", data_dir)
    assert isinstance(source, sources.ArraySource)
    assert source.class_names == ("even", "odd")
    expected = {pixels(i).tobytes(): i % 2 for i in range(COUNT)}
    assert {image.tobytes(): label for image, label in zip(source.images, source.labels, strict=True)} == expected
    half = from_tfds("small_images", "train[:50%]", data_dir)
    np.testing.assert_array_equal(half.images, source.images[: COUNT // 2])
    assert isinstance(from_tfds("small_images", "train", data_dir, max_cached_bytes=1000), sources.TfdsSource)


def test_features_are_found_by_their_type_and_chosen_by_name(data_dir):
    with pytest.raises(ValueError, match=r"data.image_feature=NAME, one of mask, photo\. Received: None"):
        from_tfds("odd_names", "train", data_dir)
    with pytest.raises(ValueError, match=r"data.label_feature=NAME, one of kind\. Received: id"):
        from_tfds("odd_names", "train", data_dir, image_feature="photo", label_feature="id")
    source = from_tfds("odd_names", "train", data_dir, image_feature="photo")
    assert source.class_names == ("even", "odd")
    expected = {pixels(i, 150, 20).tobytes(): i % 2 for i in range(COUNT)}
    found = {decode.decode_image(image).numpy().tobytes(): int(label) for _, _, image, label in source.records()}
    assert found == expected


@pytest.mark.slow
def test_streamed_training_is_shuffled_complete_and_resumable(data_dir, start_service):
    source = from_tfds("varied_images", "train", data_dir)
    assert isinstance(source, sources.TfdsSource) and source.num_examples == COUNT

    def run(start_step: int = 0, **options) -> list:
        dataset = train_dataset(
            source,
            global_batch_size=4,
            seed=0,
            start_step=start_step,
            total_steps=15,
            augmentation=Augmentation(8),
            **options,
        )
        assert dataset.cardinality() == 15 - start_step
        return list(dataset.as_numpy_iterator())

    uninterrupted = run()
    first = uninterrupted[0][0]["images"]
    assert first.shape == (4, 2, 8, 8, 3) and first.dtype == np.uint8
    epochs = np.array([labels for _, labels in uninterrupted])[:14].reshape(2, 28)
    assert all(len(set(epoch)) == 28 for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])
    runs = [(start, run(start)) for start in (3, 7, 9)]
    runs.append((3, run(3, data_service=[start_service(), start_service()])))
    for start, again in runs:
        for (batch, labels), (expected_batch, expected_labels) in zip(again, uninterrupted[start:], strict=True):
            np.testing.assert_array_equal(labels, expected_labels)
            for name, column in batch.items():
                np.testing.assert_array_equal(column, expected_batch[name])


def test_streamed_evaluation_goes_through_all_records(data_dir):
    source = from_tfds("varied_images", "train", data_dir)
    results = list(eval_dataset(source, image_size=40, batch_size=8).as_numpy_iterator())
    assert [len(images) for _, _, images, _ in results] == [8, 8, 8, 6]
    positions, keys, images, labels = map(np.concatenate, zip(*results, strict=True))
    assert sorted(labels) == list(range(COUNT)) == positions.tolist()
    assert [key.decode() for key in keys] == list(source.keys)
    expected = np.stack([center.preprocess_for_eval(pixels(i, 20 + i, 50 - i), 40) for i in labels])
    np.testing.assert_allclose(images, expected, atol=1e-6)


def test_streams_without_labels_give_images_alone(data_dir):
    source = dataclasses.replace(from_tfds("varied_images", "train", data_dir), label_feature=None)
    options = {"global_batch_size": 4, "seed": 0, "total_steps": 1}
    train = train_dataset(source, augmentation=Augmentation(8), **options)
    assert train.element_spec["images"] == tf.TensorSpec([4, 2, 8, 8, 3], tf.uint8)
    assert len(list(train)) == 1
    evaluation = eval_dataset(source, image_size=8, batch_size=COUNT)
    ((_, _, images, labels),) = evaluation.as_numpy_iterator()
    assert images.shape == (COUNT, 8, 8, 3) and set(labels) == {-1}


def test_an_image_with_a_list_of_classes_has_each_of_them(data_dir):
    source = from_tfds("several_labels", "train", data_dir, several_labels=True)
    assert (source.num_classes, source.class_names) == (3, ("a", "b", "c"))
    expected = {pixels(i).tobytes(): [c in labels for c in range(3)] for i, labels in enumerate(SEVERAL)}
    ((*_, labels),) = eval_dataset(source, image_size=8, batch_size=9).as_numpy_iterator()
    assert labels.dtype == bool and labels.shape == (4, 3)
    found = {image.tobytes(): label.tolist() for _, _, image, label in source.eval_examples().as_numpy_iterator()}
    assert found == expected
    assert from_tfds("several_labels", "train", data_dir).class_names == ("left", "right")


def test_records_come_in_the_order_of_the_seed_under_numbers_and_names_that_stay(data_dir):
    source = from_tfds("varied_images", "train", data_dir)

    def read(records: tf.data.Dataset) -> list[tuple[int, bytes, int]]:
        return [(int(number), name, label) for number, name, _, label in records.as_numpy_iterator()]

    first = read(source.records(tf.constant(1, tf.int64)))
    assert first == read(source.records(tf.constant(1, tf.int64)))
    in_order = read(source.records())
    assert sorted(first) == sorted(in_order)
    numbers, names, labels = zip(*in_order, strict=True)
    assert len(set(numbers)) == COUNT and sorted(labels) == list(range(COUNT))
    folder = f"{data_dir}/varied_images/1.0.0/varied_images-train.tfrecord-00000-of-00001"
    assert [name.decode() for name in names] == [f"{folder}#record={i}" for i in range(COUNT)]
    rest = from_tfds("varied_images", "train[50%:]", data_dir)
    assert read(rest.records()) == in_order[COUNT // 2 :]


def test_a_part_has_the_examples_at_its_positions_in_the_split(data_dir):
    source = from_tfds("varied_images", "train[50%:]", data_dir)

    def read(source) -> list[tuple[int, bytes, int]]:
        return [(int(number), name, label) for number, name, _, label in source.records().as_numpy_iterator()]

    everything = read(source)
    part = source.subset(np.array([1, 4, 9, 14])).subset(np.array([0, 2, 3]))
    assert read(part) == [everything[position] for position in (1, 9, 14)]
    assert part.num_examples == 3 and list(part.keys) == [source.keys[position] for position in (1, 9, 14)]
    found = eval_dataset(part, image_size=8, batch_size=9).as_numpy_iterator()
    ((positions, keys, images, labels),) = found
    assert positions.tolist() == [0, 1, 2] and [key.decode() for key in keys] == list(part.keys)
    assert labels.tolist() == [label for _, _, label in read(part)]
    expected = [center.preprocess_for_eval(pixels(i, 20 + i, 50 - i), 8) for i in labels]
    np.testing.assert_allclose(images, np.stack(expected), atol=1e-6)
    assert len({str(one.identity()) for one in (source, part, source.subset(np.array([1, 4])))}) == 3


def damage(data_dir, tmp_path, name: str, *, broken=(), cut_bytes: int = 0) -> str:
    """Copies a prepared data set, spoils the content of some records, and cuts the end of the file off."""
    shutil.copytree(f"{data_dir}/{name}", tmp_path / name)
    (file,) = (tmp_path / name).rglob("*.tfrecord-*")
    records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(file)) as writer:
        for i, record in enumerate(records):
            writer.write(record.replace(b"PNG", b"PNQ") if i in broken else record)
    os.truncate(file, file.stat().st_size - cut_bytes)
    return str(file)


def train_two_epochs(data_dir, max_fraction: float = 1.0) -> tuple[np.ndarray, np.ndarray, BrokenFiles]:
    """(views [56, 2, 8, 8, 3], labels [56], what was found broken)."""
    broken = BrokenFiles(max_fraction=max_fraction)
    source = from_tfds("varied_images", "train", data_dir, broken=broken)
    options = {"global_batch_size": 4, "seed": 0, "total_steps": 14}
    batches = train_dataset(source, augmentation=Augmentation(8), **options)
    inputs, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate([batch["images"] for batch in inputs]), np.concatenate(labels), broken


@pytest.mark.slow
def test_broken_records_are_replaced_and_named_and_move_no_other(data_dir, tmp_path):
    file = damage(data_dir, tmp_path, "varied_images", broken=(3, 11, 12))
    in_file = [int(label) for _, _, _, label in from_tfds("varied_images", "train", data_dir).records()]
    expected_views, expected_labels, _ = train_two_epochs(data_dir)
    views, labels, broken = train_two_epochs(tmp_path)
    kept = ~np.isin(expected_labels, [in_file[i] for i in (3, 11, 12)])
    assert 50 <= kept.sum() < 54
    np.testing.assert_array_equal(views[kept], expected_views[kept])
    np.testing.assert_array_equal(labels == expected_labels, kept)
    assert (len(broken), broken.num_files) == (3, COUNT)
    assert broken.reason(f"{file}#record=11").startswith("not a JPEG")
    with pytest.raises(tf.errors.OpError):
        train_two_epochs(tmp_path, max_fraction=2 / COUNT)
    source = from_tfds("varied_images", "train", tmp_path)
    evaluated = eval_dataset(source, image_size=8, batch_size=COUNT)
    ((*_, labels),) = evaluated.as_numpy_iterator()
    assert sorted([*labels, *(in_file[i] for i in (3, 11, 12))]) == list(range(COUNT)) and len(source.broken) == 3


def test_what_a_damaged_file_lacks_is_replaced_and_named(data_dir, tmp_path):
    file = damage(data_dir, tmp_path, "varied_images", cut_bytes=20_000)
    left = from_tfds("varied_images", "train", tmp_path).records().reduce(0, lambda count, record: count + 1)
    _, labels, broken = train_two_epochs(tmp_path)
    assert 20 < left < 28 and all(len(set(epoch)) == left for epoch in labels.reshape(2, 28))
    assert len(broken) == COUNT - left
    assert broken.reason(f"{file}#record={COUNT - 1}").startswith("its file is damaged: truncated record")


def test_small_images_that_are_broken_are_left_out_and_named(data_dir, tmp_path):
    file = damage(data_dir, tmp_path, "small_images", broken=(5,), cut_bytes=4)
    source = from_tfds("small_images", "train", tmp_path, broken=(broken := BrokenFiles()))
    whole = from_tfds("small_images", "train", data_dir)
    np.testing.assert_array_equal(source.images, np.delete(whole.images, [5, COUNT - 1], axis=0))
    assert broken.reason(f"{file}#record=5") and broken.reason(f"{file}#record=29") and len(broken) == 2


@pytest.mark.parametrize(
    ("name", "split", "error", "message"),
    [
        (
            "smal_imagez_of_nowhere",
            "train",
            ValueError,
            "no TFDS data set of this name.*Received: 'smal_imagez_of",
        ),
        ("cifar_10", "train", ValueError, "did you mean 'cifar10'.*Received: 'cifar_10'"),
        ("small_images", "test", ValueError, "has the splits train. Received: 'test'"),
        ("only_text", "train", ValueError, "no image feature, only text.*Received: 'only_text'"),
        ("cifar10", "train", FileNotFoundError, "not in .*cifar10.*Received: 'cifar10'"),
    ],
)
def test_what_cannot_be_opened_is_one_clear_sentence(data_dir, name, split, error, message):
    with pytest.raises(error, match=message) as info:
        from_tfds(name, split, data_dir, download=False)
    assert "\n" not in str(info.value)


def test_streamed_data_sets_are_told_apart_by_their_name_and_split(data_dir):
    source = from_tfds("varied_images", "train[50%:]", data_dir)
    name = hashlib.blake2b(b"varied_images/1.0.0 train[50%:]", digest_size=8).hexdigest()
    assert source.identity() == {"images": COUNT // 2, "digest of the names": name}


def test_one_and_ten_percent_of_imagenet_are_those_of_the_reference(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    chosen = {"1pct": (3, 6), "10pct": (0, 3, 6, 9)}

    with tfds.core.registered.skip_registration():  # TFDS has builders of these names.

        class Imagenet2012(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("5.1.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=4),
                    "file_name": tfds.features.Text(),
                }
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(range(20))}

            def _generate_examples(self, numbers):
                for i in numbers:
                    yield i, {"image": pixels(i, 150, 20), "label": i % 4, "file_name": f"{i}.JPEG"}

        class Imagenet2012Subset(Imagenet2012):
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, version="5.0.0") for name in chosen]

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(chosen[self.builder_config.name])}

    Imagenet2012(data_dir=tmp_path).download_and_prepare()
    for name in chosen:
        Imagenet2012Subset(data_dir=tmp_path, config=name).download_and_prepare()
    source = from_tfds("imagenet2012", "train", str(tmp_path))
    for percent, numbers in ((1, chosen["1pct"]), (10, chosen["10pct"])):
        few = source.few_labels(percent)
        assert few.num_examples == len(numbers) and f"imagenet2012_subset/{percent}pct" in few.name
        assert sorted(int(label) for *_, label in few.eval_examples()) == sorted(i % 4 for i in numbers)
    for percent, draw in ((5, 0), (1, 1)):
        with pytest.raises(ValueError, match="known before the images are read"):
            source.few_labels(percent, draw)


def test_a_download_into_a_log_shows_no_bars(monkeypatch):
    calls = []
    builder = types.SimpleNamespace(
        info=types.SimpleNamespace(splits={}), download_and_prepare=lambda: calls.append("downloaded")
    )
    monkeypatch.setattr(
        pytest.importorskip("tensorflow_datasets"), "disable_progress_bar", lambda: calls.append("no bars")
    )
    for is_terminal in (False, True):
        monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: is_terminal))  # noqa: B023
        sources.tfds._prepare(builder, "a data set", download=True)
    assert calls == ["no bars", "downloaded", "downloaded"]
