"""Who may ask the page's server, and what for: GET only, hosts that are ours, headers that bind the browser.

The page shows prices to whoever reaches it, so it listens on this machine unless told otherwise. That alone does not
keep other sites out: their scripts could have a name of their own resolve to 127.0.0.1 and read the answers (DNS
rebinding). Such a request names that site in its Host header, and is refused: an address in numbers cannot be rebound.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Nothing from other hosts, nothing inline, and no text that becomes markup.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Stands before an application.

    Parameters
    ----------
    names : host names by which we are reached, beside addresses and localhost
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", *(name.casefold() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is not allowed, pass on one that is."""

        async def send_bound(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # Asked for anew each time, without a body where nothing changed: old scripts never meet a new server.
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        if scope["type"] == "http":
            refusal = self._refusal(scope)
            await (refusal or self._app)(scope, receive, send_bound)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        host = Headers(scope=scope).get("host", "")
        if not self._is_ours(host):
            text = f"the host {host[:100]!r} is not known here; `tickcast watch --allow-host NAME` lets it in\n"
            return PlainTextResponse(text, 421)
        if scope["method"] != "GET":
            return PlainTextResponse("only GET is answered\n", 405, {"Allow": "GET"})
        return None

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if not port.isdecimal():
            name = host
        if name.casefold() in self._names:
            return True
        try:
            ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True
