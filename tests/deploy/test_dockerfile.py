"""deploy/Dockerfile: rules that a build would not tell, and what the images weigh."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path, PurePosixPath

import pytest

from daemon.config import MetricsSettings
from tests.deploy.compose_file import ROOT, services
from tests.deploy.image_packages import EXTRAS, bytes_of, packages_of

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
#: An assumption, since no image can be fetched here: Debian's slim base 75 MB unpacked on amd64, Python and pip 50 MB,
#: as `docker images` shows them for the releases of python:3.11-slim-bookworm, and tini.
PYTHON_SLIM_BYTES = 130_000_000
SERVE_BYTES_MAX = 400_000_000


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple[Instruction, ...]


def stages() -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    begins = [*(n for n, line in enumerate(lines) if line.word == "FROM"), len(lines)]
    found = {}
    for begin, end in pairwise(begins):
        base, _, name = lines[begin].rest.partition(" AS ")
        found[name] = Stage(name, base, tuple(lines[begin + 1 : end]))
    return found


STAGES = stages()


def instructions_of(name: str) -> list[Instruction]:
    """Return all that makes an image, those of its bases first."""
    stage = STAGES.get(name)
    return [] if stage is None else [*instructions_of(stage.base), *stage.instructions]


def last(image: str, word: str) -> str:
    return [each.rest for each in instructions_of(image) if each.word == word][-1]


def locked(file: Path) -> dict[str, tuple[str, ...]]:
    """Return package==version -> hashes."""
    text = file.read_text("utf-8").replace("\\\n", " ")
    entries = (line.split("#")[0].split() for line in text.splitlines() if re.match(r"[a-z0-9]", line))
    return {name: tuple(sorted(hashes)) for name, *hashes in entries}


@pytest.mark.parametrize("image", EXTRAS)
def test_an_image_runs_as_nobody_in_particular_and_gets_its_signals(image: str) -> None:
    user = last(image, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "Kubernetes tells only a number from root"
    assert json.loads(last(image, "ENTRYPOINT")) == ["tini", "--", "tickcast"]
    assert json.loads(last(image, "CMD"))[0] == "run"
    assert last(image, "STOPSIGNAL") == "SIGTERM"
    words = [each.word for each in instructions_of(image)]
    assert all(each.word != "RUN" for each in instructions_of(image)[words.index("USER") :])


@pytest.mark.parametrize("image", EXTRAS)
def test_the_health_check_asks_the_daemon_itself_without_a_shell(image: str) -> None:
    options, _, command = last(image, "HEALTHCHECK").partition("CMD")
    program, *_, code = json.loads(command)
    assert program == "python"
    assert f"http://127.0.0.1:{MetricsSettings().port}/livez" in code
    compile(code, "HEALTHCHECK", "exec")
    assert "--start-period" in options


def test_every_stage_stands_on_one_pinned_base() -> None:
    assert {stage.base for stage in STAGES.values()} - STAGES.keys() == {"python:3.11.14-slim-bookworm"}
    assert list(STAGES)[-1] == "serve", "the image that is built where no target is named"


def test_every_package_comes_by_its_hash() -> None:
    installs = [each.rest for stage in STAGES.values() for each in stage.instructions if "install --no" in each.rest]
    assert len(installs) == 2
    assert all("--require-hashes" in each and "--no-deps" in each for each in installs)


@pytest.mark.parametrize("image", EXTRAS)
def test_the_packages_of_an_image_are_those_of_the_lock_and_all_it_needs(image: str) -> None:
    part = locked(ROOT / "deploy" / f"requirements-{image}.txt")
    assert part.items() <= locked(ROOT / "requirements.txt").items()
    assert {name.partition("==")[0] for name in part} == packages_of(image).keys()
    assert all(hashes for hashes in part.values())


def test_the_lean_image_trains_nothing_and_weighs_little() -> None:
    """An estimate: the base, the files of its packages as they are installed here, the program."""
    packages = packages_of("serve")
    assert packages.keys().isdisjoint({"tensorflow-cpu", "keras", "matplotlib", "pyarrow", "h5py"})
    program = sum(file.stat().st_size for folder in ("daemon", "schemas") for file in (ROOT / folder).rglob("*.*"))
    total = PYTHON_SLIM_BYTES + sum(map(bytes_of, packages.values())) + program
    print(f"serve: {total / 1e6:.0f} MB, of which packages {sum(map(bytes_of, packages.values())) / 1e6:.0f} MB")
    assert 200_000_000 < total < SERVE_BYTES_MAX


def test_what_is_copied_is_there_and_let_through() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    let_through = [line[1:] for line in ignored if line.startswith("!")]
    copies = [each.rest.split() for stage in STAGES.values() for each in stage.instructions if each.word == "COPY"]
    sources = [words[-2] for words in copies if not words[0].startswith("--from")]
    assert sorted(sources) == sorted(let_through)
    assert all((ROOT / source).exists() for source in sources)


def test_a_new_volume_finds_the_folder_of_bundles_in_the_image() -> None:
    made = next(each.rest for each in STAGES["base"].instructions if each.word == "RUN")
    _, _, options = made.partition("install --directory ")
    trained = next(each for each in services()["train"].command if each.startswith("--out="))
    assert str(PurePosixPath(trained.removeprefix("--out=")).parent) in options.split()
    assert "--owner {} --group {}".format(*last("full", "USER").split(":")) in options


def test_the_starter_is_the_program() -> None:
    starter = ROOT / "deploy" / "tickcast"
    (made,) = (each.rest for each in STAGES["packages"].instructions if each.word == "RUN")
    assert starter.read_text().startswith(f"#!{made.split()[-1]}/bin/python\n")
    done = subprocess.run([sys.executable, str(starter), "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"tickcast {version('tickcast')}\n"
