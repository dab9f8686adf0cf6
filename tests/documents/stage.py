"""The folder in which a reader follows a document: its files, a Kafka, and the daemon in a terminal of its own.

Everything is made when a command first needs it. What the reader leaves to a default and a test cannot, the broker's
address and free ports, comes through the environment, which goes before the settings file.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import TextIO

import numpy as np
from kafka import KafkaProducer

from daemon.config import Settings, load_settings
from daemon.dev.broker import Broker, find_broker, free_port
from daemon.dev.market import Market
from daemon.dev.replay import TickProducer
from daemon.tick_files import read_ticks
from daemon.transport.admin import create_topics
from daemon.transport.connection import Connection
from daemon.transport.group import read_group
from tests.bundles import tiny_bundle
from tests.documents.blocks import ROOT, Block, blocks_of
from tests.documents.ways import (
    ADDED,
    JUDGING,
    OFFLINE,
    STOPPED,
    TENSORFLOW,
    WRITES,
    command_name,
    exit_codes,
    is_endless,
)

#: Four other things share the machine.
PATIENCE_SECONDS = 120.0
#: The address in the documents.
ADDRESS = "127.0.0.1:9092"
SETTINGS_FILE = "tickcast.toml"
TICKS_COUNT = 4000


class Stage:
    """What one document is followed in.

    Parameters
    ----------
    folder : empty
    blocks : those of the document; the ones that name themselves after a file are that file
    """

    def __init__(self, folder: Path, blocks: Sequence[Block]) -> None:
        self.folder = folder
        self._files = {block.file_name: block.text for block in blocks if block.language == "toml" and block.file_name}
        self._files.setdefault(SETTINGS_FILE, '[model]\nbundle = "bundle"\n')
        self._broker_folder = folder / ".tickcast" / "broker"
        self._port: int | None = None
        self._terminal: Terminal | None = None
        self._ticks = 0

    # --- commands -----------------------------------------------------------------------------------------------------

    def run(self, command: str) -> None:
        """Run one line of a shell block as it stands, and expect success."""
        name = command_name(command)
        self.prepare(command)
        if is_endless(command):
            self._begin(command, name)
            return
        done = subprocess.run(
            ["bash", "-c", with_additions(command)],
            cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode in exit_codes(command), f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"

    def prepare(self, command: str) -> None:
        """Make what the line needs: files, and a service that runs or stands still."""
        self.write_files()
        words = shlex.split(command, comments=True)
        written = {after for word, after in pairwise(words) if word in WRITES}
        if "--init" in words:
            written.add(words[words.index("--spec") + 1])
        for name in written:
            remove(self.folder / name)
        for word in words:
            if word not in written:
                self.make_file(word)
        self._prepare_service(command_name(command), words)

    def _prepare_service(self, name: str | None, words: Sequence[str]) -> None:
        if name in OFFLINE or "--history" in words or (name in TENSORFLOW and "--topic" not in words):
            return
        if name in TENSORFLOW:
            self.fill_topic()
        elif name == "run":
            self._stop()
            self.create_topics()
            self.make_file("bundle")
        elif name in STOPPED:
            self.serve()
            self._stop()
        else:
            self.serve()
            if name in JUDGING:
                self.feed()

    def python(self, block: Block) -> str:
        """Run a block of Python until it ends, or until it has printed what it is there for; return what it printed.

        Ticks come in meanwhile, for who waits for some.
        """
        self.serve()
        file, output, errors = (self.folder / f"snippet.{ending}" for ending in ("py", "out", "err"))
        file.write_text(block.text.replace(ADDRESS, self.broker().bootstrap), "utf-8")
        deadline = time.monotonic() + PATIENCE_SECONDS
        with output.open("wb") as out, errors.open("wb") as err:
            running = subprocess.Popen(
                [sys.executable, "-u", str(file)], cwd=self.folder, env=self.environment(), stdout=out, stderr=err
            )
        try:
            while running.poll() is None and not output.stat().st_size:
                assert time.monotonic() < deadline, f"{block} prints nothing, and does not end"
                self.feed(1)
        finally:
            running.terminate()
            code = running.wait(PATIENCE_SECONDS)
        assert code in (0, -signal.SIGTERM), f"{block}: {errors.read_text('utf-8')}"
        return output.read_text("utf-8")

    # --- the world ----------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """Return the environment of the reader's shell."""
        own = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TICKCAST_METRICS__PORT": "0",
            "TICKCAST_LOG__FORMAT": "json",
            # what was answered stands in the state topic, for who asks at once
            "TICKCAST_PIPELINE__CHECKPOINT_SECONDS": "0",
            # a file that is replayed twice is late the second time
            "TICKCAST_PIPELINE__DEAD_LETTER_RATIO_MAX": "1",
        }
        if self._port is not None:
            own["TICKCAST_KAFKA__BOOTSTRAP_SERVERS"] = f"127.0.0.1:{self._port}"
        return os.environ | own

    def broker(self) -> Broker:
        """Return the broker of the folder, started where it does not run."""
        found = find_broker(self._broker_folder)
        if found is None:
            # by the program: a child of ours that ended would stay a zombie, which `broker stop` waits for
            start = ["tickcast", "broker", "start", "--port", str(self._port or 0)]
            subprocess.run(start, cwd=self.folder, env=self.environment(), check=True, capture_output=True)
            found = find_broker(self._broker_folder)
            assert found is not None
        self._port = found.port
        return found

    def create_topics(self) -> None:
        """Make the topics of the document's settings."""
        self.write_files()
        create_topics(Connection(self.broker().bootstrap), self.settings.topics, None, None)

    def serve(self) -> None:
        """Have a daemon, which has answered ticks."""
        if self._terminal is not None and self._terminal.lives:
            return
        self.create_topics()
        self.make_file("bundle")
        self._begin(f"tickcast run --config {SETTINGS_FILE}", "run")

    def feed(self, count: int = 60) -> None:
        """Send quotes of BTCUSDT, the last of them too late, and wait until the daemon has answered."""
        topic = self.settings.topics.ticks
        producer = KafkaProducer(bootstrap_servers=self.broker().bootstrap)
        now = time.time_ns()
        for number in range(count):
            self._ticks += 1
            bid = 61837.63 + self._ticks % 7 / 100
            tick = {"instrument": "BTCUSDT", "ts": now + number, "bid": bid, "ask": bid + 0.01}
            producer.send(topic, json.dumps(tick).encode(), b"BTCUSDT")
        late = {"instrument": "BTCUSDT", "ts": now - 10**12, "bid": 1, "ask": 2}
        producer.send(topic, json.dumps(late).encode(), b"BTCUSDT")
        producer.close()
        await_that(self._answered, "the ticks are answered")

    def fill_topic(self) -> None:
        """Put the tick file into the topic, without a daemon."""
        self.create_topics()
        self.make_file("ticks.csv.gz")
        producer = TickProducer(Connection(self.broker().bootstrap), self.settings.topics.ticks)
        for tick in read_ticks([self.folder / "ticks.csv.gz"], in_order=False):
            producer.send(tick)
        producer.flush()
        producer.close()

    @property
    def settings(self) -> Settings:
        return load_settings(self.folder / SETTINGS_FILE)

    def close(self) -> None:
        """End everything."""
        self._stop()
        found = find_broker(self._broker_folder)
        if found is not None:
            found.stop()

    def _answered(self) -> bool:
        settings = self.settings
        group = read_group(Connection(self.broker().bootstrap), settings.kafka.group_id, settings.topics.ticks)
        return all(row.committed is not None and not row.lag for row in group.partitions)

    def _begin(self, command: str, name: str | None) -> None:
        port = free_port() if name == "watch" else None
        more = f" --port {port}" if port else ""
        terminal = Terminal(self.folder, with_additions(command) + more, self.environment())
        try:
            if port:
                terminal.await_answer(f"http://127.0.0.1:{port}/")
            elif name == "run":
                terminal.await_daemons(_workers(command))
            else:
                await_that(lambda: "market into" in str(terminal), "the market opens", terminal)
        except BaseException:
            terminal.stop()
            raise
        if name == "run":
            self._terminal = terminal
            self.feed()
        else:
            terminal.stop()

    def _stop(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.stop()

    # --- files --------------------------------------------------------------------------------------------------------

    def write_files(self) -> None:
        """Write the files whose text stands in the document."""
        for name, text in self._files.items():
            (self.folder / name).write_text(text, "utf-8")

    def make_file(self, name: str) -> None:
        """Make a file that the document speaks of, where it is missing and known here."""
        if name in MAKERS and not (self.folder / name).exists():
            MAKERS[name](self.folder / name)


class Terminal:
    """A command that goes on, in a terminal of its own."""

    def __init__(self, folder: Path, command: str, environment: Mapping[str, str]) -> None:
        self._command = command
        self._log = folder / f"terminal-{len(list(folder.glob('terminal-*')))}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=folder, env=dict(environment), stdout=log, stderr=log
            )

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def await_daemons(self, count: int) -> None:
        """Wait until so many processes say that they are ready."""
        await_that(lambda: len(self._ports()) == count, "the daemon says its port", self)
        for port in self._ports():
            self.await_answer(f"http://127.0.0.1:{port}/readyz")

    def await_answer(self, address: str) -> None:
        await_that(lambda: answers(address), f"{address} answers", self)

    def stop(self) -> None:
        """End it as Ctrl-C would, and expect that it obeys."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()
        assert code in (0, -signal.SIGTERM), f"{self} ended with {code}"

    def _ports(self) -> list[int]:
        return [int(port) for port in re.findall(rb'"metrics_port": ?(\d+)', self._log.read_bytes())]

    def __str__(self) -> str:
        return f"{self._command}: {self._log.read_text('utf-8', 'replace')[-2000:]}"


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def await_that(condition: Callable[[], bool], what: str, terminal: Terminal | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert terminal is None or terminal.lives, f"it ended: {terminal}"
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s: {what}; {terminal or ''}"
        time.sleep(0.05)


def with_additions(command: str) -> str:
    line = command.partition(" #")[0].rstrip()
    return line + next((more for begin, more in ADDED.items() if line.startswith(begin)), "")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _workers(command: str) -> int:
    found = re.search(r"--workers (\d+)", command)
    return int(found[1]) if found else 1


# --- files of the reader's own ----------------------------------------------------------------------------------------


def _write_ticks(file: Path) -> None:
    market = Market(seed=1, instruments=4, ticks_per_second=400, session_seconds=3600)
    ticks = list(islice(market.ticks(), TICKS_COUNT))
    with gzip.open(file, "wt", newline="") as out:
        if ".jsonl" in file.name:
            out.writelines(json.dumps(tick) + "\n" for tick in ticks)
        else:
            _write_table(out, ticks)


def _write_bars(file: Path) -> None:
    random = np.random.default_rng(0)
    closes = (1890 + np.cumsum(random.normal(0, 3, 60))).round(2).tolist()
    bars = [
        {"ts": 1_704_067_200_000_000_000 + 60 * 10**9 * n, "price": close, "open": close - 1, "high": close + 2,
         "low": close - 2, "volume": 100 + n % 7}
        for n, close in enumerate(closes)
    ]  # fmt: skip
    with file.open("w", newline="") as out:
        _write_table(out, bars)


def _write_table(out: TextIO, rows: Sequence[Mapping[str, object]]) -> None:
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)


def _write_arrays(file: Path) -> None:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((300, 10, 5)).astype(np.float32)
    np.savez(file, X=inputs, y=inputs[:, -1, :1] * 0.3 + random.standard_normal((300, 1)).astype(np.float32))


def _write_gold(file: Path) -> None:
    from bench.questions import write_gold_predictor

    write_gold_predictor(file)


def _write_gold_spec(file: Path) -> None:
    """Write the spec as the page on models of one's own has it; others speak of it."""
    page = blocks_of(ROOT / "docs" / "bring-your-own-model.md")
    file.write_text(next(block.text for block in page if block.file_name == file.name), "utf-8")


def _write_bundle(seed: int) -> Callable[[Path], object]:
    return lambda path: tiny_bundle(path.parent, name=path.name, seed=seed)


#: What the documents call the reader's own files.
MAKERS: Mapping[str, Callable[[Path], object]] = {
    "ticks.csv.gz": _write_ticks,
    "ticks.jsonl.gz": _write_ticks,
    "bars.csv": _write_bars,
    "arrays.npz": _write_arrays,
    "gold.h5": _write_gold,
    "gold.toml": _write_gold_spec,
    "bundle": _write_bundle(0),
    "gold-2": _write_bundle(2),
    "new-bundle": _write_bundle(3),
}
