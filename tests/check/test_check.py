"""The look at a run before it starts: what it finds in images and settings, and what it leaves behind."""

import io
import itertools
import json
import os
import pathlib
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from checks import SETTINGS, make_config, photo, write
from decoding import decode_quickly
from PIL import Image, ImageDraw, ImageEnhance
from zoo import encode

import run
from benchmarks import near_duplicates
from tf_simclr import builders
from tf_simclr.augment import Augmentation, RandomCrop
from tf_simclr.check import duplicates as check_duplicates
from tf_simclr.check import images as check_images
from tf_simclr.check import memory, settings, sheet
from tf_simclr.check.findings import Finding, by_severity, describe
from tf_simclr.data import sources
from tf_simclr.data.batches import train_dataset
from tf_simclr.data.quality import duplicates, pixels, survey
from tf_simclr.keras import keras
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs import identity
from tf_simclr.settings import DataConfig, RunConfig, override


def pairs_by_brute_force(looks: duplicates.Looks) -> set[tuple[int, int]]:
    """Compares all pairs."""
    patterns = looks.patterns.astype(np.float64)
    bits = [int(one) for one in looks.hashes]
    return {
        (i, j)
        for i, j in itertools.combinations(range(len(patterns)), 2)
        if (bits[i] ^ bits[j]).bit_count() <= 6 and patterns[i] @ patterns[j] >= 0.9
    }


def test_near_pairs_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=[60, 63])
    patterns = np.concatenate([centers[rng.integers(0, 60, 500)] + rng.normal(size=[500, 63]) * 0.12, centers])
    patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    bits = patterns > np.median(patterns, axis=1, keepdims=True)
    hashes = np.packbits(np.pad(bits, [(0, 0), (0, 1)]), axis=1).view(np.uint64)[:, 0]
    hashes[::7] ^= np.uint64(0b111 << 20)
    looks = duplicates.Looks(hashes, patterns.astype(np.float16), np.full(560, 50, np.float32))
    pairs = [tuple(pair) for pair in duplicates.near_pairs(looks).tolist()]
    expected = pairs_by_brute_force(looks)
    assert set(pairs) == expected and len(pairs) == len(expected)
    assert 200 < len(expected) < 5000
    best = duplicates.near_pairs(looks, max_pairs=50)
    similar = sorted(expected, key=lambda pair: -looks.patterns[list(pair)].astype(np.float64).prod(axis=0).sum())
    assert len(best) == 50 and len({tuple(pair) for pair in best.tolist()} & set(similar[:55])) >= 45  # float16


def test_every_pair_of_close_hashes_is_looked_up():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 2**64, 300, np.uint64)
    flips = np.array([sum(1 << int(bit) for bit in rng.choice(64, 6, replace=False)) for _ in first], np.uint64)
    patterns = np.repeat(np.eye(300, 63 * 5).reshape(300, 5, 63).sum(1)[None], 2, 0).reshape(600, 63)
    looks = duplicates.Looks(np.concatenate([first, first ^ flips]), patterns.astype(np.float16), np.full(600, 9.0))
    assert sorted(duplicates.near_pairs(looks).tolist()) == [[i, i + 300] for i in range(300)]


def test_pairs_are_not_followed_from_image_to_image():
    chain = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [5, 6], [5, 7], [6, 7]])
    groups = [group.tolist() for group in duplicates.stars(chain)]
    assert groups == [[0, 1, 2], [2, 3], [3, 4], [5, 6, 7]]
    assert duplicates.stars(np.empty([0, 2], np.int64)) == []


def test_many_images_that_look_like_each_other_are_a_series():
    chain, copies = [[i, i + 2] for i in range(0, 42, 2)], [[1, 3], [1, 5], [43, 45]]
    pairs, series = duplicates.split_series(np.array([*copies[:1], *chain, *copies[1:]]))
    assert pairs.tolist() == copies
    assert [group.tolist() for group in series] == [list(range(0, 43, 2))]
    pairs, series = duplicates.split_series(np.array(chain[:19]))  # as many as a picture may have copies
    assert pairs.tolist() == chain[:19] and not series
    pairs, series = duplicates.split_series(np.empty([0, 2], np.int64))
    assert pairs.shape == (0, 2) and not series


def test_among_pictures_that_differ_in_one_thing_no_copy_is_named(tmp_path):
    rng = np.random.default_rng(3)
    source, _ = near_duplicates.make_set([near_duplicates.KINDS["colours"](rng) for _ in range(30)], num_copied=1)
    sheet_ = tmp_path / "a.png"
    findings = {one.topic: one for one in check_duplicates.examine({"train": survey.survey(source)}, sheet_)}
    assert sheet_.is_file()
    (series,) = findings["series"].details
    assert len(series) > 30 and findings["series"].found == (
        f"{len(series)} images look nearly the same as others, in sets of more than 20."
    )
    assert "near duplicates" not in findings


def groups_of(pictures: list[Image.Image]) -> list[list[int]]:
    """The near groups of pictures of any sizes."""
    found = [survey.survey(sources.ArraySource(np.asarray(picture)[None])) for picture in pictures]
    return [group.tolist() for group in survey.find_duplicates(found).near]


def test_a_picture_is_recognised_when_it_was_changed_a_little():
    original = photo(0, (300, 200))
    changed = [
        Image.open(io.BytesIO(encode(original, "JPEG", quality=30))).convert("RGB"),
        original.resize((150, 100)),
        original.resize((160, 160)),
        ImageEnhance.Brightness(original).enhance(1.15),
        original.crop((2, 2, 298, 198)),
        original.convert("L").convert("RGB"),
    ]
    others = [photo(seed, (300, 200)) for seed in range(1, 6)]
    plain = [Image.new("RGB", (300, 200), (level, level, level)) for level in (0, 0, 200)]
    assert groups_of([original, *changed, *others, *plain]) == [list(range(7))]


def test_pictures_of_one_layout_are_told_apart_and_their_copies_found():
    rng = np.random.default_rng(0)
    kinds = ("plans", "forms", "radiographs", "charts")
    originals = [near_duplicates.KINDS[kinds[i % 4]](rng) for i in range(40)]
    source, truth = near_duplicates.make_set(originals, num_copied=3)
    found = survey.survey(source)
    candidates = duplicates.near_pairs(found.looks)
    is_true = truth[candidates[:, 0]] == truth[candidates[:, 1]]
    # The hash alone takes different pictures of every kind for copies.
    assert set(truth[candidates[~is_true, 0]] % 4) == {0, 1, 2, 3} and (~is_true).sum() > 50
    exact, near, _ = survey.find_duplicates([found])
    groups = [*exact, *near]
    assert all(len(set(truth[group])) == 1 for group in groups)
    together = {pair for group in groups for pair in itertools.combinations(group.tolist(), 2)}
    assert {tuple(pair) for pair in candidates[is_true].tolist()} <= together
    copies = {(int(truth[i]), i) for i in range(40, len(truth))}
    assert len(copies & together) >= 0.7 * len(copies)


@pytest.mark.parametrize("kind", ["colours", "sizes", "serials"])
def test_pictures_that_differ_in_one_thing_are_told_apart(kind):
    rng = np.random.default_rng(0)
    if kind == "colours":
        sheets = [Image.new("RGB", (128, 128), "white") for _ in range(6)]
        for sheet_, color in zip(sheets, ("red", "orange", "green", "teal", "blue", "purple"), strict=True):
            ImageDraw.Draw(sheet_).ellipse((34, 34, 94, 94), fill=color)
    elif kind == "sizes":
        sheets = [Image.new("RGB", (128, 128), "white") for _ in range(3)]
        for sheet_, shift in zip(sheets, (0, 4, 9), strict=True):
            ImageDraw.Draw(sheet_).ellipse((34 + shift, 34, 94 + shift, 94), fill="black")
    else:
        sheets = [near_duplicates.KINDS["serials"](rng) for _ in range(6)]
    copy = sheets[1].resize([side // 2 for side in sheets[1].size], Image.Resampling.BICUBIC)
    stack = [pixels.thumbnail(np.asarray(picture)[None]).numpy()[0] for picture in (*sheets, copy)]
    first, second = np.triu_indices(len(stack), 1)
    same = pixels.are_same(np.stack(stack), first, second, np.full(len(first), sheets[0].height))
    assert list(zip(first[same], second[same], strict=True)) == [(1, len(sheets))]


def test_copies_that_are_cut_off_are_moved_onto_each_other():
    drawing = near_duplicates.KINDS["plans"](np.random.default_rng(0))
    width, height = drawing.size
    cut = [drawing.crop((dx, dy, width - 14, height - dy)) for dx, dy in ((0, 0), (19, 13), (0, 12))]
    thumbnails = [pixels.thumbnail(np.asarray(picture)[None]).numpy()[0] for picture in (drawing, *cut)]
    first, second = np.zeros(3, int), np.arange(1, 4)
    assert pixels.are_same(np.stack(thumbnails), first, second, np.full(3, 400)).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of several sizes, with one problem of every kind."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(24):
        name = "train" if seed < 16 else "test"
        write(folder / name / ("even", "odd")[seed % 2] / f"{seed}.png", encode(photo(seed, (60 + seed, 48)), "PNG"))
    for name, seed in [("train/even/copy", 0), ("test/odd/leaked", 1), ("train/odd/relabelled", 2)]:
        write(folder / f"{name}.png", encode(photo(seed, (60 + seed, 48)), "PNG"))
    write(folder / "train/odd/near.jpg", encode(photo(3).resize((96, 80)), "JPEG", quality=60))
    write(folder / "train/even/plain.png", encode(Image.new("RGB", (50, 50), (9, 9, 9)), "PNG"))
    write(folder / "train/even/small.png", encode(photo(40, (7, 9)), "PNG"))
    write(folder / "train/even/broken.jpg", encode(photo(41), "JPEG")[:300])
    return folder


@pytest.fixture(scope="module")
def checked(folder, tmp_path_factory):
    """(report, exit status, folder of the run) of a whole check."""
    model_dir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        decode_quickly(patch)
        return *run.look(make_config(model_dir, folder)), model_dir


def by_topic(model_dir):
    found = json.loads((model_dir / "check.json").read_text())["findings"]
    return {topic: [one for one in found if one["topic"] == topic] for topic in {one["topic"] for one in found}}


def test_finds_every_problem_once(checked):
    report, status, model_dir = checked
    topics = by_topic(model_dir)
    names = {
        topic: [[pathlib.Path(name.split(" ")[0]).stem for name in group] for group in found[0]["details"]]
        for topic, found in topics.items()
        if topic in ("duplicates", "near duplicates", "leak", "label conflict")
    }
    assert all(len(topics[topic]) == 1 for topic in names)
    groups = {topic: {frozenset(group) for group in found} for topic, found in names.items()}
    assert groups == {
        "duplicates": {frozenset(["0", "copy"]), frozenset(["2", "relabelled"])},
        "near duplicates": {frozenset(["3", "near"])},
        "leak": {frozenset(["1", "leaked"])},
        "label conflict": {frozenset(["2", "relabelled"])},
    }
    (broken,) = topics["broken files"]
    assert broken["severity"] == "warn" and "1 of 31 files" in broken["found"] and "broken.jpg" in broken["details"][0]
    assert [pathlib.Path(name).stem for name in topics["plain images"][0]["details"]] == ["plain"]
    assert "1 of 21 images are smaller than the views, 16 px" in topics["image size"][0]["found"]
    assert "An epoch has 5 steps of 4 images; the run has 53 steps" in topics["length"][0]["found"]
    # How fast this machine is right now decides on the others.
    assert {"replicas", "memory", "speed", "disk", "time"} <= set(topics)
    assert (topics["replicas"][0]["severity"], topics["memory"][0]["severity"]) == ("info", "pass")
    assert status == 0 and "0 fail, " in report and str(model_dir / "check_views.png") in report


def test_a_check_leaves_no_run_behind_but_what_helps_it(checked):
    *_, model_dir = checked
    written = {path.name for path in model_dir.iterdir()}
    # A list is kept of folders that have not changed in the last seconds.
    assert written - {"data_lists"} == {"check.json", "check_views.png", "check_duplicates.png", "data_report.json"}
    with Image.open(model_dir / "check_views.png") as picture:
        assert min(picture.size) > 500
    statistics = json.loads((model_dir / "check.json").read_text())["images"]
    assert statistics["train"]["classes"] == {"even": 11, "odd": 10}
    assert statistics["train"]["formats"] == {"PNG": 20, "JPEG": 1}
    assert statistics["test"]["images"] == 9


def test_a_failure_decides_on_the_exit_status(monkeypatch, tmp_path):
    findings = [Finding("fail", "batch size", "Too large.")]
    monkeypatch.setattr(run, "check", lambda *arguments: (findings, tmp_path))
    report, status = run.look(make_config(tmp_path, tmp_path))
    assert status == 1 and report.startswith("fail  batch size: Too large.")


def test_near_duplicates_are_to_be_looked_at(tmp_path, monkeypatch):
    """A few relative paths in the terminal, all in the findings, and the pictures side by side."""
    parts = {}
    for part, qualities in (("train", {"a/0": 95, "a/2": 80, "b/1": 90, "b/3": 70}), ("test", {"a/4": 60})):
        files = [encode(photo(3, (90, 60)), "JPEG", quality=quality) for quality in qualities.values()]
        images = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
        labels = np.array(["ab".index(name[0]) for name in qualities])
        paths = tuple(f"{tmp_path / part / name}.jpg" for name in qualities)
        parts[part] = survey.survey(sources.ArraySource(images, labels, ("a", "b"), paths))
    drawn = []
    monkeypatch.setattr(
        check_duplicates, "write_groups", lambda *arguments: drawn.append(arguments) or sheet.write_groups(*arguments)
    )
    findings = list(check_duplicates.examine(parts, tmp_path / "pairs.png"))
    topics = {one.topic: one for one in findings}
    assert set(topics) == {"near duplicates", "leak", "label conflict"}
    for one in findings:
        assert f"Look at these, side by side in {tmp_path / 'pairs.png'}" in one.advice
    (group,) = topics["leak"].details
    assert len(group) == 5 and group[0] == f"{tmp_path / 'train/a/0.jpg'} (a)"
    text = describe(findings, str(tmp_path))
    assert "train/a/0.jpg (a) = train/a/2.jpg (a) = train/b/1.jpg (b) = 2 more" in text
    assert f"{tmp_path}/train" not in text
    ((groups, most, path),) = drawn
    assert most == 3 and path == tmp_path / "pairs.png"
    (row,) = groups  # once, although it is a leak and a conflict too
    assert [caption.rsplit("\n", 1)[1] for _, caption, _ in row] == [
        "train a, 90x60",
        "train b, 90x60",
        "test a, 90x60",
    ]
    shown = np.asarray(photo(3, (90, 60)).resize((160, 160), Image.Resampling.BOX), float)
    assert all(np.abs(image - shown).mean() < 12 for image, _, _ in row)
    with Image.open(path) as picture:
        assert min(picture.size) > 200


@pytest.mark.usefixtures("quick_decoder")
def test_names_of_any_bytes_are_checked_shown_and_noted(tmp_path, photos):
    """Names that are no UTF-8: what a check prints and draws, and what a run notes of its images."""
    for index, image in enumerate(photos[:4]):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9$%d_$.png" % (index % 3))  # No mathematics.
        os.makedirs(f"{path}s", exist_ok=True)
        pathlib.Path(f"{path}s/{index}.png").write_bytes(tf.io.encode_png(image[: 20 + index % 3]).numpy())
    source = sources.from_folder(tmp_path, max_cached_bytes=0)
    found = survey.survey(source)
    assert sorted(found.names) == sorted(source.paths)
    samples = source.sample(2)
    assert [one.name for one in samples] == [source.paths[0], source.paths[-1]]
    findings = [Finding("warn", "duplicates", "Some.", "", [list(found.names)])]
    assert "caf\\udce9$0_$.pngs/0.png" in describe(findings).encode().decode()
    crops = Augmentation(16, branches=((RandomCrop(),),))  # which are traced quickly
    sheet.write_sheet(samples, crops, False, tmp_path / "sheet.png")
    for start_step in (0, 1):
        identity.check_same_images(builders.Sources(source, source, source), DataConfig(), tmp_path, start_step)


@pytest.mark.parametrize(("max_broken", "severity"), [(0.05, "warn"), (0.01, "fail")])
def test_broken_files_fail_when_they_would_stop_the_run(photos, max_broken, severity):
    found = survey.survey(sources.ArraySource(photos))
    report = {"files": 31, "skipped": [{"path": "a.jpg", "reason": "cut off"}]}
    topics = {one.topic: one for one in check_images.examine({"train": found, "test": found}, 32, report, max_broken)}
    assert topics["broken files"].severity == severity
    assert topics["broken files"].details == ["a.jpg: cut off"]


@pytest.mark.parametrize(
    ("changes", "severity", "topic"),
    [
        ({"optimizer.warmup_epochs": 20}, "fail", "settings"),
        ({"data.image_size": 1}, "fail", "settings"),
        ({"train.global_batch_size": 101}, "fail", "batch size"),
        ({"train.global_batch_size": 20}, "warn", "batch size"),
        ({"augmentation.blur_probability": 0.5}, "warn", "blur"),
        ({"train.epochs": 3}, "warn", "warm-up"),
        ({"train.epochs": 3, "augmentation.blur_probability": 0.5, "augmentation.operators": ()}, "warn", "warm-up"),
    ],
)
def test_what_settings_imply(changes, severity, topic, monkeypatch):
    monkeypatch.setattr(settings.memory, "estimate", lambda *arguments: memory.Memory(1, 1, 1))
    if topic != "settings":
        monkeypatch.setattr(settings.models, "initial_model", lambda *arguments: None)
    findings, _ = settings.examine(override(RunConfig(), SETTINGS | changes), 100, 2)
    found = {one.topic: one for one in findings}
    assert set(found) <= {topic, "length", "memory"}
    assert "memory" not in found or found["memory"].severity == "pass"
    assert found[topic].severity == severity and found[topic].advice


MUON = {"optimizer.name": "muon", "optimizer.base_learning_rate": 0.64, "train.epochs": 40}


@pytest.mark.parametrize(
    ("changes", "advised"),
    [
        ({"optimizer.weight_decay": 0.09}, "1."),
        ({"optimizer.weight_decay": 0.11}, None),
        ({"optimizer.weight_decay": 2.9}, None),
        ({"optimizer.weight_decay": 3.1}, "1."),
        ({"optimizer.learning_rate_scaling": "none"}, "0.016."),
        ({"optimizer.base_learning_rate": 0.0}, None),
        ({"optimizer.name": "adamw"}, None),
        ({"train.epochs": 3}, None),
        ({"train_mode": "supervised"}, None),
        ({"checkpoint": "runs/other"}, None),
    ],
)
def test_the_weight_decay_that_muon_is_advised_suits_the_run(changes, advised, monkeypatch):
    """1,001 steps of 4 images, at a rate of 0.64 * 4 / 256 = 0.01: a decay of 1 makes 10 of rate, decay and steps."""
    monkeypatch.setattr(settings.memory, "estimate", lambda *arguments: memory.Memory(1, 1, 1))
    monkeypatch.setattr(settings.models, "initial_model", lambda *arguments: None)
    config = override(RunConfig(), SETTINGS | MUON | changes)
    advice = [one.advice for one in settings.examine(config, 100, 2)[0] if one.topic == "weight decay"]
    assert advice == ([f"Use --weight_decay={advised}"] if advised else [])


def test_an_array_of_images_without_labels(photos, tmp_path):
    train, test = (survey.survey(sources.ArraySource(images)) for images in (photos[[0, 1, 2, 0]], photos[[3, 2]]))
    surveys, sheet_path = {"train": train, "test": test}, tmp_path / "check_duplicates.png"
    sheet_path.touch()  # by an earlier check
    findings = check_images.examine(surveys, 32, {"files": 0, "skipped": []}, 0.05)
    topics = {one.topic: one for one in [*findings, *check_duplicates.examine(surveys, sheet_path)]}
    assert not sheet_path.exists()
    assert set(topics) == {"images", "labels", "duplicates", "leak"}
    assert "--data_dir" not in topics["labels"].advice
    assert topics["duplicates"].details == [["0", "3"]]
    assert topics["leak"].details == [["2", "1"]]
    assert topics["images"].found.endswith("6 in memory.")


def test_classes_in_a_folder_of_their_own_are_pointed_out(photos):
    names = tuple(f"flowers/{'rose' if i % 2 else 'tulip'}/{i}.png" for i in range(16))
    found = survey.survey(sources.ArraySource(photos, names=names))
    topics = {one.topic: one for one in check_images.examine({"train": found}, 32, {"files": 16, "skipped": []}, 0.05)}
    assert "If the folders in flowers are the classes" in topics["labels"].advice
    assert found.formats == {".png": 16}
    mixed = survey.survey(sources.ArraySource(photos, names=(f"/elsewhere/{names[0]}", *names[1:])))
    topics = {one.topic: one for one in check_images.examine({"train": mixed}, 32, {"files": 16, "skipped": []}, 0.05)}
    assert "are the classes" not in topics["labels"].advice


def test_all_classes_are_counted_and_what_has_none_is_named(photos, tmp_path):
    labels = np.array([0, 1] * 6 + [-1] * 4)
    names = tuple(f"{'?' if label < 0 else ('2019', '2020')[label]}/{i}.png" for i, label in enumerate(labels))
    found = survey.survey(sources.ArraySource(photos[[*range(15), 0]], labels, ("2019", "2020"), names))
    report = {"files": 16, "skipped": [], "ignored": {".tif": 80, ".heic": 40}}
    findings = check_images.examine({"train": found}, 32, report, 0.05)
    findings += check_duplicates.examine({"train": found}, tmp_path / "sheet.png")
    said = {(one.severity, one.topic): one for one in findings}
    assert said["info", "classes"].found == "2 to train on: 2019 6, 2020 6."
    assert said["warn", "classes"].found.startswith("2019, 2020: dates, not classes")
    assert said["warn", "labels"].found == "4 of the 16 images to train on have no label."
    assert said["warn", "labels"].details == ["?/12.png", "?/13.png", "?/14.png", "?/15.png"]
    assert said["warn", "other files"].found.endswith(": .tif 80, .heic 40.")
    # An image without a class contradicts no other.
    assert said["warn", "duplicates"].details == [["2019/0.png (2019)", "?/15.png"]]
    assert ("warn", "label conflict") not in said


@pytest.mark.usefixtures("quick_decoder")
def test_records_are_read_once(tmp_path, monkeypatch):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for seed in [0, 1, 2, 0]:
            feature = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encode(photo(seed), "PNG")]))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    source = sources.open_images(str(tmp_path / "a.tfrecord"))
    reads = []
    monkeypatch.setattr(sources.TfrecordSource, "records", lambda self, read=source.records: reads.append(1) or read())
    found = survey.survey(source)
    exact, near, _ = survey.find_duplicates([found])
    assert [group.tolist() for group in exact] == [[0, 3]] and near == []
    (sums,) = source.inspect(lambda images: {"size": tf.reshape(tf.size(images), [1])}, only=np.array([1, 3]))
    assert [name[-1] for name in sums["name"]] == ["1", "3"]
    del reads[1:]
    assert found.names[3].endswith("a.tfrecord#record=3") and found.formats == {"PNG": 4}
    assert len(reads) == 1


@pytest.mark.parametrize("is_array", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_sheet_shows_the_views_of_the_run(tmp_path, photos, is_array):
    for index, image in enumerate(photos[:8]):
        write(tmp_path / f"{index}.png", encode(Image.fromarray(image), "PNG"))
    source = sources.open_images(tmp_path, max_cached_bytes=1 << 30 if is_array else 0)
    augmentation = Augmentation(16, seed=3)
    options = {"global_batch_size": 8, "seed": 3, "total_steps": 1, "augmentation": augmentation}
    (batch,) = train_dataset(source, **options)
    expected = np.stack(np.split(augmentation(batch["images"], batch["keys"]).numpy(), 2), axis=1)
    shown = source.sample(3)
    assert [one.number for one in shown] == [0, 3, 7] and [pathlib.Path(one.name).stem for one in shown] == list("037")
    for one in shown:
        np.testing.assert_array_equal(one.image, photos[one.number])
        (row,) = np.flatnonzero(batch["keys"].numpy()[:, 1] == one.number)
        np.testing.assert_allclose(sheet.make_views(one, augmentation, is_array), expected[row], atol=1e-6)


def test_memory_of_a_network_counted_by_hand():
    relu = keras.layers.ReLU()
    layers = [keras.layers.Conv2D(5, 3, padding="same", use_bias=False), relu, keras.layers.GlobalAveragePooling2D()]
    head = keras.layers.Dense(7, use_bias=False)
    model = SimCLR(keras.Sequential([keras.Input([8, 8, 3]), *layers]), head, image_size=8)
    model.compile(optimizer=keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    needed = memory.estimate(model, images_at_once=10)
    weights = 3 * 3 * 3 * 5 + 5 * 7
    metrics = sum(int(np.prod(variable.shape)) for metric in model.metrics for variable in metric.variables)
    assert needed.parameters == 4 * (2 * weights + metrics)
    assert abs(needed.optimizer - 4 * 2 * weights) < 50  # the step and the learning rate
    # The view, what the convolution and the ReLU make of it, the representation.
    assert needed.activations == 2 * 10 * 4 * (8 * 8 * 3 + 2 * 8 * 8 * 5 + 5)


def test_the_table_is_sorted_and_wrapped():
    findings = [
        Finding("info", "a", "A."),
        Finding("fail", "b", "B " * 100, "Do.", list("wxyz")),
        Finding("warn", "c", "C."),
    ]
    text = describe(by_severity(findings))
    assert [line[:4] for line in text.splitlines() if line[:4].strip()] == ["fail", "warn", "info", "1 fa"]
    assert "and 1 more" in text and "z" not in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.slow
def test_the_flowers(shared_dir, tmp_path):
    with tarfile.open(shared_dir / "data" / "flowers5_128.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.rglob("tulip")
    run.look(make_config(tmp_path / "run", folder.parent))
    topics = by_topic(tmp_path / "run")
    groups = topics["duplicates"][0]["details"] + topics["leak"][0]["details"]
    assert len({tuple(sorted(group)) for group in groups}) == 6 and all(len(group) == 2 for group in groups)
    assert len(topics["label conflict"][0]["details"]) == 4
