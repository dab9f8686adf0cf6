"""A thread of its own for calls that may never return.

kafka-python's `send_offsets_to_transaction`, `commit_transaction` and `abort_transaction` take no timeout and wait for
ever while the broker is away. A lane makes such a call and the caller waits a bounded time. What still hangs then is
abandoned together with the lane: Python cannot stop a thread, but a daemon thread holds nobody up at exit. The hop to
the thread and back costs 30-50 us.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from daemon.errors import BrokerUnavailable

Result = TypeVar("Result")


class Lane:
    """Make one call at a time on a thread of our own.

    After a call that did not return in time the lane is `blocked` for good, and so are the objects it was called on.
    """

    def __init__(self, name: str) -> None:
        self.blocked = False
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"tickcast-{name}", daemon=True).start()

    def call(self, function: Callable[[], Result], timeout_seconds: float) -> Result:
        """Return what `function` returns, or raise what it raises.

        Raises
        ------
        BrokerUnavailable : it did not return within `timeout_seconds`
        """
        assert not self.blocked, "a blocked lane is used again"
        outcomes: queue.SimpleQueue[tuple[Result, None] | tuple[None, BaseException]] = queue.SimpleQueue()

        def make() -> None:
            try:
                outcomes.put((function(), None))
            except BaseException as error:  # handed to the caller, whatever it is
                outcomes.put((None, error))

        self._calls.put(make)
        try:
            result, error = outcomes.get(timeout=max(0.0, timeout_seconds))
        except queue.Empty:
            self.blocked = True
            raise BrokerUnavailable(f"no answer within {timeout_seconds:.1f} s") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def close(self) -> None:
        """Let the thread end once its last call has returned."""
        self._calls.put(None)

    def _run(self) -> None:
        while (make := self._calls.get()) is not None:
            make()
