"""What the images hold, told from the packages that are installed here: both take them from one lock."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

#: What of the extras is in which image.
EXTRAS = {
    "serve": ("librdkafka", "watch"),
    "full": ("tensorflow", "librdkafka", "parquet", "report", "watch"),
}
#: [tool.uv] override-dependencies: what asks for it gets tensorflow-cpu.
OVERRIDDEN = {"tensorflow"}


def packages_of(image: str) -> dict[str, Distribution]:
    """Return all that tickcast needs in an image, itself left out, by normalised name."""
    asked = {("tickcast", frozenset(EXTRAS[image]))}
    waiting = list(asked)
    while waiting:
        owner, extras = waiting.pop()
        for requirement in map(Requirement, distribution(owner).requires or ()):
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            wanted = name, frozenset(requirement.extras)
            if _applies(requirement, extras) and name not in OVERRIDDEN and wanted not in asked:
                asked.add(wanted)
                waiting.append(wanted)
    return {name: distribution(name) for name, _ in asked if name != "tickcast"}


def bytes_of(package: Distribution) -> int:
    """Return the size of a package's files on disk, compiled ones included."""
    paths = {Path(str(package.locate_file(file))) for file in package.files or ()}
    return sum(path.stat().st_size for path in paths if path.is_file())


def only_packages_of(image: str, site: Path) -> None:
    """Make a folder from which Python imports the packages of an image, and no other that is installed here."""
    site.mkdir()
    for package in packages_of(image).values():
        for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            place = site / name
            if not place.exists():
                place.symlink_to(Path(str(package.locate_file(name))))


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {*extras, ""})
