"""When to act during a run: every so many steps."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Every so many steps, and after the last one.

    >>> [step for step in range(1, 12) if Cadence(every=4, total=10).due(step)]
    [4, 8, 10]

    Attributes:
      every: Steps from one action to the next, > 0.
      total: Steps of the run.
    """

    every: int
    total: int

    def due(self, step: int) -> bool:
        """Whether to act after `step` steps, counted from the start of the run."""
        return step % self.every == 0 or step == self.total
