"""What is installed is what was locked: every package by its hash, and none that the lock does not know."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"^(?P<name>[a-z0-9-]+)(\[[a-z,-]+\])?==[^ ]+( ; .+)?$")


def locked() -> dict[str, list[str]]:
    """Return each package of the lock with its hashes."""
    found: dict[str, list[str]] = {}
    text = (ROOT / "requirements.txt").read_text("utf-8").replace("\\\n", " ")
    for line in (line.strip() for line in text.splitlines()):
        if line and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line)
            pinned = PINNED.match(requirement.strip())
            assert pinned, f"neither a pinned package nor a comment: {requirement}"
            found[pinned["name"]] = hashes
    return found


def test_every_package_is_pinned_by_its_hash_and_comes_from_the_index():
    packages = locked()
    assert len(packages) > 20
    for name, hashes in packages.items():
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), name


def test_the_makefile_installs_nothing_but_what_is_locked():
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert all("--no-deps" in line for line in installs)
    assert all("--require-hashes" in line or "--editable ." in line for line in installs)


def test_everything_that_is_asked_for_and_imported_is_locked():
    packages = locked().keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    assert {normal(re.split(r"[<>=~! \[]", each)[0]) for each in wanted} <= packages
    homes = packages_distributions()
    for package in imported():
        assert {normal(home) for home in homes.get(package, [package])} & packages, package


def imported() -> set[str]:
    """Return the packages of others that our sources import."""
    names: set[str] = set()
    for file in [file for folder in ("daemon", "schemas") for file in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"daemon", "schemas"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
