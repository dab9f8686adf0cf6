"""What the images hold, told from the packages that are installed here: both take them from one lock."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

#: What of the extras is in which image.
EXTRAS = {"serve": {"watch"}, "full": {"tensorflow", "parquet", "report", "watch"}}
#: [tool.uv] override-dependencies: what asks for it gets tensorflow-cpu.
OVERRIDDEN = {"tensorflow"}


def packages_of(image: str) -> dict[str, Distribution]:
    """Return all that tickcast needs in an image, itself left out, by normalised name."""
    found: dict[str, Distribution] = {}
    waiting = [(distribution("tickcast"), EXTRAS[image])]
    while waiting:
        owner, extras = waiting.pop()
        for text in owner.requires or ():
            requirement = Requirement(text)
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if _applies(requirement, extras) and name not in OVERRIDDEN and (name not in found or requirement.extras):
                found[name] = distribution(name)
                waiting.append((found[name], set(requirement.extras)))
    return found


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


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {*extras, ""})
