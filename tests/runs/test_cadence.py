"""When something is due that is done every so many steps."""

import pytest

from tf_simclr.runs.cadence import Cadence


@pytest.mark.parametrize(
    ("every", "total", "due"),
    [
        (4, 10, [4, 8, 10]),  # and after the last step
        (5, 10, [5, 10]),
        (1, 3, [1, 2, 3]),
        (20, 10, [10]),
    ],
)
def test_it_is_time_every_so_many_steps_and_after_the_last_one(every, total, due):
    cadence = Cadence(every, total)
    assert [step for step in range(1, total + 1) if cadence.due(step)] == due


def test_steps_that_share_a_call_are_due_where_the_call_ends():
    """`fit` names the last step of a call alone; the rules of the settings let calls end where something is due."""
    assert [step for step in (2, 4, 6, 8, 9) if Cadence(4, 9).due(step)] == [4, 8, 9]
