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
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import orjson

from daemon.dev.child import to_toml
from daemon.dev.demo.disease import Answers, told
from daemon.dev.demo.feed import Tick, Ticks
from daemon.errors import BundleError, TickcastError
from daemon.model.manifest import FORMAT
from daemon.revision import CORE_VERSION

#: Small, because the point is a model that shows skill after half a minute of training.
TRAINING = ("--units", "32", "--layers", "1", "--epochs", "6", "--minutes", "1")
DISEASE_SECONDS = 120.0
STOP_SECONDS = 5.0


class KeptModel:
    """A bundle in the demo's folder and a note of what it was trained on.

    Parameters
    ----------
    directory : folder of the demo
    ticks : the market whose past it learns
    sections : the daemon's settings that training reads too
    """

    def __init__(self, directory: Path, ticks: Ticks, sections: Mapping[str, Any]) -> None:
        self.directory = directory
        self.ticks = ticks
        self.bundle = directory / "bundle"
        self._sections = dict(sections)
        self._note = directory / "bundle.json"
        parts = [ticks.key(), TRAINING, self._sections, FORMAT, CORE_VERSION]
        self._key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def lines(self) -> list[str] | None:
        """Return what is to be said about disease and cure, None where no model of this market is kept."""
        try:
            note = json.loads(self._note.read_text("utf-8"))
            if note["key"] != self._key or not (self.bundle / "id").is_file():
                return None
            return [*told(note["disease"]), f"         (measured {note['at']}, when the model was trained)"]
        except (OSError, ValueError, KeyError):
            return None

    def train(self, disease: Answers) -> None:
        """Write the past to a file and train on it with `tickcast train`, which shows its own progress.

        Raises
        ------
        TickcastError : training failed
        """
        past, config = self.directory / "past.jsonl", self.directory / "train.toml"
        _write(past, self.ticks.past())
        config.write_text(to_toml(self._sections), "utf-8")
        self._note.unlink(missing_ok=True)
        arguments = [str(past), "--out", str(self.bundle), "--force", "--config", str(config), *TRAINING]
        with _child(["-m", "daemon.cli.main", "train", *arguments]) as training:
            code = training.wait()
        if code:
            raise TickcastError(f"training failed with code {code}; what it said stands above")
        note = {"key": self._key, "disease": disease, "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
        self._note.write_text(json.dumps(note), "utf-8")


class MeasuredDisease:
    """Disease and cure, measured in a process of its own while others get on; a context manager.

    Raises
    ------
    BundleError : TensorFlow is not installed
    """

    def __init__(self, directory: Path) -> None:
        if importlib.util.find_spec("tensorflow") is None:
            raise BundleError("the demo trains with TensorFlow; install it with `pip install 'tickcast[tensorflow]'`")
        self._log = directory / "disease.log"
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        log = self._exits.enter_context(self._log.open("wb"))
        child = _child(["-m", "daemon.dev.demo.disease"], stdout=subprocess.PIPE, stderr=log)
        self._process = self._exits.enter_context(child)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def wait(self) -> Answers:
        """Return the answers when they are there.

        Raises
        ------
        TickcastError : there are none
        """
        try:
            output, _ = self._process.communicate(timeout=DISEASE_SECONDS)
            answers: Answers = json.loads(output)
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise TickcastError(f"the stateful Keras model gave no answers; see {self._log}") from error
        return answers


@contextmanager
def _child(arguments: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python outside our process group, so that a Ctrl-C reaches us alone; it never outlives the context."""
    process = subprocess.Popen([sys.executable, *arguments], start_new_session=True, **options)
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
