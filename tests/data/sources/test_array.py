"""Decoded images in memory as a source."""

import numpy as np
import pytest

from tf_simclr.data import sources


def test_holdout_of_an_array(photos):
    rest, held_out = sources.holdout(sources.ArraySource(photos, np.arange(16)), 0.01)
    assert (rest.num_examples, held_out.num_examples) == (15, 1)
    np.testing.assert_array_equal(held_out.images[0], photos[held_out.labels[0]])
    with pytest.raises(ValueError, match="between 0 and 1"):
        sources.holdout(rest, 1.0)


def test_arrays_are_checked(photos):
    with pytest.raises(ValueError, match="uint8.*Received: float64"):
        sources.ArraySource(photos / 255.0)
    with pytest.raises(ValueError, match=r"int64 of shape \[16\].*\[15\]"):
        sources.ArraySource(photos, np.arange(15))
