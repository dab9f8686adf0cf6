"""Our errors for what a client reports: the failure, and after it what the operator can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from daemon.errors import AccessDenied, BrokerUnavailable, Fenced, TickcastError, TopicError

REMEDIES: Mapping[type[TickcastError], str] = {
    Fenced: "another process runs with our [kafka] instance_id, give each its own",
    AccessDenied: "grant the right, `tickcast topics check` lists those needed",
    TopicError: "see `tickcast topics check`",
    BrokerUnavailable: "is the broker well?",
}

Ours = TypeVar("Ours", bound=TickcastError)


def remedied(ours: type[Ours], what: str) -> Ours:
    """Return an error of this class that says what happened, and the usual remedy."""
    return ours(f"{what}; {REMEDIES[ours]}")


def missing(topic: str) -> TopicError:
    """Return the error for a topic that does not exist."""
    return TopicError(f"the topic {topic} does not exist; `tickcast topics create` makes it")
