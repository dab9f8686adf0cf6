"""Runs tick files through the daemon's own pipeline, faster than real time, and keeps what it forecast.

    ticks of files -> records of a topic -> Pipeline.advance -> forecasts, dead letters -> tapes

The records are those of `feeding`, so by the pipeline's first promise every payload equals the daemon's byte for byte.
"""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from daemon.assembly import build_engine
from daemon.config import Settings, TicksSettings
from daemon.errors import SettingsError, TickFileError
from daemon.judging.feeding import Naming, feed, keep_forecasts
from daemon.judging.tape import Recorder, Tape
from daemon.model.bundle import Bundle


@dataclass(frozen=True)
class Backtest:
    """What came of a run."""

    bundle: Bundle
    tapes: Sequence[Tape]
    #: Records read, and those that became dead letters, by reason.
    tick_count: int
    refused: Counter[str]
    seconds: float
    #: Share of outcomes that the intervals were to hold.
    coverage: float

    @property
    def forecast_count(self) -> int:
        """Forecasts made."""
        return self.tick_count - self.refused.total()


def backtest(
    ticks: Iterable[Mapping[str, Any]],
    settings: Settings,
    *,
    naming: Naming | None = None,
    forecasts: Path | None = None,
    listen: Callable[[int, float], None] = lambda count, seconds: None,
) -> Backtest:
    """Run ticks through the pipeline that the settings describe.

    Parameters
    ----------
    ticks : dicts with the keys of `Tick`, in the order in which they would stand in the topic
    settings : as the daemon's; the names of a mapped topic do not apply, since files have ours
    forecasts : file to write the payloads to, one a line; None for none
    listen : called now and then with the ticks and seconds so far

    Raises
    ------
    BundleError : missing, tampered with, or not the same on this machine
    SettingsError : a setting is wrong, or `forecasts` cannot be written
    TickFileError : a file cannot be read, or none of its ticks can be used
    """
    naming = naming or Naming()
    engine = build_engine(settings.model_copy(update={"ticks": TicksSettings()}))
    bundle = Bundle.load(settings.model.bundle)
    spec = bundle.spec
    recorder = Recorder(spec.horizons, differences=spec.prices_may_be_negative)
    count, refused, began = 0, Counter[str](), time.monotonic()
    with _lines_to(forecasts) as write:
        for fed, batch in feed(engine.pipeline, ticks, naming, settings.pipeline.max_batch_ticks):
            keep_forecasts(recorder, fed, batch, naming)
            write(b"".join(message.value + b"\n" for message in batch.forecasts if message.value is not None))
            count += len(fed)
            refused.update({str(reason): number for reason, number in batch.reasons.items()})
            listen(count, time.monotonic() - began)
        if refused.total() == count:
            raise TickFileError(_nothing_usable(count, refused))
    seconds = time.monotonic() - began
    return Backtest(bundle, recorder.tapes(), count, refused, seconds, settings.pipeline.coverage)


def _nothing_usable(count: int, refused: Counter[str]) -> str:
    if not count:
        return "the files hold no tick"
    reasons = ", ".join(f"{number} {reason}" for reason, number in refused.most_common())
    return f"none of {count} ticks can be used ({reasons}); check prices, times and the fields that the model reads"


@contextmanager
def _lines_to(file: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Give a writer of whole lines; the file appears when all of them are in it, or not at all."""
    if file is None:
        yield lambda lines: None
        return
    draft = file.with_name(file.name + ".part")
    try:
        with _opened(draft, compressed=file.suffix == ".gz") as stream:
            yield stream.write
        draft.replace(file)
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error.strerror}; give another --forecasts") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _opened(file: Path, *, compressed: bool) -> Iterator[IO[bytes]]:
    with file.open("wb") as plain:
        if not compressed:
            yield plain
            return
        # no time and no name in the header: the same forecasts are the same file
        with gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0, compresslevel=6) as stream:
            yield stream  # type: ignore[misc]
