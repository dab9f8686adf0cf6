"""An OAuth 2 token endpoint over TLS, for tests; it answers whatever it is told to."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

#: What is answered: status, headers, body.
Answer = tuple[int, dict[str, str], bytes]


class Endpoint:
    """The endpoint, with an authority of its own in `ca_file`."""

    def __init__(self, papers: Path) -> None:
        authority = trustme.CA()
        self.ca_file = papers / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.asked: list[tuple[str, str, str]] = []
        self.answer: Callable[[], Answer] = lambda: token(f"token-{len(self.asked)}", 3600)
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                endpoint.asked.append((self.path, self.headers["Authorization"], body))
                status, headers, content = endpoint.answer()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST  # noqa: N815 - the library's name; where a redirect would be followed to

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def token(text: str, seconds: float) -> Answer:
    return 200, {}, json.dumps({"access_token": text, "expires_in": seconds}).encode()
