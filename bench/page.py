"""The live page in a real Chromium while 5,000 ticks a second go through the topic.

First paint and first forecast over several visits; then, with one page open, frames per second, the longest frame, how
often the shown forecast changes, what the server sends and what it costs. Broker, feed, daemon, page's server and
browser (without a graphics processor) share the machine, so the load stands beside the figures.

    python -m bench.page [--rate 5000] [--instruments 100] [--seconds 15] [--visits 5]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from bench.feed import Feed, Mix
from bench.rig import bench_bundle, machine, median, rig
from tests.web.watching import Watch

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
#: The feed and the daemon come to their pace.
WARM_UP_SECONDS = 5.0
#: Called for each frame that the browser draws; forecasts are counted by the id in the table.
COUNT_FRAMES = """seconds => new Promise(done => {
  const gaps = [];
  let shown = "", changes = 0, began = performance.now(), before = began;
  const each = now => {
    gaps.push(now - before);
    before = now;
    const id = document.getElementById("now").dataset.id;
    if (id !== shown) { shown = id; changes += 1; }
    if (performance.now() - began < seconds * 1000) requestAnimationFrame(each);
    else done({ gaps: gaps.slice(1), changes, seconds: (performance.now() - began) / 1000 });
  };
  requestAnimationFrame(each);
})"""
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def visit(browser: Browser, url: str) -> dict[str, float]:
    """Open the page as a new visitor does; return milliseconds to the first paint and to the first forecast."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_selector("#now[data-id]", state="attached")
    forecast = (time.perf_counter() - began) * 1000
    paint = float(page.evaluate(FIRST_PAINT))
    page.close()
    return {"first_paint_ms": paint, "first_forecast_ms": forecast}


def frames(page: Page, seconds: float) -> dict[str, float]:
    """Count the frames of an open page."""
    found: dict[str, Any] = page.evaluate(COUNT_FRAMES, seconds)
    gaps = sorted(found["gaps"])
    return {
        "frames_per_second": len(gaps) / found["seconds"],
        "changes_per_second": found["changes"] / found["seconds"],
        "frame_ms_p99": gaps[int(len(gaps) * 0.99)],
        "frame_ms_max": gaps[-1],
    }


def received(watch: Watch, query: str, seconds: float) -> float:
    """Return the bytes a second that one page is sent, without what it is sent at first."""
    answer = watch.get(f"/events?{query}")
    until, count = 0.0, 0
    while not until or time.monotonic() < until:
        count += len(answer.read1(1 << 16))
        if not until and count > 1000:
            until, count = time.monotonic() + seconds, 0
    answer.close()
    return count / seconds


def share(watch: Watch, seconds: float, work: Any) -> tuple[float, Any]:
    """Return what share of one core the server takes while `work` runs, and its result."""
    process = psutil.Process(watch.process.pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    result = work(seconds)
    return (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began), result


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--instruments", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--visits", type=int, default=5)
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium; `apt-get install chromium` brings it")
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on, sync_playwright() as playwright:
        topics = on.topics("page")
        daemon = on.daemon("page", topics, bench_bundle(Path(folder)).path).start().wait_ready()
        watch = Watch(Path(folder) / "watch", on.bootstrap, topics)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        load_before = os.getloadavg()[0]
        try:
            with Feed(on.bootstrap, topics.ticks, Mix(options.rate, options.instruments)):
                time.sleep(WARM_UP_SECONDS)
                idle, _ = share(watch, options.seconds, time.sleep)
                visits = [visit(browser, watch.url) for _ in range(options.visits)]
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto(watch.url)
                page.wait_for_selector("#now[data-id]", state="attached")
                busy, drawn = share(watch, options.seconds, lambda seconds: frames(page, seconds))
                board = watch.await_board(lambda _: True)
                page.close()
                bytes_per_second = received(watch, "instrument=INST00000", options.seconds)
        finally:
            browser.close()
            watch.stop()
            daemon.stop()
    result = {
        "ticks_per_second": board["per_second"]["ticks"],
        "forecasts_per_second": board["per_second"]["forecasts"],
        "first_paint_ms": median([each["first_paint_ms"] for each in visits]),
        "first_paint_ms_max": max(each["first_paint_ms"] for each in visits),
        "first_forecast_ms": median([each["first_forecast_ms"] for each in visits]),
        **drawn,
        "bytes_per_second": bytes_per_second,
        "server_cores_without_page": idle,
        "server_cores_with_page": busy,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }
    rounded = {name: round(value, 3 if value < 10 else 1) for name, value in result.items()}
    print(json.dumps({"machine": machine(), "instruments": options.instruments, **rounded}, indent=2))


if __name__ == "__main__":
    main()
