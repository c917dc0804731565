"""The order of training, resuming, replicas, broken files, and going through a source for evaluation."""

import dataclasses
import functools
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import FIRST_SMALL_VIEW, Augmentation, RandomCrop, RandomFlip, center, simclr_chain
from tf_simclr.data import sources
from tf_simclr.data.batches import eval_dataset, train_dataset
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.formats import decode

pytestmark = pytest.mark.usefixtures("quick_decoder")

BATCH = 4
COUNT = 18  # Four batches an epoch, and two examples over.
SIZE = 8


@pytest.fixture(scope="module")
def array() -> sources.ArraySource:
    images = np.random.default_rng(0).integers(0, 256, [COUNT, 10, 12, 3]).astype(np.uint8)
    return sources.ArraySource(images, np.arange(COUNT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A folder of one file per class, so that a label tells the file; sizes and formats vary."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for i in range(COUNT):
        image = rng.integers(0, 256, [12 + i, 30 - i, 3]).astype(np.uint8)
        (folder / f"{i:02}").mkdir()
        (folder / f"{i:02}" / "image").with_suffix(".png" if i % 3 else ".jpg").write_bytes(
            (tf.io.encode_png if i % 3 else tf.io.encode_jpeg)(image).numpy()
        )
    return folder


@pytest.fixture(scope="module")
def files(folder) -> sources.FileSource:
    return sources.from_folder(folder)


def train(source, **options):
    defaults = {"global_batch_size": BATCH, "seed": 3, "total_steps": 10}
    return train_dataset(source, **{**defaults, "augmentation": Augmentation(SIZE), **options})


def batches(dataset):
    """(images, labels, keys) of every batch; the images alone of unlabelled ones."""
    read = list(dataset.as_numpy_iterator())
    if isinstance(dataset.element_spec, dict):
        return [batch["images"] for batch in read]
    return [(batch["images"], labels, batch["keys"]) for batch, labels in read]


@functools.cache
def whole_run(source):
    """The batches of a run of ten steps that nothing happens to, which several tests read."""
    return batches(train(source))


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["array", "files"])
def test_an_epoch_has_every_example_once_but_for_the_tail(request, kind):
    source = request.getfixturevalue(kind)
    labels = np.array([labels for _, labels, _ in whole_run(source)])
    assert len(labels) == 10
    epochs = labels.reshape(-1)[: 2 * 16].reshape(2, 16)
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])
    assert list(epochs[0]) != sorted(epochs[0])
    other_seed = np.array([labels for _, labels, _ in batches(train(source, total_steps=4, seed=4))])
    assert list(epochs[0]) != list(other_seed.reshape(-1))


# Within an epoch, at its end, in the next one, and at the end of the run.
@pytest.mark.parametrize(("kind", "starts"), [("array", (0, 3, 4, 7, 10)), ("files", (3, 8))])
def test_a_resumed_run_gets_the_batches_of_an_uninterrupted_one(request, kind, starts):
    source = request.getfixturevalue(kind)
    for start in starts:
        assert_same(batches(train(source, start_step=start)), whole_run(source)[start:])


def test_the_order_is_uniformly_random():
    # Class counts of the batches of a source that is sorted by class: hypergeometric, with this variance.
    count, batch, classes = 20_000, 200, 10
    source = sources.ArraySource(np.zeros([count, 1, 1, 3], np.uint8), np.arange(count))
    steps = count // batch
    order = np.array([x for _, x, _ in batches(train(source, global_batch_size=batch, total_steps=2 * steps))])
    counts = np.stack([np.bincount(row * classes // count, minlength=classes) for row in order])
    expected = batch * 0.1 * 0.9 * (count - batch) / (count - 1)
    assert np.mean((counts - batch / classes) ** 2) == pytest.approx(expected, rel=0.15)
    first, second = order.reshape(2, count)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03


def test_array_batches_are_whole_images_and_need_no_labels(array):
    for images, labels, _ in whole_run(array):
        np.testing.assert_array_equal(images, array.images[labels])
    unlabelled = train(dataclasses.replace(array, labels=None))
    assert unlabelled.element_spec["images"] == tf.TensorSpec([BATCH, 10, 12, 3], tf.uint8)
    assert unlabelled.cardinality() == 10
    assert_same([[images] for images in batches(unlabelled)], [[images] for images, *_ in whole_run(array)])


@pytest.mark.parametrize("sampler", ["tensorflow", "uniform_area"])
def test_file_batches_are_two_crops_of_every_image(files, sampler):
    chain = simclr_chain(crop_sampler=sampler, crop_area=(0.2, 0.9), crop_aspect_ratio=(0.5, 2.0))
    augmentation = Augmentation(SIZE, branches=(chain, chain))
    dataset = train(files, augmentation=augmentation, start_step=5, total_steps=6)
    assert dataset.element_spec[0]["images"] == tf.TensorSpec([BATCH, 2, SIZE, SIZE, 3], tf.uint8)
    ((views, labels, keys),) = batches(dataset)
    np.testing.assert_array_equal(keys, [[1, label] for label in labels])  # Step 5 is in the second epoch.
    for position, label in enumerate(labels):
        image = decode.decode_image(tf.io.read_file(files.paths[label])).numpy()
        boxes = augmentation.crop_boxes(tf.constant([[1, label]]), *image.shape[:2]).numpy()
        assert list(boxes[0]) != list(boxes[1])
        for view, (y, x, h, w) in zip(views[position], boxes, strict=True):
            crop = tf.image.resize(image[y : y + h, x : x + w].astype(np.float32), [SIZE, SIZE], "bicubic")
            np.testing.assert_array_equal(view, np.clip(np.round(crop), 0, 255))


def test_small_views_are_cropped_from_the_same_images_and_change_no_other_crop(files):
    small = Augmentation(6, branches=((RandomCrop(area=(0.1, 0.4)),),) * 3, first_view=FIRST_SMALL_VIEW)
    dataset = train(files, small_views=small, total_steps=2)
    assert dataset.element_spec[0]["small_images"] == tf.TensorSpec([BATCH, 3, 6, 6, 3], tf.uint8)
    assert_same(batches(dataset), whole_run(files)[:2])
    for batch, labels in dataset.as_numpy_iterator():
        for views, label, key in zip(batch["small_images"], labels, batch["keys"], strict=True):
            image = decode.decode_image(tf.io.read_file(files.paths[label])).numpy()
            for view, (y, x, h, w) in zip(views, small.crop_boxes([key], *image.shape[:2]).numpy(), strict=True):
                crop = tf.image.resize(image[y : y + h, x : x + w].astype(np.float32), [6, 6], "bicubic")
                np.testing.assert_array_equal(view, np.clip(np.round(crop), 0, 255))


def test_unlabelled_files_give_views_alone(files):
    dataset = train(dataclasses.replace(files, labels=None, class_names=None), total_steps=2)
    assert dataset.element_spec["images"] == tf.TensorSpec([BATCH, 2, SIZE, SIZE, 3], tf.uint8)
    assert dataset.cardinality() == 2
    assert_same([[views] for views in batches(dataset)], [[views] for views, *_ in whole_run(files)[:2]])


@pytest.mark.parametrize("kind", ["array", pytest.param("files", marks=pytest.mark.slow)])
def test_the_views_of_an_example_do_not_depend_on_the_batch_size(request, kind):
    source = request.getfixturevalue(kind)
    augmentation = Augmentation(SIZE, branches=((RandomCrop(), RandomFlip()),) * 2, seed=3)

    def views_by_key(batch_size):
        found = {}
        options = {"augmentation": augmentation, "global_batch_size": batch_size, "total_steps": 12 // batch_size}
        for batch, _ in train(source, **options):
            views = tf.reshape(augmentation(batch["images"], batch["keys"]), [2, batch_size, -1])
            found |= dict(zip(map(tuple, batch["keys"].numpy()), np.swapaxes(views, 0, 1), strict=True))
        return found

    small, large = views_by_key(3), views_by_key(6)
    assert len(small) == 12 and small.keys() == large.keys()
    for key, views in small.items():
        np.testing.assert_allclose(large[key], views, atol=1e-6)


def test_a_file_that_breaks_later_moves_no_other_example(folder, files, caplog):
    whole = whole_run(files)
    files = dataclasses.replace(files, broken=BrokenFiles())  # The module's other tests read the file again.
    path = pathlib.Path(files.paths[5])
    content = path.read_bytes()
    path.write_text("no longer an image")
    try:
        with caplog.at_level("WARNING"):
            broken = batches(train(files))
            evaluated = np.concatenate([labels for *_, labels in evaluate(files)])
    finally:
        path.write_bytes(content)
    for (views, labels, keys), (expected_views, expected_labels, expected_keys) in zip(broken, whole, strict=True):
        np.testing.assert_array_equal(keys, expected_keys)
        kept = expected_labels != 5
        np.testing.assert_array_equal(labels, np.where(kept, expected_labels, 6))
        np.testing.assert_array_equal(views[kept], expected_views[kept])
    assert any(5 in labels for _, labels, _ in whole)
    np.testing.assert_array_equal(evaluated, np.delete(np.arange(COUNT), 5))
    assert caplog.text.count(f"{path}: not a JPEG") == 1  # Found in training, it is known in evaluation.


def test_lost_files_stop_the_run_by_their_error(tmp_path):
    lost = sources.FileSource(str(tmp_path), tuple(f"{i}.png" for i in range(8)))
    with pytest.raises(tf.errors.NotFoundError, match=r"\d.png"):
        batches(train(lost))


@pytest.mark.parametrize("kind", ["array", "files"])
def test_replicas_get_the_contiguous_parts_of_the_same_batch(request, kind):
    source = request.getfixturevalue(kind)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    distributed = strategy.experimental_distribute_dataset(train(source, total_steps=6))
    joined = [
        [
            np.concatenate([np.asarray(part) for part in strategy.experimental_local_results(x)])
            for x in (batch["images"], labels, batch["keys"])
        ]
        for batch, labels in distributed
    ]
    assert_same(joined, whole_run(source)[:6])


def test_too_few_images_and_steps_out_of_order_are_errors(array):
    with pytest.raises(ValueError, match="fewer images than one batch.*18 images and a global batch size of 19"):
        train(array, global_batch_size=19)
    with pytest.raises(ValueError, match="start_step=11, total_steps=10"):
        train(array, start_step=11)


def evaluate(source, image_size=SIZE, batch_size=5):
    return eval_dataset(source, image_size=image_size, batch_size=batch_size)


@pytest.mark.parametrize("image_size", [8, 40])
def test_evaluation_goes_through_all_examples_in_order(array, files, image_size):
    decoded = [decode.decode_image(tf.io.read_file(path)).numpy() for path in files.paths]
    for source, originals in ((array, array.images), (files, decoded)):
        results = list(evaluate(source, image_size).as_numpy_iterator())
        assert [len(images) for _, _, images, _ in results] == [5, 5, 5, 3]
        positions, keys, images, labels = map(np.concatenate, zip(*results, strict=True))
        np.testing.assert_array_equal(positions, np.arange(COUNT))
        np.testing.assert_array_equal(labels, np.arange(COUNT))
        assert [key.decode() for key in keys] == list(source.keys)
        expected = np.stack([center.preprocess_for_eval(image, image_size) for image in originals])
        np.testing.assert_allclose(images, expected, atol=1e-6)


def test_evaluation_starts_anywhere_and_labels_images_without_a_label_minus_1(array, files):
    for source in (array, files):
        unlabelled = eval_dataset(dataclasses.replace(source, labels=None), image_size=SIZE, batch_size=5, start=16)
        ((positions, keys, images, labels),) = unlabelled.as_numpy_iterator()
        assert (positions.tolist(), labels.tolist()) == ([16, 17], [-1, -1])
        assert [key.decode() for key in keys] == list(source.keys[16:])
        assert images.shape == (2, SIZE, SIZE, 3) and images.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("start_step", [0, 3])
def test_data_services_make_the_batches_that_this_machine_would(files, start_service, start_step):
    here = batches(train(files, start_step=start_step))
    assert_same(batches(train(files, start_step=start_step, data_service=[start_service(), start_service()])), here)


def test_a_data_service_that_lost_its_order_stops_the_run(files, start_service):
    address = start_service()
    second = tf.data.experimental.service.WorkerServer(tf.data.experimental.service.WorkerConfig(address))
    with pytest.raises(tf.errors.InvalidArgumentError, match="start the command again"):
        batches(train(files, data_service=[address]))
    del second


def test_a_data_service_that_does_not_answer_is_refused(files):
    for address in ("localhost:1", "localhost"):
        with pytest.raises(ValueError, match=f"data.service must be the addresses.*Received: {address}"):
            train(files, data_service=[address])
