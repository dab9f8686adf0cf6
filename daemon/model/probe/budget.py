"""Time for tests, shared out among them."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]


class Budget:
    """Seconds that can be shared out: what one part leaves over is there for the parts after it."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds, never below 0."""
        return max(0.0, self._end - self.clock())

    @property
    def spent(self) -> bool:
        return self.left <= 0

    def share(self, part: float) -> Budget:
        """Return the budget of the next part, as a share of what is left."""
        return Budget(self.left * part, self.clock)
