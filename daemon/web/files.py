"""The files of the page, read once at start: what was not there then is not found, whatever a path says.

They are answered from memory in the loop itself. Each step through a thread would wait for the interpreter behind the
reader of the topics, and a page takes a dozen files before it shows anything.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

STATIC = Path(__file__).parent / "static"
INDEX = "/index.html"
#: Said here, not guessed: what a system thinks of `.js` differs, and a browser refuses a script of another type.
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}
OTHER_TYPE = "text/plain"


class _File(NamedTuple):
    body: bytes
    type: str
    tag: str


class Files:
    """All files below a folder, by their paths."""

    def __init__(self, folder: Path = STATIC) -> None:
        found = {f"/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*") if file.is_file()}
        self._files = {path: _read(file) for path, file in found.items()}
        self._files["/"] = self._files[INDEX]

    async def answer(self, request: Request) -> Response:
        """Return a file; without its content where the browser has it already."""
        file = self._files.get(request.scope["path"])
        if file is None:
            return PlainTextResponse("there is no such page\n", 404)
        headers = {"ETag": file.tag}
        if request.headers.get("if-none-match") == file.tag:
            return Response(None, 304, headers)
        return Response(file.body, 200, headers, file.type)


def _read(file: Path) -> _File:
    body = file.read_bytes()
    return _File(body, TYPES.get(file.suffix, OTHER_TYPE), f'"{hashlib.sha256(body).hexdigest()[:32]}"')
