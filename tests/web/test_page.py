"""The page in a real Chromium, on a real Kafka with a real daemon."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.bundles import tiny_bundle
from tests.e2e.world import World, read_topics
from tests.kafka_fixture import make_topics
from tests.web.messages import payload
from tests.web.watching import PATIENCE_SECONDS, Watch, send

pytestmark = pytest.mark.kafka

HOSTILE = "<img src=x onerror=alert(1)>"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: Chromium's own words on a stream or file that cannot be had; no script of ours can keep them back.
NETWORK = ("net::ERR_", "Failed to load resource")
LIVE = "Live"

expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@pytest.fixture(scope="module")
def world(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("page")
    made = World(kafka, directory, tiny_bundle(directory).path)
    made.daemon()
    made.send_quotes(600)
    made.await_outcomes()
    yield made
    made.close()


@pytest.fixture(scope="module")
def watch(world: World) -> Iterator[Watch]:
    made = Watch(world.directory, world.bootstrap, world.topics)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium; `apt-get install chromium` brings it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One visitor with a browser profile of their own, and what their browser complained about."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, query: str = "") -> Page:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.url + query)
        return self.page

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def beyond_the_network(self) -> list[str]:
        return [text for text in self.complaints if not any(word in text for word in NETWORK)]


@pytest.fixture
def visit(chromium: Browser, watch: Watch) -> Iterator[Visit]:
    """A visitor whose browser must have nothing to complain about in the end: no script error, no breach of policy."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.add_init_script(
        "globalThis.breaches = [];"
        "addEventListener('securitypolicyviolation', (e) => breaches.push(e.violatedDirective + ' ' + e.blockedURI));"
    )
    made = Visit(context.new_page(), watch.url)
    yield made
    assert made.page.evaluate("breaches") == []
    assert made.beyond_the_network() == []
    context.close()


def newest(world: World, instrument: str) -> dict[str, Any]:
    """Return the newest forecast of an instrument as it stands in the topic."""
    found = [json.loads(record.value) for record in read_topics(world.bootstrap, world.topics.forecasts)]
    return next(forecast for forecast in reversed(found) if forecast["instrument"] == instrument)


def shown(page: Page) -> list[tuple[str, ...]]:
    """Return the exact values in the table of the present forecast: mean, interval, variance, a row per horizon."""
    rows = page.locator("#now-rows tr").all()
    return [tuple(row.locator("td").nth(n).get_attribute("title") or "" for n in (0, 2, 3)) for row in rows]


def exact(forecast: dict[str, Any]) -> list[tuple[str, ...]]:
    columns = zip(forecast["mean"], forecast["lower"], forecast["upper"], forecast["variance"], strict=True)
    return [(plain(mean), f"{plain(low)} – {plain(high)}", plain(variance)) for mean, low, high, variance in columns]


def plain(value: float) -> str:
    """Write a number as JavaScript does."""
    text = f"{value:.0f}" if value == int(value) else repr(value)
    return text.replace("e-0", "e-")


def send_one(world: World, instrument: str, bid: float) -> None:
    world.send_ticks([{"instrument": instrument, "ts": time.time_ns(), "bid": bid, "ask": bid + 1}])


def test_the_page_shows_what_stands_in_the_topic(visit: Visit, world: World) -> None:
    page = visit.open("?instrument=I3")
    expect(page.locator("#state")).to_have_text(LIVE)
    for bid in (105.25, 101.5):
        send_one(world, "I3", bid)
        world.await_outcomes()
        forecast = newest(world, "I3")
        assert forecast["price"] == bid + 0.5
        expect(page.locator("#now")).to_have_attribute("data-id", forecast["id"])
        assert shown(page) == exact(forecast)
        expect(page.locator("#price")).to_have_attribute("title", plain(forecast["price"]))
        expect(page.locator("#facts")).to_contain_text(f"step {forecast['step']}")
        expect(page.locator("#facts")).to_contain_text(forecast["model"])
        row = page.get_by_role("navigation").locator("a", has_text="I3")
        expect(row).to_contain_text(f"{forecast['price']:.4f}")
    expect(page.locator("#latency")).to_contain_text("ms")
    assert page.locator("#rows li:visible").count() >= 12


def test_price_band_and_fan_are_drawn(visit: Visit) -> None:
    page = visit.open("?instrument=I3")
    expect(page.locator("#now-rows tr")).to_have_count(2)
    count = """() => {
      const found = {};
      for (const canvas of document.querySelectorAll("#chart canvas")) {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < data.length; i += 4) {
          const name = data[i + 3] ? `${data[i]},${data[i + 1]},${data[i + 2]}` : "none";
          found[name] = (found[name] ?? 0) + 1;
        }
      }
      return found;
    }"""

    def is_drawn() -> bool:
        found = page.evaluate(count)
        ink, accent = found.get("22,32,43", 0), found.get("70,80,200", 0)
        shades = [n for name, n in found.items() if name.startswith(("231,2", "230,2", "210,2", "211,2", "212,2"))]
        return ink > 100 and accent > 20 and sum(shades) > 1000

    await_that(is_drawn, "a line, a fan and an interval")


def await_that(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_it_says_that_no_forecast_comes_and_goes_on_when_the_daemon_is_back(visit: Visit, world: World) -> None:
    page = visit.open("?instrument=I3")
    expect(page.locator("#now")).to_have_attribute("data-id", newest(world, "I3")["id"])
    (daemon,) = world.daemons
    daemon.kill()
    send_one(world, "I3", 110.0)
    expect(page.locator("#price")).to_have_attribute("title", "110.5")  # the tick is here, its forecast is not
    expect(page.locator("#state")).to_contain_text("No forecast for")
    daemon.start().wait_ready()
    world.await_outcomes()
    forecast = newest(world, "I3")
    assert forecast["price"] == 110.5
    expect(page.locator("#now")).to_have_attribute("data-id", forecast["id"])
    assert shown(page) == exact(forecast)


def test_it_comes_back_by_itself_when_its_server_does(visit: Visit, world: World, watch: Watch) -> None:
    page = visit.open("?instrument=I3")
    before = newest(world, "I3")
    expect(page.locator("#now")).to_have_attribute("data-id", before["id"])
    watch.stop()
    expect(page.locator("#state")).to_contain_text("Connection to the page's server lost")
    send_one(world, "I3", 107.0)
    world.await_outcomes()
    watch.restart()
    forecast = newest(world, "I3")
    expect(page.locator("#now")).to_have_attribute("data-id", forecast["id"])
    assert forecast["id"] != before["id"]
    assert shown(page) == exact(forecast)


def test_search_and_keys_choose_an_instrument(visit: Visit, world: World) -> None:
    page = visit.open()
    expect(page.locator("#name")).to_have_text("I0")  # the first one, where none is named
    page.keyboard.press("/")
    page.keyboard.type("i1")
    expect(page.locator("#rows li:visible")).to_have_count(3)  # I1, I10, I11
    page.keyboard.press("ArrowDown")
    expect(page.locator("#rows a").first).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text("I10")
    expect(page.locator("#now")).to_have_attribute("data-id", newest(world, "I10")["id"])
    expect(page.locator("a[aria-current=true]")).to_contain_text("I10")
    assert "instrument=I10" in page.url
    page.locator("#search").fill("nothing of the kind")
    expect(page.locator("#more")).to_contain_text("instruments holds “nothing of the kind”")


def test_another_horizon_is_compared_and_kept_in_the_address(visit: Visit) -> None:
    page = visit.open("?instrument=I3")
    expect(page.get_by_role("radio", name="10")).to_be_checked()
    page.get_by_text("1", exact=True).click()
    expect(page.locator("#past-words")).to_have_text("forecast 1 ticks before")
    page.reload()
    expect(page.get_by_role("radio", name="1", exact=True)).to_be_checked()


def test_pause_freezes_the_page_and_going_on_catches_up(visit: Visit, world: World) -> None:
    page = visit.open("?instrument=I3")
    before = newest(world, "I3")["id"]
    expect(page.locator("#now")).to_have_attribute("data-id", before)
    page.keyboard.press("p")
    expect(page.locator("#state")).to_have_text("Paused")
    expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
    others = watch_answers(visit)
    send_one(world, "I3", 103.0)
    world.await_outcomes()
    after = newest(world, "I3")["id"]
    others(after)  # another visitor has it, so this one could
    expect(page.locator("#now")).to_have_attribute("data-id", before)
    page.keyboard.press("p")
    expect(page.locator("#now")).to_have_attribute("data-id", after)


def watch_answers(visit: Visit) -> Callable[[str], None]:
    """Open a second page; return what waits until it shows a forecast."""
    other = visit.page.context.new_page()
    other.goto(visit.url + "?instrument=I3")
    return lambda forecast_id: expect(other.locator("#now")).to_have_attribute("data-id", forecast_id)


def test_dark_and_light_follow_the_system_until_the_switch_is_used(visit: Visit) -> None:
    page = visit.open()
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(background) != light
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(background) == light
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    expect(page.get_by_role("button", name="Dark")).to_be_visible()


def test_a_phone_shows_all_of_it_without_scrolling_sideways(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 360, "height": 740})
    page = visit.open("?instrument=I3")
    expect(page.locator("#now-rows tr")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    chart = page.locator("#chart").bounding_box()
    assert chart is not None
    assert chart["width"] > 280
    for name in ("#search", "#pause", "#theme", "#price", "#skill"):
        box = page.locator(name).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_everything_has_a_name_for_those_who_do_not_see_it(visit: Visit) -> None:
    page = visit.open("?instrument=I3")
    expect(page.locator("#now-rows tr")).to_have_count(2)
    for role, name in (
        ("navigation", "Instruments"), ("searchbox", "Find an instrument"), ("button", "Pause"),
        ("group", "Price, past forecasts and the present one"), ("group", "Past forecasts, ticks ahead"),
        ("table", "Forecast now"), ("heading", "I3"), ("region", "Figures"),
    ):  # fmt: skip
        assert page.get_by_role(role, name=name).count() >= 1, (role, name)  # type: ignore[arg-type]
    assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1
    expect(page.get_by_role("status").first).to_have_text(LIVE)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the forecast")).to_be_focused()


def test_a_hostile_name_stays_text(visit: Visit, world: World) -> None:
    dialogs: list[str] = []
    visit.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    send_one(world, HOSTILE, 100.0)
    world.await_outcomes()
    page = visit.open()
    page.locator("#rows a", has_text=HOSTILE).click()
    expect(page.locator("#name")).to_have_text(HOSTILE)
    expect(page.locator("#now-rows tr")).to_have_count(2)
    assert page.locator("img").count() == 0
    assert dialogs == []


def test_an_empty_topic_says_what_to_do_until_the_first_tick(chromium: Browser, kafka: str, tmp_path: Path) -> None:
    topics = make_topics(kafka, "empty", partitions=1)
    watch = Watch(tmp_path, kafka, topics)
    page = chromium.new_page()
    page.goto(watch.url)
    expect(page.locator("#state")).to_have_text("Waiting for ticks")
    expect(page.locator("#empty")).to_contain_text(f"tickcast replay FILE --topic {topics.ticks}")
    send(kafka, topics.ticks, [{"instrument": "A", "ts": time.time_ns(), "price": 3.5}])
    expect(page.locator("#empty")).to_be_hidden()
    expect(page.locator("#price")).to_have_attribute("title", "3.5")
    expect(page.locator("#facts")).to_have_text("No forecast of it has been seen")
    expect(page.locator("#state")).to_contain_text("Ticks, but no forecasts")
    send(kafka, topics.forecasts, [payload("A", 0, 0, 3.5)])
    expect(page.locator("#state")).to_have_text(LIVE)
    expect(page.locator("#now-rows tr")).to_have_count(2)
    send(kafka, topics.ticks, [{"instrument": "B", "ts": time.time_ns(), "price": 7.5}])
    page.locator("#rows a", has_text="B").click()
    expect(page.locator("#price")).to_have_attribute("title", "7.5")
    expect(page.locator("#now-rows tr")).to_have_count(0)  # nothing of A stays under the name of B
    page.close()
    watch.stop()
