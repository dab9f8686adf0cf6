"""What the page ships of others is what they published, with their license and the notice that it asks for."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "daemon" / "web" / "static" / "vendor" / "lightweight-charts"


def test_the_charts_are_as_published_and_their_notice_is_shown() -> None:
    (script,) = VENDOR.glob("*.mjs")
    source = (VENDOR / "README.md").read_text("utf-8")
    (digest,) = re.findall(r"`([0-9a-f]{64})`", source)
    assert hashlib.sha256(script.read_bytes()).hexdigest() == digest
    (version,) = re.findall(r"lightweight-charts@(\S+)", source)
    assert f"Lightweight Charts™ v{version}" in script.read_text("utf-8")[:200]
    assert "Apache License" in (VENDOR / "LICENSE").read_text("utf-8")
    notice = (VENDOR / "NOTICE").read_text("utf-8").split()
    page = (VENDOR.parents[1] / "index.html").read_text("utf-8").replace("©", "(c)")
    assert all(word in page for word in notice)
    assert 'href="https://www.tradingview.com/"' in page
