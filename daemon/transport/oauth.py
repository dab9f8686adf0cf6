"""Tokens for the mechanism OAUTHBEARER: from a file that others keep fresh, or from an endpoint that is asked.

kafka-python calls `token` on its IO thread, at every login and again before a session ends (KIP-368). There nothing may
wait for a network, so an endpoint is asked on a thread of its own, in good time before its token expires.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
import weakref
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from kafka.net.sasl.oauth import AbstractTokenProvider

from daemon.config import SecuritySettings
from daemon.errors import AccessDenied, BrokerUnavailable, SettingsError, TickcastError
from daemon.transport.secret_files import Secret, named, read_secret, secret_of

_log = logging.getLogger(__name__)

#: RFC 6750; anything else could end the login message early and say something else in it.
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
ANSWER_BYTES_MAX = 64 * 1024
ASK_SECONDS = 10.0
#: RFC 6749 lets an endpoint leave out how long its token lives.
LIFETIME_SECONDS = 300.0
#: A token is renewed when so much of its life has passed, as Kafka's own clients do.
RENEW_AT = 0.8
#: Between questions to an endpoint that did not answer.
RETRY_SECONDS = 5.0


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Gives tokens to kafka-python, and what else a login says."""

    def __init__(self, extensions: Mapping[str, str]) -> None:
        self._extensions = dict(extensions)

    def extensions(self) -> dict[str, str]:
        """Return what else a login says."""
        return self._extensions

    @abstractmethod
    def prepare(self) -> None:
        """Make sure that there is a token; may wait, so it is called before a client is built.

        Raises
        ------
        SettingsError, AccessDenied, BrokerUnavailable
        """


def token_provider(security: SecuritySettings) -> TokenProvider:
    """Return what kafka-python asks for tokens."""
    if security.token_file is not None:
        return TokenFile(security.token_file, security.extensions)
    secret = secret_of(security, "client_secret")
    assert security.token_url is not None, "the settings were checked"
    assert security.client_id is not None
    assert secret is not None
    ca_file = None if security.ca_file is None else str(security.ca_file)
    return TokenEndpoint(security.token_url, security.client_id, secret, security.scope, ca_file, security.extensions)


class TokenFile(TokenProvider):
    """Gives the token that stands in a file now."""

    def __init__(self, file: Path, extensions: Mapping[str, str]) -> None:
        super().__init__(extensions)
        self._file = file

    def token(self) -> str:
        """Return the token.

        Raises
        ------
        SettingsError : the file cannot be read, or holds something else
        """
        token = read_secret(self._file, "token_file").strip()
        if not TOKEN.fullmatch(token):
            raise SettingsError(f"{named('token_file', self._file)} holds no token; one line of a JWT is expected")
        return token

    def prepare(self) -> None:
        """Look at the file."""
        self.token()


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    #: Seconds, monotonic.
    renew_at: float
    expires_at: float


class TokenEndpoint(TokenProvider):
    """Asks an OAuth 2 endpoint for tokens: the grant of client credentials (RFC 6749, section 4.4).

    The first question is asked by `prepare`; from then on a thread renews the token, for as long as somebody holds this
    object.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        secret: Secret,
        scope: str | None,
        ca_file: str | None,
        extensions: Mapping[str, str],
    ) -> None:
        super().__init__(extensions)
        self._url = url
        self._client_id = client_id
        self._secret = secret
        self._form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        self._ca_file = ca_file
        self._token: _Token | None = None
        self._starting = threading.Lock()

    def token(self) -> str:
        """Return the token in hand.

        Raises
        ------
        BrokerUnavailable : it has ended, and there is no other
        """
        token = self._token
        if token is None or time.monotonic() >= token.expires_at:
            raise BrokerUnavailable(f"{self._url} has given no new token; is it well?")
        return token.text

    def prepare(self) -> None:
        """Ask for the first token; later calls find it."""
        with self._starting:
            if self._token is None:
                self._token = self._ask()
                threading.Thread(target=_renew, args=(weakref.ref(self),), name="tickcast-token", daemon=True).start()

    def renew(self) -> float:
        """Ask for another token where it is time; return after how many seconds to look again."""
        assert self._token is not None
        if time.monotonic() >= self._token.renew_at:
            try:
                self._token = self._ask()
            except TickcastError as error:
                _log.warning("the token was not renewed, trying again: %s", error)
                return RETRY_SECONDS
        return max(0.0, self._token.renew_at - time.monotonic())

    def _ask(self) -> _Token:
        """Ask once.

        Raises
        ------
        AccessDenied : it refuses us
        BrokerUnavailable : it does not answer, or not with a token
        """
        # As RFC 6749 wants it: both parts form-encoded before they are joined.
        login = f"{quote(self._client_id, safe='')}:{quote(self._secret(), safe='')}"
        headers = {
            "Authorization": "Basic " + base64.b64encode(login.encode()).decode(),
            "Accept": "application/json",
        }
        request = urllib.request.Request(self._url, urlencode(self._form).encode(), headers)  # noqa: S310 - see config
        try:
            with self._opener().open(request, timeout=ASK_SECONDS) as answer:
                return _parse(answer.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            if 400 <= error.code < 500:
                raise AccessDenied(
                    f"{self._url} gives us no token ({error.code}{_reason(error)}); check [kafka.security] client_id, "
                    "client_secret_file and scope"
                ) from None
            raise BrokerUnavailable(f"{self._url} answers {error.code}; is it well?") from None
        except (OSError, HTTPException, ValueError) as error:
            what = getattr(error, "reason", None) or error
            raise BrokerUnavailable(
                f"{self._url} gives no token: {what}; is [kafka.security] token_url right?"
            ) from None

    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context()
        if self._ca_file:
            context.load_verify_locations(self._ca_file)
        return urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))


def _renew(reference: weakref.ref[TokenEndpoint]) -> None:
    while (endpoint := reference()) is not None:
        seconds = endpoint.renew()
        del endpoint  # not held while we sleep
        time.sleep(seconds)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The secret goes to the address that was set and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _parse(answer: bytes) -> _Token:
    """Take the token out of an answer; ValueError where there is none."""
    found = json.loads(answer)
    text = found.get("access_token") if isinstance(found, dict) else None
    if not isinstance(text, str) or not TOKEN.fullmatch(text):
        raise ValueError("its answer holds no access_token")
    lifetime = found.get("expires_in", LIFETIME_SECONDS)
    seconds = float(lifetime) if isinstance(lifetime, int | float | str) else LIFETIME_SECONDS
    now = time.monotonic()
    return _Token(text, now + RENEW_AT * seconds, now + seconds)


def _reason(error: urllib.error.HTTPError) -> str:
    """Return the endpoint's own word, e.g. invalid_client; nothing else of what it sends is shown."""
    try:
        word = json.loads(error.read(ANSWER_BYTES_MAX)).get("error")
    except (OSError, ValueError, AttributeError):
        return ""
    return f" {word}" if isinstance(word, str) and re.fullmatch(r"[a-z_]{1,40}", word) else ""
