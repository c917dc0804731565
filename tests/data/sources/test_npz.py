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
    with pytest.raises(ValueError, match="no array `images`"):
        sources.open_images(path)
