"""The examples in the docstrings of the pure functions."""

import doctest

import pytest

from tf_simclr import schedules
from tf_simclr.data.files import names
from tf_simclr.data.sources import subsets
from tf_simclr.losses import dcl, nt_xent, pairs
from tf_simclr.metrics import classification


@pytest.mark.parametrize(
    "module", [dcl, nt_xent, pairs, classification, schedules, names, subsets], ids=lambda module: module.__name__
)
def test_examples_are_right(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
