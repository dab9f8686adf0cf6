"""Questions to the nodes of a cluster over kafka-python's connections, asked again while that can help.

Steps are coroutines, and nothing runs between two calls of `Nodes.run`: the caller's thread drives the connections
while it waits. What is worth asking again is, while there is time: where an answer was lost, a leader or coordinator
moved, a broker has something else to finish first. Whoever asks makes sure that a question may be asked twice.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from kafka.errors import (
    CoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaTimeoutError,
    NotCoordinatorError,
    OperationNotAttemptedError,
    RequestTimedOutError,
    RetriableError,
    for_code,
)
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest

from daemon.errors import BrokerUnavailable

#: Between two attempts, doubled up to the bound. Often what is waited for is that the markers of the transaction before
#: are written: 1-2 ms when small batches follow each other.
PAUSE_SECONDS = (0.001, 0.1)
#: Another node may be the coordinator now.
COORDINATOR_MOVED = (KafkaConnectionError, NotCoordinatorError, CoordinatorNotAvailableError, RequestTimedOutError)

Answer = TypeVar("Answer")
Step = Coroutine[Any, Any, Answer]


class Patience:
    """How long something may be tried."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """True once its time is up."""
        return time.monotonic() >= self._until

    def end(self) -> None:
        """Have it run out now."""
        self._until = 0.0


class Nodes:
    """The nodes of a cluster, after the bootstrap.

    Raises
    ------
    KafkaTimeoutError : no broker answered within `bootstrap_timeout_ms`
    """

    def __init__(self, client: KafkaNetClient, bootstrap_timeout_ms: float) -> None:
        self._client = client
        self._manager = client._manager
        self._net = client._net
        self.cluster = client.cluster
        self.cluster.config["allow_auto_create_topics"] = False
        self._manager.bootstrap(bootstrap_timeout_ms)
        self._coordinators: dict[CoordinatorType, str] = {}

    def run(self, work: Callable[[Patience], Step[None]], seconds: float) -> None:
        """Drive the connections until the work is done or the time is up; nothing of it is tried again after that.

        Raises
        ------
        BrokerUnavailable : the time is up
        KafkaError : what the work raised
        """
        patience = Patience(seconds)
        try:
            done = self.start(work(patience))
            self._net.poll(timeout_ms=seconds * 1000, future=done)
            if not done.is_done:
                raise BrokerUnavailable(f"no answer within {seconds:.1f} s")
            if done.exception is not None:
                raise done.exception
        finally:
            patience.end()

    def close(self) -> None:
        """Close the connections; sends nothing."""
        self._client.close()

    async def ask(self, node: int | str, request: Any, patience: Patience) -> Any:
        """Ask a node; without time nothing is asked: what was given up must not go on when its broker is back."""
        if patience.over:
            raise KafkaTimeoutError("no time is left")
        await self._manager.get_connection(node)
        return await self._manager.send(request, node)

    async def ask_coordinator(
        self,
        kind: CoordinatorType,
        key: str,
        request: Callable[[], Any],
        codes: Callable[[Any], Sequence[int]],
        patience: Patience,
    ) -> Any:
        """Ask a coordinator until it has done what it was asked for, and return its answer.

        Parameters
        ----------
        key : the group or the transactional id, always the same one of each kind
        codes : returns the error codes in an answer
        """

        async def ask() -> Any:
            try:
                answer = await self.ask(await self._coordinator(kind, key, patience), request(), patience)
                _check(codes(answer))
            except COORDINATOR_MOVED:
                self._coordinators.pop(kind, None)
                raise
            return answer

        return await self.persistently(ask, patience)

    async def refresh(self, patience: Patience) -> None:
        """Ask for the metadata of the cluster."""

        async def ask() -> None:
            node = self._manager.least_loaded_node()
            await self._manager.get_connection(node)
            await self.cluster.refresh_metadata(node)

        await self.persistently(ask, patience)

    async def persistently(self, attempt: Callable[[], Awaitable[Answer]], patience: Patience) -> Answer:
        """Return what an attempt returns; where it can be tried again it is, while there is time."""
        pause, longest = PAUSE_SECONDS
        while True:
            try:
                return await attempt()
            except RetriableError:
                if patience.over:
                    raise
            await self._net.sleep(pause)
            pause = min(2 * pause, longest)

    async def together(self, *steps: Step[None]) -> None:
        """Take steps at the same time, and wait for all of them: none may go on after another has failed."""
        failures = []
        for done in [self.start(step) for step in steps]:
            try:
                await done
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def start(self, step: Step[Any]) -> Future:
        """Begin a step beside others; kafka-python's `call_soon_with_future` wakes a thread up that we do not have."""
        done = Future()

        async def take() -> None:
            try:
                done.success(await step)
            except BaseException as error:  # handed to who waits for it, whatever it is
                done.failure(error)

        self._net.call_soon(take)
        return done

    async def _coordinator(self, kind: CoordinatorType, key: str, patience: Patience) -> str:
        """Return the node of a coordinator, which has a connection of its own."""
        if kind not in self._coordinators:
            request = FindCoordinatorRequest(key=key, key_type=kind.value, coordinator_keys=[key])
            answer = await self.ask(self._manager.least_loaded_node(), request, patience)
            found = answer.coordinators[0] if answer.coordinators else answer
            _check(own_code(found))
            self._coordinators[kind] = self.cluster.add_coordinator(found, kind, key)
        return self._coordinators[kind]


def own_code(answer: Any) -> Sequence[int]:
    """Return the error code of an answer that has one of its own."""
    return (answer.error_code,)


def _check(codes: Iterable[int]) -> None:
    """Raise the first error; that a step was not tried only says that another failed."""
    failed = [for_code(code) for code in codes if code]
    if failed:
        raise next((error for error in failed if error is not OperationNotAttemptedError), failed[0])
