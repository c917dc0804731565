"""COCO-style files: which label an image has, where its file is found, and what is refused."""

import json
import zipfile

import pytest
from layouts import lay_out, png

from tf_simclr.data import sources
from tf_simclr.data.files import archives, listing

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 9, "name": "<b>dog\t\u202e</b>"}]
# Two annotations of one category, one, several categories, none, and one of a category that has no name.
LABELS = {"0.png": [7, 7], "1.png": [9], "2.png": [7, 9], "3.png": [], "4.png": [8]}
CLASSES = ["cat", "<b>dog\t\u202e</b>", None, None, "8"]


def write(path, prefix="", **changes):
    names = list(LABELS)
    content = {
        "images": [{"id": 10 + i, "file_name": prefix + name} for i, name in enumerate(names)],
        "annotations": [{"image_id": 10 + names.index(name), "category_id": c} for name in names for c in LABELS[name]],
        "categories": CATEGORIES,
    } | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def listed(place):
    found = listing.list_images(place)
    return [path for path in found.paths if archives.read(path) != png()], list(found.keys), found.classes


def test_an_image_has_the_label_of_its_only_category(tmp_path, caplog):
    place = write(tmp_path / "set" / "_annotations.coco.json")
    lay_out(tmp_path / "set", *LABELS)
    with caplog.at_level("INFO", logger="absl"):
        assert listed(place) == ([], list(LABELS), CLASSES)
    assert "unlabelled for having several: 1, first 2.png; for having none: 1, first 3.png" in caplog.text
    source = sources.open_images(place)
    assert source.num_classes == 3 and source.labels.tolist().count(-1) == 2


@pytest.mark.parametrize("prefix", ["", "train2017/"])
@pytest.mark.parametrize("kind", ["folder", "zip", "zip in the same folder", "all in one zip"])
def test_files_are_found_as_coco_lays_them_out(tmp_path, kind, prefix):
    root = tmp_path / "coco"
    for place in (root, root / "annotations"):  # Somebody's backup, cut off.
        place.mkdir(parents=True, exist_ok=True)
        (place / "backup.zip").write_bytes(b"PK\3\4 and no more")
        (place / "backup.tar").write_bytes(b"\x1f\x8b gzip")
    lay_out(root, *(f"{part}2017/{name}" for part in ("train", "val") for name in LABELS))
    place = write(root / "annotations" / "instances_train2017.json", prefix)
    if kind == "all in one zip":
        with zipfile.ZipFile(tmp_path / "coco.zip", "w") as archive:
            for path in sorted(root.rglob("*.*")):
                archive.write(path, path.relative_to(tmp_path))
        place = f"{tmp_path}/coco.zip/coco/annotations/instances_train2017.json"
    elif kind != "folder":
        beside = root / "annotations" if kind == "zip in the same folder" else root
        for part in ("train", "val"):
            with zipfile.ZipFile(beside / f"{part}2017.zip", "w") as archive:
                for path in sorted((root / f"{part}2017").iterdir()):
                    archive.write(path, path.relative_to(root))
                    path.unlink()
            (root / f"{part}2017").rmdir()
    unlike, keys, classes = listed(place)
    assert not unlike and classes == CLASSES and all("train2017" in key for key in keys)


@pytest.mark.parametrize(
    "content",
    ["[1]", "{", "{}", '{"images": [{"id": 1}]}', '{"images": [{"id": [], "file_name": "a.png"}]}',
     '{"images": [{"id": 1, "file_name": 3}]}', '{"images": [{"id": 1, "file_name": "a\\u0000b"}]}',
     '{"images": [], "annotations": [{"image_id": 1}], "categories": [{"id": 1}]}', b"\xff\xfe\x00"],
)  # fmt: skip
def test_other_json_files_are_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match="must be COCO-style: .*Received: .*x.json"):
        listing.list_images(str(path))


def test_a_file_whose_images_are_nowhere_says_so(tmp_path):
    with pytest.raises(ValueError, match="none of the 5 images in .*x.json is found. Received: '0.png'"):
        listing.list_images(write(tmp_path / "deep" / "x.json"))
