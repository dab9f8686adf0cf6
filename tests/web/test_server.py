"""The page's server as any client meets it: who may ask, what binds the browser, that nothing grows without bound."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.config import TopicSettings
from daemon.web.files import STATIC, TYPES
from daemon.web.server import VIEWERS_MAX
from tests.integration.tool import Tool
from tests.kafka_fixture import make_topics, topic_names
from tests.web.messages import payload
from tests.web.watching import PATIENCE_SECONDS, Watch, send

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def topics(kafka: str) -> TopicSettings:
    return make_topics(kafka, "page", partitions=2)


@pytest.fixture(scope="module")
def watch(kafka: str, topics: TopicSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    made = Watch(tmp_path_factory.mktemp("watch"), kafka, topics, "--allow-host", "page.example")
    yield made
    assert made.stop() == 0


def test_every_answer_binds_the_browser(watch: Watch) -> None:
    for path in ("/", "/app.js", "/events", "/nowhere"):
        headers = watch.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert policy["frame-ancestors"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers


def test_all_files_of_the_page_are_served_with_their_types_and_name_no_other_host(watch: Watch) -> None:
    for file in sorted(STATIC.rglob("*")):
        if file.suffix in TYPES:
            answer = watch.get("/" + file.relative_to(STATIC).as_posix())
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(TYPES[file.suffix])
            assert answer.read() == file.read_bytes()
            loaded = re.findall(rb"(?:src|href|from|import)\s*[=(]?\s*[\"']([^\"']+)", file.read_bytes())
            if "vendor" not in file.parts:
                assert [url for url in loaded if url.startswith((b"http", b"//"))] in (
                    [],
                    [b"https://www.tradingview.com/"],
                )


def test_a_file_that_has_not_changed_is_not_sent_again(watch: Watch) -> None:
    first = watch.get("/app.js")
    assert first.headers["Cache-Control"] == "no-cache"
    assert watch.get("/app.js", headers={"If-None-Match": first.headers["ETag"]}).status == 304


@pytest.mark.parametrize(
    "path", ["/nowhere", "/../server.py", "/%2e%2e/server.py", "/vendor/", "/static/app.js", "/\0"]
)
def test_what_is_not_there_is_not_found(watch: Watch, path: str) -> None:
    with socket.create_connection(("127.0.0.1", watch.port), timeout=PATIENCE_SECONDS) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        status = line.makefile("rb").readline().split()[1]
    assert status in (b"404", b"400")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_only_get_is_answered(watch: Watch, method: str) -> None:
    for path in ("/", "/events"):
        answer = watch.get(path, method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8050", 200),
        ("127.0.0.1:8050", 200),
        ("192.168.1.7", 200),
        ("[::1]:8050", 200),
        ("page.example:80", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8050", 421),
        ("", 421),
    ],
)
def test_a_name_that_is_not_ours_is_refused_against_dns_rebinding(watch: Watch, host: str, status: int) -> None:
    assert watch.get("/", headers={"Host": host}).status == status


def test_pages_are_bounded_and_places_are_given_back(watch: Watch) -> None:
    with ExitStack() as open_pages:
        for _ in range(VIEWERS_MAX):
            answer = watch.get("/events")
            open_pages.callback(answer.close)
            assert answer.status == 200
            answer.readline()  # it counts once it has begun
        refused = watch.get("/events")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert watch.get("/").status == 200
    deadline = time.monotonic() + PATIENCE_SECONDS
    while watch.get("/events").status != 200:
        assert time.monotonic() < deadline, "no place was given back"


@pytest.mark.parametrize(
    "query", ["after=-1", "after=9e9", "after=" + "9" * 400, "instrument=" + "x" * 5000, "epoch=%00&search=%ff", "a=b"]
)
def test_any_query_gives_a_stream(watch: Watch, query: str) -> None:
    name, content = next(watch.events(query))
    assert name == "board"
    assert len(content["instrument"]["name"]) <= 64


def test_a_page_that_does_not_read_is_sent_less_and_delays_nobody(
    watch: Watch, kafka: str, topics: TopicSettings
) -> None:
    total, chunk = 8_000, 200
    slow = socket.socket()
    slow.settimeout(PATIENCE_SECONDS)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    slow.connect(("127.0.0.1", watch.port))
    slow.sendall(b"GET /events?instrument=FAST HTTP/1.1\r\nHost: localhost\r\n\r\n")
    quick = watch.events("instrument=FAST")
    next(quick)
    heard = 0
    for begin in range(0, total, chunk):
        send(kafka, topics.forecasts, (payload("FAST", step, step, 100.0) for step in range(begin, begin + chunk)))
        heard += sum(len(content["forecasts"]) for name, content in until(quick, begin + chunk) if name == "forecasts")
    seen = b""
    while b'"number":%d,' % total not in seen:
        seen += slow.recv(1 << 20)
    slow.close()
    assert len(seen) < 1e6  # what its buffers hold, then what is newest
    assert seen.count(b'"number":') < heard


def until(events: Iterator[tuple[str, object]], number: int) -> Iterator[tuple[str, object]]:
    for name, content in events:
        yield name, content
        if name == "forecasts" and content["forecasts"][-1]["number"] >= number:  # type: ignore[index]
            return


def test_what_is_no_forecast_is_counted_and_the_page_goes_on(watch: Watch, kafka: str, topics: TopicSettings) -> None:
    send(kafka, topics.forecasts, [{"instrument": "X", "price": "dear"}, payload("GOOD", 0, 0, 5.0)], partition=1)
    board = watch.await_board(lambda board: board["unreadable_count"] >= 1, "search=GOOD")
    assert [row["price"] for row in board["rows"]] == [5.0]


def test_wrong_use_has_its_line_and_code(watch: Watch, kafka: str, tmp_path: Path) -> None:
    missing = {"kafka": {"bootstrap_servers": kafka}, "topics": topic_names("none").model_dump()}
    tool = Tool(tmp_path / "tickcast.toml", missing)
    assert "tickcast topics create" in tool.refusal("watch", "--port", "0", code=5)
    assert f"--port {watch.port}: cannot listen" in tool.refusal("watch", "--port", str(watch.port), code=2)


def test_without_its_packages_the_extra_is_named(tmp_path: Path) -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from daemon.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "watch"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "pip install 'tickcast[watch]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_with_pages_open(
    kafka: str, topics: TopicSettings, tmp_path: Path, number: int
) -> None:
    made = Watch(tmp_path, kafka, topics)
    events = made.events()
    next(events)
    made.process.send_signal(number)
    assert made.process.wait(PATIENCE_SECONDS) == 0
    assert list(events)[-1:] is not None  # the stream came to its end
    made.stop()
