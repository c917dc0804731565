"""The sheet of thumbnails."""

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.data import sources
from tf_simclr.evaluation import thumbnails

COLORS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 20], [20, 240, 240]], np.uint8)


def test_thumbnails_stand_in_the_order_of_the_images_and_show_their_centres(tmp_path):
    images = np.zeros([5, 30, 60, 3], np.uint8)
    images[:, :, 15:45] = COLORS[:, None, None]  # The central square; black beside it.
    chosen = np.array([0, 1, 3, 4])
    thumbnails.write(sources.ArraySource(images), chosen, tmp_path / "sheet.jpg")
    sheet = tf.io.decode_jpeg((tmp_path / "sheet.jpg").read_bytes()).numpy()
    size = thumbnails.SIZE_PX
    assert sheet.shape == (2 * size, 2 * size, 3) and thumbnails.columns_of(4) == 2
    for number, image in enumerate(chosen):
        row, column = divmod(number, 2)
        tile = sheet[row * size : (row + 1) * size, column * size : (column + 1) * size].astype(int)
        inner = tile[2:-2, 2:-2]  # JPEG bleeds over the edges.
        assert np.abs(inner - COLORS[image]).max() <= 12


@pytest.mark.usefixtures("quick_decoder")
def test_an_image_that_is_gone_leaves_grey(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, color in zip(paths, COLORS, strict=False):
        path.write_bytes(tf.io.encode_png(np.broadcast_to(color, [60, 60, 3])).numpy())
    source = sources.FileSource(str(tmp_path), tuple(path.name for path in paths))
    paths[1].unlink()
    thumbnails.write(source, np.arange(3), tmp_path / "sheet.jpg")
    sheet = tf.io.decode_jpeg((tmp_path / "sheet.jpg").read_bytes()).numpy().astype(int)
    size = thumbnails.SIZE_PX
    middles = [sheet[row * size + size // 2, column * size + size // 2] for row in range(2) for column in range(2)]
    expected = [COLORS[0], [128] * 3, COLORS[2], [128] * 3]
    assert np.abs(np.array(middles) - np.array(expected, int)).max() <= 12
