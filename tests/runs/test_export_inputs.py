"""What a run keeps of its images for its export."""

import os

import numpy as np
import pytest

from tf_simclr import builders
from tf_simclr.data import sources
from tf_simclr.runs import export_inputs
from tf_simclr.settings import RunConfig, override


def test_what_is_kept_comes_back_whatever_classes_are_called(photos, tmp_path):
    names = ("caf" + os.fsdecode(b"\xe9"), "é\n", "c")
    train = sources.ArraySource(photos, np.arange(16) % 3, names)
    test = sources.ArraySource(photos[:3])
    config = override(RunConfig(), {"data.image_size": 32})
    kept = export_inputs.of_sources(config, builders.Sources(train, train, test))
    export_inputs.keep(kept, tmp_path)
    found = export_inputs.load(tmp_path)
    np.testing.assert_array_equal(found.images, photos[:3])
    assert found.images.dtype == np.uint8
    assert found[1:] == (16, 3, names)
    export_inputs.keep(kept._replace(num_classes=None, class_names=None), tmp_path)
    assert export_inputs.load(tmp_path)[1:] == (16, None, None)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off"])
def test_a_run_of_an_earlier_version_or_a_damaged_file_keeps_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / export_inputs.FILE).write_bytes(content)
    assert export_inputs.load(tmp_path) is None
