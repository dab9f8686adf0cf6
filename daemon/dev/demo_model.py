"""The demo's model: trained once on the past of its market and kept, with the answers of the disease beside it.

The answers are kept because they do not change, and measuring them costs the seconds that TensorFlow needs to be
imported: too long for the first thing that a second run should say. They carry the time of their measurement.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from daemon.dev import disease
from daemon.dev.demo_feed import Tick, Ticks
from daemon.errors import BundleError, TickcastError
from daemon.model.manifest import FORMAT
from daemon.revision import CORE_VERSION

#: Small, because the point is a model that shows skill after half a minute of training.
TRAINING = ("--units", "32", "--layers", "1", "--epochs", "8", "--minutes", "1")
DISEASE_SECONDS = 120.0
STOP_SECONDS = 5.0


class KeptModel:
    """A bundle in the demo's folder and a note of what it was trained on.

    Parameters
    ----------
    directory : folder of the demo
    ticks : the market whose past it learns
    settings : sections of the daemon's settings that training reads too
    """

    def __init__(self, directory: Path, ticks: Ticks, settings: Mapping[str, Any]) -> None:
        self._directory = directory
        self._ticks = ticks
        self.bundle = directory / "bundle"
        self._note = directory / "bundle.json"
        parts = [ticks.key(), TRAINING, settings, FORMAT, CORE_VERSION]
        self._key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def lines(self) -> list[str] | None:
        """Return what is to be said about disease and cure, None where no model of this market is kept."""
        try:
            note = json.loads(self._note.read_text("utf-8"))
            kept = note["key"] == self._key and (self.bundle / "id").is_file()
            return [*disease.told(note["disease"]), f"         (measured {note['at']})"] if kept else None
        except (OSError, ValueError, KeyError):
            return None

    def train(self, config: Path, answers: Mapping[str, Sequence[float]]) -> None:
        """Write the past to a file and train on it with `tickcast train`, which shows its own progress.

        Raises
        ------
        TickcastError : training failed
        """
        past = self._directory / "past.jsonl"
        _write(past, self._ticks.past())
        self._note.unlink(missing_ok=True)
        command = ["train", str(past), "--out", str(self.bundle), "--force", "--config", str(config), *TRAINING]
        with _child([sys.executable, "-m", "daemon.cli.main", *command]) as training:
            code = training.wait()
        if code:
            raise TickcastError(f"training failed with code {code}; what it said stands above")
        note = {"key": self._key, "disease": answers, "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
        self._note.write_text(json.dumps(note), "utf-8")


@contextmanager
def measured_disease(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Measure disease and cure in a process of its own, while others get on; `answers_of` waits for it.

    Raises
    ------
    BundleError : TensorFlow is not installed
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise BundleError("the demo trains its model with TensorFlow; install it with `pip install 'tickcast[tensorflow]'`")
    with log.open("wb") as output, _child([sys.executable, "-m", disease.__name__], stdout=subprocess.PIPE, stderr=output) as child:
        yield child


def answers_of(child: subprocess.Popen[bytes], log: Path) -> dict[str, list[float]]:
    """Wait for the answers of `measured_disease`."""
    try:
        output, _ = child.communicate(timeout=DISEASE_SECONDS)
        answers: dict[str, list[float]] = json.loads(output)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise TickcastError(f"the stateful Keras model gave no answers; see {log}") from error
    return answers


@contextmanager
def _child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process outside our process group, so that a Ctrl-C reaches us alone; it never outlives the context."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _write(file: Path, ticks: Iterable[Tick]) -> None:
    with file.open("wb") as lines:
        lines.writelines(orjson.dumps(tick) + b"\n" for tick in ticks)
