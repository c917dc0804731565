"""When something is done that is done every so many steps of a run."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Every so many steps, and after the last one.

    >>> [step for step in range(1, 12) if Cadence(every=4, total=10).due(step)]
    [4, 8, 10]

    Attributes:
      every: Steps from one time to the next, > 0.
      total: Steps of the run.
    """

    every: int
    total: int

    def due(self, step: int) -> bool:
        """Whether it is time after `step` steps, counted from the start of the run."""
        return step % self.every == 0 or step == self.total
