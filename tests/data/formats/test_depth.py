"""16-bit PNG files whose values take few bits."""

import numpy as np
import zoo

from tf_simclr.data import sources


def test_sixteen_bit_images_that_look_black_are_named_with_their_scale(tmp_path, caplog):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8, 1) * 65
    for name, bits, factor, is_dark in (("a", None, 1, True), ("b", 12, 1, False), ("c", None, 16, False)):
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}.png").write_bytes(zoo.deep_png(values * factor, bits))
        caplog.clear()
        assert sources.from_folder(tmp_path / name).images.max() == (4095 >> 8 if is_dark else 255)
        assert ("reach 4,095 of 65,535 (12 bits): multiply the values by 16" in caplog.text) == is_dark
