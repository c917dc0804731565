"""Folders of runs as a run leaves them, made without one: for tests of what reads them."""

import dataclasses
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.spatial import cKDTree

from tf_simclr.metrics.confusion import confusion_matrix
from tf_simclr.settings import RunConfig, override, to_dict

SIZE_PX, COLUMNS = 48, 45
HOSTILE_CLASSES = (
    "<script>alert(1)</script>", "a\tb\nc", "\u202eevil", 'say "hi" & \'bye\'', "caf\\xe9", "</style><img src=x>",
    "{{ 7 * 7 }}", "x" * 300,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Folder:
    """What `make` is to write: everything, unless a field says otherwise."""

    num_images: int = 60
    num_classes: int = 6
    hostile: bool = False  # names of classes, files and the run itself
    labels: bool = True
    evaluated: bool = True  # False: it trains still
    killed: bool = False  # half a line at the ends of metrics.jsonl and health.jsonl
    older: bool = False  # no health, map, speed or views, and a config.json of version 1
    collapsed: bool = False  # by its health
    seed: int = 0

    @property
    def class_names(self) -> list[str]:
        plain = [f"class {number}" for number in range(self.num_classes)]
        return [*HOSTILE_CLASSES, *plain][: self.num_classes] if self.hostile else plain


def make(place: pathlib.Path, spec: Folder = Folder()) -> pathlib.Path:
    """Writes the folder of a run and returns it."""
    (place / "features").mkdir(parents=True, exist_ok=True)
    name = "<b>run</b>" if spec.hostile else place.name
    config = override(
        RunConfig(),
        {"name": name, "mode": "train_then_eval", "model_dir": str(place), "data.dataset": "folder", "seed": spec.seed,
         "data.data_dir": "/photos/<i>mine</i>" if spec.hostile else "/photos", "data.image_size": 32,
         "train.epochs": 20, "model.resnet_depth": 18, "eval.baselines": True},
    )  # fmt: skip
    values = to_dict(config)
    _write_json(place / "config.json", {"model": {"resnet_depth": 18}} if spec.older else values)
    command = ["run.py", "--mode=train_then_eval", f"--data_dir={config.data.data_dir}", f"--model_dir={place}"]
    _write_json(
        place / "run.json",
        {"command": command, "seed": spec.seed, "python": "3.11.7", "tensorflow": "2.21.0", "keras": "2.21.0",
         "devices": ["/device:CPU:0"], "machine": "Linux-6.1-x86_64", "cpus": 2},
    )  # fmt: skip
    _write_lines(place / "metrics.jsonl", _metrics(spec), spec.killed)
    if spec.older:
        _write_json(place / "result.json", {"global_step": 400, "eval/label_top_1_accuracy": 0.5})
        return place
    _write_lines(place / "speed.jsonl", [{"step": s, "epoch": s / 20, "images_per_second": 200 + s / 10,
                                          "data_wait_share": 0.01} for s in range(20, 401, 20)])  # fmt: skip
    _write_lines(place / "health.jsonl", _health(spec), spec.killed)
    _write_json(place / "check.json", _check(spec))
    _write_json(place / "images.json", {"train": {"images": 5000}})
    names = {"class_names": np.array(spec.class_names), "num_classes": spec.num_classes} if spec.labels else {}
    np.savez(place / "export_inputs.npz", images=np.zeros([1, 32, 32, 3], np.uint8), num_examples=5000, **names)
    Image.fromarray(_random(spec).integers(0, 255, (80, 240, 3), np.uint8)).save(place / "views.png")
    if spec.evaluated:
        _evaluation(place, spec)
    return place


def _random(spec: Folder) -> np.random.Generator:
    return np.random.default_rng(spec.seed)


def _write_json(path: pathlib.Path, values: object) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def _write_table(path: pathlib.Path, table: pa.Table) -> None:
    with path.open("wb") as file:  # pyarrow takes no path that is not UTF-8.
        pq.write_table(table, file)


def _write_lines(path: pathlib.Path, lines: list[dict], killed: bool = False) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text[:-20] if killed else text, encoding="utf-8")


def _metrics(spec: Folder) -> list[dict]:
    steps = np.arange(10, 201 if spec.killed or not spec.evaluated else 401, 10)
    noise = 0.02 * _random(spec).normal(size=len(steps))
    learnt = 1 - np.exp(-steps / 150) + noise
    return [
        {"step": int(step), "epoch": step / 20, "loss": 5.5 - 3 * share, "contrastive_top_1_accuracy": 0.8 * share,
         "contrastive_entropy": 5 - 2 * share, "learning_rate": 0.3 * min(1, step / 100), "gradient_norm": 2 + share}
        for step, share in zip(steps, learnt, strict=True)
    ]  # fmt: skip


def _health(spec: Folder) -> list[dict]:
    bins = np.linspace(-0.975, 0.975, 40)
    lines = []
    for epoch in range(1, 11 if spec.killed or not spec.evaluated else 21):
        share = 1 - np.exp(-epoch / 6)
        histograms = {
            f"{kind}_similarity_histogram": np.rint(500 * np.exp(-(((bins - mean) / 0.25) ** 2))).astype(int).tolist()
            for kind, mean in (("positive", 0.2 + 0.6 * share), ("negative", 0.1 - 0.1 * share))
        }
        lines.append(
            {"step": 20 * epoch, "epoch": float(epoch), "num_images": 512, "seconds": 0.4,
             "alignment": 0.9 - 0.5 * share, "uniformity": -1 - 2 * share,
             "representation_effective_rank": 20 + 100 * share, "projection_effective_rank": 10 + 40 * share,
             "representation_rankme": 25 + 100 * share, "projection_rankme": 12 + 40 * share,
             "representation_std": 0.3 + 0.1 * share, "projection_std": 0.08,
             "representation_dead_dimensions": 3, "projection_dead_dimensions": 0,
             "representation_dimensions": 512, "projection_dimensions": 128,
             "positive_similarity": 0.2 + 0.6 * share,
             "negative_similarity": 0.99 if spec.collapsed else 0.1 - 0.1 * share, **histograms}
            | ({"knn_top_1_accuracy": 0.3 + 0.5 * share} if spec.labels and epoch % 5 == 0 else {})
        )  # fmt: skip
    return lines


def _check(spec: Folder) -> dict:
    twins = [["/photos/<u>one</u>.png", "/photos/two.png"]] if spec.hostile else [["/photos/1.png", "/photos/2.png"]]
    return {
        "findings": [
            {"severity": "warn", "topic": "duplicates", "found": "1 image is a copy of another.",
             "advice": "Remove one of them.", "details": twins},
            {"severity": "pass", "topic": "disk", "found": "There is room for the run.", "advice": "", "details": []},
        ],
        "images": {},
    }  # fmt: skip


def _evaluation(place: pathlib.Path, spec: Folder) -> None:
    """The map, and what takes labels: result, confusions and predictions."""
    random = _random(spec)
    classes = random.integers(0, spec.num_classes, spec.num_images)
    predicted = np.where(random.random(spec.num_images) < 0.85, classes, (classes + 1) % spec.num_classes)
    _write_map(place / "features", spec, random, classes, predicted)
    if not spec.labels:
        _write_json(place / "result.json", {"global_step": 400})
        return
    _write_json(place / "result.json", _result(spec, classes, predicted))
    matrix = confusion_matrix(classes, predicted, spec.num_classes).toarray()
    np.savez_compressed(place / "features" / "confusion.npz", knn=matrix, linear=matrix)
    untrained = random.integers(0, spec.num_classes, spec.num_images)
    _write_table(
        place / "features" / "predictions.parquet",
        pa.table(
            {"protocol": np.repeat(["eval/linear", "eval_untrained/linear"], spec.num_images),
             "example": _paths(spec) * 2, "label": np.tile(classes, 2),
             "predicted": np.concatenate([predicted, untrained]),
             "score": np.full(2 * spec.num_images, 0.9, np.float32)}
        ).replace_schema_metadata({b"images": json.dumps({"images": spec.num_images})}),
    )  # fmt: skip


def _paths(spec: Folder) -> list[str]:
    odd = ["<img src=x onerror=alert(1)>.png", "\u202egnp.exe", "a\"b'c.png", "tab\there.png", "caf\\xe9.png"]
    names = [f"/photos/{number:05d}.png" for number in range(spec.num_images)]
    return ([f"/photos/{name}" for name in odd] * spec.hostile + names)[: spec.num_images]


def _write_map(place: pathlib.Path, spec: Folder, random: np.random.Generator, classes, predicted) -> None:
    centres = random.normal(size=(spec.num_classes, 8))
    vectors = centres[classes] + 0.5 * random.normal(size=(spec.num_images, 8))
    # Two labels are wrong, so that the neighbours agree on another one.
    vectors[:2] = centres[(classes[:2] + 1) % spec.num_classes] + 0.05 * random.normal(size=(2, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    count = min(10, spec.num_images - 1)
    distances, ids = cKDTree(vectors).query(vectors, range(2, count + 2))
    names = spec.class_names
    hidden = not spec.labels
    sprite = {"file": "thumbnails.jpg", "size_px": SIZE_PX, "columns": COLUMNS}
    table = pa.table(
        {
            "path": _paths(spec),
            "label": pa.array([None if hidden else names[one] for one in classes], pa.string()),
            "predicted": pa.array([None if hidden else names[one] for one in predicted], pa.string()),
            "x": pa.array(10 * vectors[:, 0] + 3 * vectors[:, 2], pa.float32()),
            "y": pa.array(10 * vectors[:, 1] + 3 * vectors[:, 3], pa.float32()),
            "pca_x": pa.array(vectors[:, 0], pa.float32()),
            "pca_y": pa.array(vectors[:, 1], pa.float32()),
            "cluster": pa.array(np.argmax(vectors @ centres.T, axis=1), pa.int32()),
            "neighbors": pa.StructArray.from_arrays(
                [pa.array(list(ids), pa.list_(pa.int32())), pa.array(list(distances**2 / 2), pa.list_(pa.float32()))],
                ["ids", "distances"],
            ),
            "part": ["test"] * spec.num_images,
        }
    )
    about = {"step": 400, "sprite": sprite, "images": 10 * spec.num_images}
    _write_table(place / "map.parquet", table.replace_schema_metadata({b"map": json.dumps(about)}))
    _write_sprite(place / "thumbnails.jpg", classes, spec.num_classes)


def _write_sprite(path: pathlib.Path, classes: np.ndarray, num_classes: int) -> None:
    """A disc of the class's colour for every image, on a gray that tells the images apart."""
    rows = -(-len(classes) // COLUMNS)
    sheet = np.full((rows, SIZE_PX, COLUMNS, SIZE_PX, 3), 255, np.uint8)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - SIZE_PX / 2
    for number, one in enumerate(classes):
        colour = [int(127 + 127 * np.cos(2 * np.pi * (one / num_classes + third / 3))) for third in range(3)]
        disc = (x**2 + y**2 < (SIZE_PX / 3) ** 2)[..., None]
        row, column = divmod(number, COLUMNS)
        sheet[row, :, column] = np.where(disc, colour, 60 + number % 160)
    Image.fromarray(sheet.reshape(rows * SIZE_PX, COLUMNS * SIZE_PX, 3)).save(path, quality=85)


def _result(spec: Folder, classes: np.ndarray, predicted: np.ndarray) -> dict:
    accuracy = float(np.mean(classes == predicted))
    result: dict = {"global_step": 400, "eval/num_test_images": spec.num_images}
    values = {"eval": accuracy, "eval_untrained": 0.25, "eval_raw_pixels": 0.2}
    for encoder, value in values.items():
        for protocol, less in (("knn", 0.02), ("linear", 0.0)):
            place = f"{encoder}/{protocol}_top_1_"
            for end, offset in (("", 0.0), ("_low", -0.03), ("_high", 0.03)):
                result[f"{place}accuracy{end}"] = value - less + offset
                if encoder != "eval":
                    result[f"{place}difference{end}"] = accuracy - value + 2 * offset
    titles = {"eval": "this encoder", "eval_untrained": "the untrained encoder", "eval_raw_pixels": "raw pixels"}
    first, second = spec.class_names[:2]
    return result | {
        "protocols": {"knn": {"title": "kNN (k=20)", "k": 20, "chosen": {}},
                      "linear": {"title": "linear", "chosen": {}}},
        "encoders": {name: {"title": title, "image_size": 32} for name, title in titles.items()},
        "confusions": {
            "protocol": "linear", "most_frequent": [{"label": first, "predicted": second, "count": 3}],
        } if spec.num_classes > 2 else {},
        "label_efficiency": [
            {"series": series, "title": title, "fraction": fraction, "labels": int(1000 * fraction),
             "mean": top * slope, "low": top * slope - 0.02, "high": top * slope + 0.02, "draws": 5}
            for series, title, top in (
                ("eval/linear", "this encoder, linear", 0.9),
                ("eval_untrained/linear", "the untrained encoder, linear", 0.4),
            )
            for fraction, slope in ((0.01, 0.6), (0.1, 0.8), (1.0, 1.0))
        ],
    }  # fmt: skip
