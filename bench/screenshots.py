"""Pictures of the live page for the documents: the demo runs, a real Chromium looks at it.

python -m bench.screenshots docs/images
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from bench.page import FLAGS

#: Until the horizons of a few hundred forecasts have come, and a session has closed and another opened.
SETTLE_SECONDS = 45.0
#: Enough for a page of flat areas, and a third of the bytes.
COLOURS = 128


@dataclass(frozen=True)
class Picture:
    """One picture of the page."""

    name: str
    width: int
    height: int
    scheme: Literal["dark", "light"]
    query: str = ""


PICTURES = (
    Picture("page-light.png", 1200, 900, "light", "?instrument=FLOW2"),
    Picture("page-dark.png", 1200, 900, "dark", "?instrument=FLOW5&horizon=50"),
    Picture("page-phone.png", 360, 780, "light", "?instrument=FLOW3"),
)


@contextmanager
def demo() -> Iterator[str]:
    """Run the demo while the block lasts; yields the address of its page."""
    command = [sys.executable, "-u", "-m", "daemon.cli.main", "demo", "--seconds", "600", "--page-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            line = next(line for line in running.stdout if line.startswith("page"))
            yield line.split()[-1]
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate()


def take(browser: Browser, address: str, picture: Picture, directory: Path) -> None:
    """Take a picture once the page lives."""
    page = browser.new_page(
        viewport={"width": picture.width, "height": picture.height}, color_scheme=picture.scheme, device_scale_factor=1
    )
    page.goto(address + picture.query)
    expect(page.locator("#state")).to_have_text("Live", timeout=30_000)
    expect(page.locator("#inside")).to_contain_text("%", timeout=30_000)
    page.screenshot(path=directory / picture.name)
    page.close()
    with Image.open(directory / picture.name) as full:
        full.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(directory / picture.name, optimize=True)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium; `apt-get install chromium` brings it")
    with demo() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        waiting = browser.new_page()
        waiting.goto(address)
        waiting.wait_for_timeout(SETTLE_SECONDS * 1000)
        waiting.close()
        for picture in PICTURES:
            take(browser, address, picture, directory)
        browser.close()


if __name__ == "__main__":
    main()
