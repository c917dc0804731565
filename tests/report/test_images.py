"""The map as it goes into the page."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import run_folders
from run_folders import Folder

from tf_simclr.report.images import read_map, to_page


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    spec = Folder(num_images=40, num_classes=8, hostile=True)
    return read_map(run_folders.make(tmp_path_factory.mktemp("map"), spec) / "features" / "map.parquet")


def test_the_page_has_what_the_file_has(hostile):
    text = to_page(hostile)
    assert "<" not in text  # no name can end the element
    content = json.loads(text)
    assert content["names"] == hostile.names
    assert content["neighbors"] == [list(row) for row in hostile.neighbors]
    np.testing.assert_allclose(content["distances"], hostile.distances, atol=5e-4)
    assert content["sprite"] == {"size": 48, "columns": 45}
    for column, values in (("class", hostile.labels), ("predicted", hostile.predicted)):
        found = content["columns"][column]
        assert [found["names"][code] for code in found["values"]] == values
    assert {"<script>alert(1)</script>", "\u202eevil"} & set(content["columns"]["class"]["names"])


@pytest.mark.parametrize("layout", ["t-SNE", "PCA"])
def test_a_layout_keeps_its_shape(hostile, layout):
    placed = np.stack([json.loads(to_page(hostile))["layouts"][layout][axis] for axis in "xy"], axis=1)
    assert placed.min() == 0 and placed.max() == 4095
    points = hostile.layouts[layout].astype(np.float64)
    scale = 4095 / np.ptp(points, axis=0).max()
    distances = [np.linalg.norm(every[:, None] - every, axis=-1) for every in (points * scale, placed)]
    np.testing.assert_allclose(*distances, atol=1.5)


def test_values_that_are_no_numbers_and_equal_points_have_a_place(hostile):
    for points in (np.full([40, 2], np.nan), np.ones([40, 2])):
        content = json.loads(to_page(dataclasses.replace(hostile, layouts={"PCA": points})))
        assert set(content["layouts"]["PCA"]["x"]) <= set(range(4096))


def test_without_labels_there_is_no_column_of_classes(hostile):
    nothing = [None] * len(hostile)
    columns = json.loads(to_page(dataclasses.replace(hostile, labels=nothing, predicted=nothing)))["columns"]
    assert set(columns) == {"cluster"}


def test_clusters_are_in_the_order_of_their_numbers(hostile):
    clusters = dataclasses.replace(hostile, clusters=np.arange(40) % 12)
    names = json.loads(to_page(clusters))["columns"]["cluster"]["names"]
    assert names == [f"cluster {number}" for number in range(12)]


def test_a_sprite_outside_of_the_folder_is_not_read(tmp_path):
    folder = run_folders.make(tmp_path / "run") / "features"
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder / "thumbnails.jpg").unlink()
    table = pq.read_table(folder / "map.parquet")
    about = json.loads(table.schema.metadata[b"map"])
    about["sprite"]["file"] = "../../secret.jpg"
    pq.write_table(table.replace_schema_metadata({b"map": json.dumps(about)}), folder / "map.parquet")
    assert read_map(folder / "map.parquet").sprite is None
