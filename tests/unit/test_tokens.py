"""Tokens from an endpoint: asked for once, renewed in time, and the secret goes nowhere else."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.config import KafkaSettings, SecuritySettings
from daemon.errors import AccessDenied, BrokerUnavailable
from daemon.transport.connection import Connection
from daemon.transport.kafka_client import connect
from daemon.transport.oauth import TokenEndpoint
from tests.token_endpoint import Answer, Endpoint, token

SECRET = "client-canary-0099"


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    made = Endpoint(tmp_path)
    yield made
    made.close()


def provider(endpoint: Endpoint, url: str | None = None) -> TokenEndpoint:
    return TokenEndpoint(
        url or endpoint.url, "tick cast", lambda: SECRET, "kafka", str(endpoint.ca_file), {"logicalCluster": "lkc-1"}
    )


def test_the_client_is_named_as_the_standard_wants_and_asks_once(endpoint: Endpoint) -> None:
    tokens = provider(endpoint)
    tokens.prepare()
    tokens.prepare()
    assert [tokens.token(), tokens.token()] == ["token-1", "token-1"]
    assert tokens.extensions() == {"logicalCluster": "lkc-1"}
    login = base64.b64encode(f"tick%20cast:{SECRET}".encode()).decode()
    assert endpoint.asked == [("/token", f"Basic {login}", "grant_type=client_credentials&scope=kafka")]


def test_a_token_is_renewed_before_it_ends_and_nobody_waits(endpoint: Endpoint) -> None:
    endpoint.answer = lambda: token(f"token-{len(endpoint.asked)}", 2)
    tokens = provider(endpoint)
    tokens.prepare()
    deadline = time.monotonic() + 60
    while tokens.token() == "token-1":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_endpoint_that_goes_away_is_asked_again_and_an_old_token_is_not_used(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.transport.oauth.RETRY_SECONDS", 0.05)
    answers = iter([token("old", 0.5), *[(503, {}, b"")] * 8])
    endpoint.answer = lambda: next(answers, token("new", 3600))
    tokens = provider(endpoint)
    tokens.prepare()
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    while "new" not in seen:
        assert time.monotonic() < deadline
        try:
            seen.add(tokens.token())
        except BrokerUnavailable as error:
            seen.add(str(error))
        time.sleep(0.01)
    assert seen == {"old", "new", f"{endpoint.url} has given no new token; is it well?"}


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (
            (401, {}, b'{"error": "invalid_client"}'),
            AccessDenied,
            r"no token \(401 invalid_client\); check .* client_id",
        ),
        ((400, {}, b'{"error": "invalid_scope"}'), AccessDenied, "400 invalid_scope"),
        ((403, {}, b'{"error": "<b>\\n rude"}'), AccessDenied, r"no token \(403\)"),
        ((500, {}, b""), BrokerUnavailable, "answers 500; is it well"),
        ((302, {"Location": "/elsewhere"}, b""), BrokerUnavailable, "answers 302"),
        ((200, {}, b"<html>"), BrokerUnavailable, "gives no token"),
        ((200, {}, b"[]"), BrokerUnavailable, "no access_token"),
        ((200, {}, b'{"access_token": "a\\u0001auth=Bearer b"}'), BrokerUnavailable, "no access_token"),
        ((200, {}, b'{"access_token": "' + b"a" * 70_000 + b'"}'), BrokerUnavailable, "gives no token"),
    ],
)
def test_what_is_no_token_is_told_in_one_line_and_nothing_follows_it_elsewhere(
    endpoint: Endpoint, answer: Answer, error: type[Exception], said: str
) -> None:
    endpoint.answer = lambda: answer
    with pytest.raises(error, match=said) as caught:
        provider(endpoint).prepare()
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert [path for path, _, _ in endpoint.asked] == ["/token"]


def test_an_endpoint_of_an_unknown_authority_gets_no_secret(endpoint: Endpoint) -> None:
    stranger = TokenEndpoint(endpoint.url, "tickcast", lambda: SECRET, None, None, {})
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.prepare()
    assert endpoint.asked == []


def test_a_client_that_has_no_token_yet_waits_for_the_endpoint_as_for_a_broker(endpoint: Endpoint) -> None:
    endpoint.answer = lambda: (503, {}, b"")
    security = SecuritySettings(
        protocol="SASL_SSL",
        mechanism="OAUTHBEARER",
        ca_file=endpoint.ca_file,
        token_url=endpoint.url,
        client_id="tickcast",
        client_secret=SECRET,
    )
    there = Connection.from_settings(KafkaSettings(security=security))
    with pytest.raises(BrokerUnavailable, match="answers 503"):
        connect(pytest.fail, there, 1.0)
    assert len(endpoint.asked) > 1


def test_nobody_renews_a_token_that_nobody_holds(endpoint: Endpoint) -> None:
    endpoint.answer = lambda: token("short", 0.2)
    others = set(threading.enumerate())
    tokens = provider(endpoint)
    tokens.prepare()
    (ours,) = [each for each in threading.enumerate() if each.name == "tickcast-token" and each not in others]
    del tokens
    ours.join(60)
    assert not ours.is_alive()
