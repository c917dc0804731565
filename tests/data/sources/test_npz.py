"""NumPy's .npz files as a source."""

import numpy as np
import pytest

from tf_simclr.data import sources


def test_npz_arrays_with_numbers_or_names_as_labels(tmp_path, photos):
    path = tmp_path / "set.npz"
    np.savez(path, images=photos, labels=np.arange(16) % 12)
    source = sources.open_images(path)
    np.testing.assert_array_equal(source.images, photos)
    assert source.class_names == tuple(str(i) for i in range(12))
    np.testing.assert_array_equal(source.labels, np.arange(16) % 12)
    np.savez(path, images=photos)
    assert sources.open_images(path).labels is None
    np.savez(path, pixels=photos)
    with pytest.raises(ValueError, match="must have an array `images`.*with the arrays pixels"):
        sources.open_images(path)


NUMBERS = np.arange(16) % 3


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        (NUMBERS[:, None], NUMBERS, "012"),
        (np.eye(3)[NUMBERS], NUMBERS, "012"),
        (np.eye(3, dtype=bool)[NUMBERS], NUMBERS, "012"),
        (NUMBERS.astype(np.float32), NUMBERS, "012"),
        (np.array(["b", "d", "n"])[NUMBERS], NUMBERS, "bdn"),
        (np.array([b"b", b"d", b"n"])[NUMBERS], NUMBERS, "bdn"),
        (NUMBERS == 1, NUMBERS == 1, ("False", "True")),
        (np.array([0, 7, 10])[NUMBERS], NUMBERS, ("0", "7", "10")),
        (np.array([0, 1, 2, -1])[np.arange(16) % 4], np.array([0, 1, 2, -1])[np.arange(16) % 4], "012"),
        (np.array([0, 1, np.nan])[NUMBERS], np.array([0, 1, -1])[NUMBERS], "01"),
        (np.array([1.0, 2.0, np.nan]).astype(str)[NUMBERS], np.array([0, 1, -1])[NUMBERS], "12"),
        (np.array(["a", "b ", "None"])[NUMBERS], np.array([0, 1, -1])[NUMBERS], "ab"),
        (np.array([1, -1])[np.arange(16) % 2], np.array([1, 0])[np.arange(16) % 2], ("-1", "1")),
        (np.array(["a", "b", ""])[NUMBERS], np.array([0, 1, -1])[NUMBERS], "ab"),
    ],
)
def test_labels_of_every_kind_are_what_they_are(tmp_path, photos, labels, expected, names):
    np.savez(tmp_path / "set.npz", images=photos, labels=labels)
    source = sources.open_images(tmp_path / "set.npz")
    np.testing.assert_array_equal(source.labels, expected)
    assert source.labels.dtype == np.int64 and source.class_names == tuple(names)


@pytest.mark.parametrize(
    "labels",
    [
        NUMBERS + 0.5, NUMBERS + np.inf, np.full([16, 3], 1 / 3), np.ones([16, 2], int), NUMBERS[:5], NUMBERS[None],
        NUMBERS - 2,
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value")
def test_other_labels_are_refused(tmp_path, photos, labels):
    np.savez(tmp_path / "set.npz", images=photos, labels=labels)
    with pytest.raises(ValueError, match="one whole number.*leave them out to train without. Received: "):
        sources.open_images(tmp_path / "set.npz")


def test_images_are_grey_or_rgb_or_refused_with_a_remedy(tmp_path, photos):
    path = tmp_path / "set.npz"
    for grey in (photos[..., 0], photos[..., :1]):
        np.savez(path, images=grey)
        np.testing.assert_array_equal(sources.open_images(path).images, np.repeat(photos[..., :1], 3, axis=-1))
    np.savez(path, images=np.concatenate([photos, photos[..., :1]], axis=-1))
    np.testing.assert_array_equal(sources.open_images(path).images, photos)
    for images, remedy in (
        (photos / 255, r"np.round\(255 \* images\)"),
        (photos.astype(np.float32), r"np.round\(images\)"),
        (photos.astype(np.uint16) * 257, "scale them from"),
        (photos.transpose(0, 3, 1, 2), r"transpose\(0, 2, 3, 1\)"),
        (photos[0], "of one image"),
        (np.array([None, "a"]), r"labels.astype\(str\)"),
    ):
        np.savez(path, images=images)
        with pytest.raises(ValueError, match=f"npz file must .*{remedy}.*Received: "):
            sources.open_images(path)
    np.savez(path, photos)
    with pytest.raises(ValueError, match="with the arrays arr_0"):
        sources.open_images(path)


@pytest.mark.parametrize(
    "names", ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels"]
)
def test_files_with_a_test_part_are_used_as_they_are(tmp_path, photos, names):
    arrays = (photos[:10, ..., 0], NUMBERS[:10, None], photos[10:, ..., 0], NUMBERS[10:, None])
    np.savez(tmp_path / "set.npz", **dict(zip(names.split(), arrays, strict=True)))
    train, test = sources.open_train_and_eval(tmp_path / "set.npz")
    assert (train.num_examples, test.num_examples, test.class_names) == (10, 6, ("0", "1", "2"))
    np.testing.assert_array_equal(test.labels, NUMBERS[10:])


@pytest.mark.parametrize("damage", ["empty", "cut", "another", "compressed", "npy"])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, photos, damage):
    path = tmp_path / "set.npz"
    (np.savez_compressed if damage == "compressed" else np.savez)(path, images=photos)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:middle],
            "another": b"no zip file",
            "compressed": content[:middle] + bytes(64) + content[middle + 64 :],
            "npy": b"",
        }[damage]
    )
    if damage == "npy":
        with open(path, "wb") as file:
            np.save(file, photos)
    with pytest.raises(ValueError, match="A .npz file must be whole .*Received: .*set.npz"):
        sources.open_train_and_eval(path)
