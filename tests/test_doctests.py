"""The examples in the docstrings of the pure functions."""

import doctest

import pytest

from tf_simclr import schedules
from tf_simclr.losses import dcl, nt_xent, pairs
from tf_simclr.metrics import classification


@pytest.mark.parametrize("module", [dcl, nt_xent, pairs, classification, schedules], ids=lambda module: module.__name__)
def test_examples_are_right(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
