"""Locked doors of a real broker: who comes in, who does not, in which words, and how often is tried."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaProducer
from kafka.admin import ACLOperation, ResourceType

from daemon.config import KafkaSettings, SecuritySettings, TopicSettings, load_settings
from daemon.dev.child import ChildDaemon
from daemon.errors import AccessDenied, SettingsError
from daemon.training.topic import find_ranges, read_topic
from daemon.transport.admin_client import admin_client
from daemon.transport.connection import Connection
from daemon.transport.knock import knock
from tests.bundles import tiny_bundle
from tests.contract.worlds import CLIENTS
from tests.e2e.world import await_that, origin, read_topics
from tests.integration.tool import Tool
from tests.kafka_fixture import make_topics
from tests.secure_kafka import (
    PLAIN_PASSWORD,
    PLAIN_USER,
    Right,
    SecureKafka,
    running_secure_kafka,
    secret_file,
    unsigned_token,
)
from tests.token_endpoint import Endpoint, token

pytestmark = pytest.mark.kafka

READ, WRITE = ACLOperation.READ, ACLOperation.WRITE
TOPIC, GROUP, TRANSACTION = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
#: Must be found in no output and no log, whatever happens.
CANARY = "scram-canary-0042"
WRONG = "wrong-canary-0043"
#: One knock, another in the other protocol, and what the broker still had to log of the test before. kafka-python alone
#: makes some ten attempts in its first 5 s.
ATTEMPTS_MAX = 4


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with running_secure_kafka(tmp_path_factory.mktemp("secure-kafka")) as kafka:
        kafka.add_user("ann", CANARY)
        yield kafka


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle")).path


def connection(secure: SecureKafka, listener: str, security: Mapping[str, Any]) -> Connection:
    """Connect to a listener; ``$name`` in a value stands for a paper."""
    papers = vars(secure.papers)
    values = {k: papers[v[1:]] if str(v).startswith("$") else v for k, v in security.items()}
    return Connection.from_settings(
        KafkaSettings(bootstrap_servers=secure.listeners[listener], security=SecuritySettings(**values))
    )


TLS = {"protocol": "SSL", "ca_file": "$ca"}
SASL = {"protocol": "SASL_SSL", "ca_file": "$ca"}
OURS = {"certificate_file": "$certificate", "key_file": "$key"}
LOCKED = {"certificate_file": "$certificate", "key_file": "$locked_key", "key_password": "$locked_key_password"}


def scram(password: str, bits: int = 512) -> dict[str, str]:
    return {"mechanism": f"SCRAM-SHA-{bits}", "username": "ann", "password": password}


def plain(password: str) -> dict[str, str]:
    return {"mechanism": "PLAIN", "username": PLAIN_USER, "password": password}


@pytest.mark.parametrize(
    ("listener", "security"),
    [
        ("TLS", TLS),
        ("MUTUAL", TLS | OURS),
        ("MUTUAL", TLS | LOCKED),
        ("LOGIN", SASL | scram(CANARY, 256)),
        ("LOGIN", SASL | scram(CANARY, 512)),
        ("LOGIN", SASL | plain(PLAIN_PASSWORD)),
        ("CLEAR", {"protocol": "SASL_PLAINTEXT"} | plain(PLAIN_PASSWORD)),
    ],
)
def test_who_belongs_here_comes_in(secure: SecureKafka, listener: str, security: Mapping[str, Any]) -> None:
    place = connection(secure, listener, security)
    with admin_client(place) as admin:
        assert len(admin.describe_cluster()["brokers"]) == 1
    assert brokers_by_librdkafka(place) == 1


def brokers_by_librdkafka(place: Connection) -> int:
    """Come in by the other client, with the same settings; return how many brokers it finds."""
    librd_client = pytest.importorskip("daemon.transport.librd_client", reason="the extra librdkafka is not installed")
    client = librd_client.Producer(librd_client.client_options(place), logger=librd_client.ClientLog())
    return len(client.list_topics(timeout=20).brokers)


@pytest.mark.parametrize(
    ("listener", "security", "said"),
    [
        ("TLS", TLS | {"ca_file": "$other_ca"}, r"cannot trust \(unable to get local issuer.*; set .* ca_file to the"),
        ("TLS", {"protocol": "SSL"}, r"cannot trust \(unable to get local issuer certificate\); set .* ca_file"),
        ("STALE", TLS, r"cannot trust \(certificate has expired\); have it renewed"),
        ("TLS", {}, r'speaks TLS; set \[kafka\.security\] protocol = "SSL"'),
        ("LOGIN", {"protocol": "SASL_PLAINTEXT"} | plain(PLAIN_PASSWORD), 'speaks TLS; set .* protocol = "SASL_SSL"'),
        ("PLAINTEXT", TLS, 'speaks no TLS; set .* protocol = "PLAINTEXT"'),
        ("CLEAR", SASL | plain(PLAIN_PASSWORD), 'speaks no TLS; set .* protocol = "SASL_PLAINTEXT"'),
        ("TLS", SASL | plain(PLAIN_PASSWORD), 'wants no login; set .* protocol = "SSL"'),
        ("LOGIN", TLS, r'wants a login \(OAUTHBEARER, PLAIN, .*; set .* protocol = "SASL_SSL" and mechanism'),
        ("CLEAR", {}, r'wants a login \(.*; set .* protocol = "SASL_PLAINTEXT" and mechanism'),
        ("MUTUAL", TLS, r"wants a certificate of ours .*; set .* certificate_file and key_file"),
        (
            "MUTUAL",
            TLS | {"certificate_file": "$other_certificate", "key_file": "$other_key"},
            r"refuses our certificate .*; check .* certificate_file",
        ),
        ("LOGIN", SASL | scram(WRONG), r"refuses our login \(.*invalid credentials.*; check .* username and password"),
        ("LOGIN", SASL | scram(WRONG) | {"username": "nobody"}, "refuses our login"),
        ("LOGIN", SASL | plain(WRONG), r"refuses our login \(.*Invalid username or password\); check"),
    ],
)
def test_who_does_not_is_told_why_at_once_and_tries_no_more(
    secure: SecureKafka, listener: str, security: Mapping[str, Any], said: str
) -> None:
    before = secure.refusals()
    with pytest.raises(AccessDenied, match=said) as raised, admin_client(connection(secure, listener, security)):
        pass
    assert re.search(said, str(raised.value))
    assert CANARY not in str(raised.value)
    assert WRONG not in str(raised.value)
    assert secure.refusals() - before <= ATTEMPTS_MAX


def test_a_certificate_for_another_name_is_not_accepted(secure: SecureKafka) -> None:
    kafka = KafkaSettings(
        bootstrap_servers=secure.listeners["TLS"].replace("127.0.0.1", "localhost"),
        security=SecuritySettings(protocol="SSL", ca_file=secure.papers.ca),
    )
    there = Connection.from_settings(kafka)
    said = r"not valid for 'localhost'.*bootstrap_servers as its certificate does"
    with pytest.raises(AccessDenied, match=said), admin_client(there):
        pass


def test_one_broker_that_refuses_does_not_keep_us_from_another(secure: SecureKafka) -> None:
    security = SecuritySettings(protocol="SSL", ca_file=secure.papers.ca)
    servers = f"{secure.listeners['MUTUAL']},{secure.listeners['TLS']}"
    with admin_client(Connection.from_settings(KafkaSettings(bootstrap_servers=servers, security=security))) as admin:
        assert len(admin.describe_cluster()["brokers"]) == 1


def test_a_broker_that_says_nothing_does_not_cost_the_whole_patience(secure: SecureKafka) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        servers = f"127.0.0.1:{silent.getsockname()[1]},{secure.listeners['TLS']}"
        security = SecuritySettings(protocol="SSL", ca_file=secure.papers.ca)
        place = Connection.from_settings(KafkaSettings(bootstrap_servers=servers, security=security))
        began = time.monotonic()
        assert knock(place, 300.0)
        assert time.monotonic() - began < 100


def test_a_token_file_is_read_for_every_login(secure: SecureKafka, tmp_path: Path) -> None:
    file = secret_file(tmp_path / "token", unsigned_token("ann"))
    extensions = {"logicalCluster": "lkc-1"}
    bearer = connection(
        secure, "LOGIN", SASL | {"mechanism": "OAUTHBEARER", "token_file": file, "extensions": extensions}
    )
    with admin_client(bearer) as admin:
        assert admin.describe_cluster()["brokers"]
    assert brokers_by_librdkafka(bearer) == 1
    secret_file(file, unsigned_token("ann", -60))
    with pytest.raises(AccessDenied, match=r"refuses our login .*invalid_token.*token_file"), admin_client(bearer):
        pass
    secret_file(file, "no token\x01auth=Bearer other")
    with pytest.raises(SettingsError, match=r"token_file = .* holds no token"), admin_client(bearer):
        pass


def test_an_endpoint_gives_the_token(secure: SecureKafka, tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    endpoint.answer = lambda: token(unsigned_token("ann"), 3600)
    both = tmp_path / "both.pem"
    both.write_text(secure.papers.ca.read_text() + endpoint.ca_file.read_text())
    client = {"token_url": endpoint.url, "client_id": "tickcast", "client_secret": CANARY}
    place = connection(secure, "LOGIN", SASL | {"mechanism": "OAUTHBEARER", "ca_file": both} | client)
    for _ in range(2):
        with admin_client(place) as admin:
            assert admin.describe_cluster()["brokers"]
    assert brokers_by_librdkafka(place) == 1
    endpoint.close()
    assert len(endpoint.asked) == 1


def test_a_password_file_is_read_for_every_login(secure: SecureKafka, tmp_path: Path) -> None:
    secure.add_user("rota", "first")
    file = secret_file(tmp_path / "password", "first\n")
    security = SASL | {"mechanism": "SCRAM-SHA-256", "username": "rota", "password_file": file}
    rota = connection(secure, "LOGIN", security)
    with admin_client(rota) as admin:
        assert admin.describe_cluster()["brokers"]
    secure.add_user("rota", "second")
    with pytest.raises(AccessDenied), admin_client(rota):
        pass
    secret_file(file, "second\n")
    with admin_client(rota) as admin:
        assert admin.describe_cluster()["brokers"]
    assert brokers_by_librdkafka(rota) == 1


def test_librdkafka_takes_a_new_password_while_it_lives(
    secure: SecureKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    librd_client = pytest.importorskip("daemon.transport.librd_client", reason="the extra librdkafka is not installed")
    secure.add_user("renewed", "second")
    file = secret_file(tmp_path / "password", "first\n")
    security = SASL | {"mechanism": "SCRAM-SHA-256", "username": "renewed", "password_file": file}
    place = connection(secure, "LOGIN", security)
    client = librd_client.Producer(librd_client.client_options(place), logger=librd_client.ClientLog())
    monkeypatch.setattr(librd_client, "PASSWORD_SECONDS", 0.0)
    password = librd_client.Password(place, client)
    with pytest.raises(librd_client.KafkaException):
        client.list_topics(timeout=2)
    secret_file(file, "second\n")
    password.renew()
    assert len(client.list_topics(timeout=20).brokers) == 1


# ---- the daemon and the commands, as documented


class Desk:
    """One set of topics, one group, and what is needed to run there as some user."""

    def __init__(self, secure: SecureKafka, bundle: Path, directory: Path) -> None:
        topics = make_topics(secure.broker.bootstrap, "secure")
        self.topics = topics.model_copy(update={"scores": f"{topics.ticks}-scores"})
        self.group = f"{topics.ticks}-group"
        self._secure, self._bundle, self.directory = secure, bundle, directory
        with secure.admin() as admin:
            admin.create_topics({self.topics.scores: {"num_partitions": 4}}, wait_for_metadata=True)

    def settings(self, user: str, password: str, **security: Any) -> dict[str, Any]:
        """Return the settings of a user, with everything on; the password stands in a file."""
        file = secret_file(self.directory / f"{user}-{password.partition('-')[0]}.password", password + "\n")
        return {
            "kafka": {
                "bootstrap_servers": self._secure.listeners["LOGIN"],
                "group_id": self.group,
                "broker_timeout_seconds": 30,
            },
            "kafka.security": {
                "protocol": "SASL_SSL",
                "ca_file": str(self._secure.papers.ca),
                "mechanism": "SCRAM-SHA-512",
                "username": user,
                "password_file": str(file),
            }
            | security,
            "topics": self.topics.model_dump(),
            "model": {"bundle": str(self._bundle), "bundles": str(self.directory / "bundles")},
            "metrics": {"port": 0},
            "log": {"level": "debug"},
        }

    def tool(self, user: str, password: str, **security: Any) -> Tool:
        return Tool(self.directory / f"{user}.toml", self.settings(user, password, **security))

    def send(self, count: int) -> None:
        """Send quotes as the super user, in the clear."""
        producer = KafkaProducer(bootstrap_servers=self._secure.broker.bootstrap)
        for n in range(count):
            tick = {"instrument": f"I{n % 5}", "ts": time.time_ns(), "bid": 100 + n % 7, "ask": 101 + n % 7}
            producer.send(self.topics.ticks, json.dumps(tick).encode(), partition=n % 4)
        producer.close()

    def await_outcomes(self, count: int) -> None:
        """Wait until so many ticks have an outcome, each one."""

        def outcomes() -> int:
            records = read_topics(self._secure.broker.bootstrap, self.topics.forecasts, self.topics.dead_letters)
            return len({origin(record) for record in records})

        await_that(lambda: outcomes() == count, f"{count} outcomes")


@pytest.fixture(scope="module")
def desk(secure: SecureKafka, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(secure, bundle, tmp_path_factory.mktemp("desk"))


def daemon_rights(topics: TopicSettings, group: str) -> dict[str, Right]:
    """Return all that `tickcast run` needs, by the words in which a missing one is named."""
    return {
        f"READ topic {topics.ticks}": (TOPIC, topics.ticks, READ),
        f"WRITE topic {topics.forecasts}": (TOPIC, topics.forecasts, WRITE),
        f"READ topic {topics.state}": (TOPIC, topics.state, READ),
        f"WRITE topic {topics.state}": (TOPIC, topics.state, WRITE),
        f"WRITE topic {topics.dead_letters}": (TOPIC, topics.dead_letters, WRITE),
        f"WRITE topic {topics.scores}": (TOPIC, topics.scores, WRITE),
        f"READ group {group}": (GROUP, group, READ),
        f"WRITE transactional id {group}/": (TRANSACTION, f"{group}/", WRITE),
    }


def operator_rights(topics: TopicSettings, group: str) -> list[Right]:
    """Return what the other commands need beyond that: to read all, to put ticks and dead letters into the input."""
    return [
        *daemon_rights(topics, group).values(),
        (TOPIC, topics.ticks, WRITE),
        (TOPIC, topics.forecasts, READ),
        (TOPIC, topics.dead_letters, READ),
        (GROUP, f"{group}.deadletters", READ),
        (GROUP, "tickcast-train", ACLOperation.DESCRIBE),
    ]


RIGHTS_PAGE = Path(__file__).parents[2] / "docs" / "rights.md"


def test_the_page_about_rights_lists_exactly_these() -> None:
    if not RIGHTS_PAGE.exists():
        pytest.skip("docs/rights.md is not written yet")
    topics = TopicSettings(scores="scores")
    names = {f"`[topics] {role}`": getattr(topics, role) for role in TopicSettings.model_fields}
    names |= {"`[kafka] group_id`": "group", "`[kafka] group_id` + `/`, prefixed": "group/"}
    table = RIGHTS_PAGE.read_text("utf-8").partition("|---|")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[1:]]
    kinds = {"topic": TOPIC, "group": GROUP, "transactional id": TRANSACTION}
    assert {(kinds[kind], names[name], ACLOperation[operation]) for kind, name, operation, _ in rows} == set(
        daemon_rights(topics, "group").values()
    )


@contextmanager
def running(desk: Desk, user: str, password: str, client: str = CLIENTS[0]) -> Iterator[ChildDaemon]:
    settings = desk.settings(user, password)
    settings["kafka"]["client"] = client
    daemon = ChildDaemon(desk.directory, settings, name=f"daemon-{user}-{client}")
    try:
        yield daemon.start()
    finally:
        daemon.stop()


@pytest.mark.parametrize("client", CLIENTS)
def test_with_exactly_the_documented_rights_the_daemon_forecasts(
    secure: SecureKafka, bundle: Path, tmp_path: Path, client: str
) -> None:
    desk = Desk(secure, bundle, tmp_path)
    secure.add_user("daemon", CANARY, list(daemon_rights(desk.topics, desk.group).values()))
    with running(desk, "daemon", CANARY, client) as daemon:
        daemon.wait_ready()
        desk.send(200)
        desk.await_outcomes(200)
        listening = {c.laddr.ip for c in psutil.Process(daemon.process.pid).net_connections() if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
        assert daemon.stop() == 0
    assert CANARY not in daemon.log.read_text()


@pytest.mark.parametrize("missing", range(8))
def test_without_one_of_them_it_names_it_and_ends(secure: SecureKafka, desk: Desk, missing: int) -> None:
    rights = daemon_rights(desk.topics, desk.group)
    name, (words, left_out) = f"lacks-{missing}", list(rights.items())[missing]
    secure.add_user(name, CANARY, [right for right in rights.values() if right != left_out])
    done = desk.tool(name, CANARY).run("run")
    assert done.returncode == AccessDenied.exit_code, done
    lines = [line for line in done.stderr.splitlines() if line.startswith("tickcast: error:")]
    assert len(lines) == 1
    assert f"no right to {words}" in lines[0]
    assert "; grant our user" in lines[0]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_right_taken_away_while_it_runs_ends_it(
    secure: SecureKafka, bundle: Path, tmp_path: Path, client: str
) -> None:
    desk = Desk(secure, bundle, tmp_path)
    rights = daemon_rights(desk.topics, desk.group)
    secure.add_user("loses", CANARY, list(rights.values()))
    with running(desk, "loses", CANARY, client) as daemon:
        daemon.wait_ready()
        secure.revoke("loses", rights[f"WRITE topic {desk.topics.forecasts}"])
        while daemon.process.poll() is None:  # the broker learns of it a moment later
            desk.send(1)
        assert daemon.process.returncode == AccessDenied.exit_code
    assert re.search("TopicAuthorizationFailed|TOPIC_AUTHORIZATION_FAILED", daemon.tail(1))


@pytest.mark.parametrize(
    ("password", "security", "said"),
    [
        (WRONG, {}, "refuses our login"),
        (CANARY, {"ca_file": "$other_ca"}, "cannot trust"),
    ],
)
def test_a_daemon_that_is_refused_ends_with_one_line_after_one_attempt(
    secure: SecureKafka, desk: Desk, password: str, security: dict[str, str], said: str
) -> None:
    papers = vars(secure.papers)
    paths = {key: str(papers[value[1:]]) if value.startswith("$") else value for key, value in security.items()}
    before, began = secure.refusals(), time.monotonic()
    done = desk.tool("ann", password, **paths).run("run")
    assert done.returncode == AccessDenied.exit_code, done
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("tickcast: error:")]
    assert said in line
    assert secure.refusals() - before <= ATTEMPTS_MAX
    assert time.monotonic() - began < 30  # far below the 60 s that an absent broker is waited for
    assert password not in done.stdout + done.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_a_session_lives_on_with_new_tokens_and_ends_without(
    secure: SecureKafka, bundle: Path, tmp_path: Path, client: str
) -> None:
    """The broker ends a session with its token; a sidecar writes new ones, for a while."""
    desk, lifetime = Desk(secure, bundle, tmp_path), 6.0
    secure.grant("bearer", list(daemon_rights(desk.topics, desk.group).values()))
    file = secret_file(tmp_path / "token", unsigned_token("bearer", lifetime))
    over = threading.Event()

    def sidecar() -> None:
        while not over.wait(0.3):
            secret_file(tmp_path / "new", unsigned_token("bearer", lifetime)).replace(file)

    settings = desk.settings("bearer", "none")
    settings["kafka"]["client"] = client
    for key in ("username", "password_file"):
        del settings["kafka.security"][key]
    settings["kafka.security"] |= {"mechanism": "OAUTHBEARER", "token_file": str(file)}
    thread = threading.Thread(target=sidecar)
    thread.start()
    refused, sent = secure.refusals(), 0
    daemon = ChildDaemon(tmp_path, settings).start()
    try:
        ready = time.monotonic() if daemon.wait_ready() else 0.0
        while time.monotonic() < ready + lifetime:  # every session of the start has ended by then
            desk.send(10)
            sent += 10
            desk.await_outcomes(sent)
        assert daemon.metrics().get('tickcast_transactions_total{outcome="failed"}', 0) == 0
        assert secure.refusals() == refused
        over.set()
        await_that(lambda: daemon.process.poll() is not None, "the daemon ends")
        assert daemon.process.returncode == AccessDenied.exit_code
    finally:
        over.set()
        thread.join()
        daemon.stop()
    assert len([line for line in daemon.log.read_text().splitlines() if line.startswith("tickcast: error:")]) == 1


TICKS = [{"instrument": "A", "ts": 1_767_225_600_000_000_000 + n, "price": 100.0 + n % 3} for n in range(40)]


def test_every_command_uses_the_same_door_and_tells_no_secret(
    secure: SecureKafka, bundle: Path, tmp_path: Path
) -> None:
    desk = Desk(secure, bundle, tmp_path)
    secure.add_user("operator", CANARY, operator_rights(desk.topics, desk.group))
    tool = desk.tool("operator", CANARY)
    ticks = tmp_path / "ticks.jsonl"
    ticks.write_text("".join(json.dumps(tick) + "\n" for tick in [*TICKS, {**TICKS[0], "price": -1.0}]))
    said: list[subprocess.CompletedProcess[str]] = []

    def ask(*arguments: str, code: int = 0) -> str:
        done = tool.run(*arguments)
        said.append(done)
        assert done.returncode == code, done
        return done.stdout

    assert "nothing is wrong" in ask("topics", "check")
    assert "was there" in ask("topics", "create")
    assert json.loads(ask("replay", str(ticks), "--json"))["ticks"] == 41
    with running(desk, "operator", CANARY) as daemon:
        daemon.wait_ready()
        desk.await_outcomes(41)
        status = json.loads(ask("status", "--json"))
        assert {row["owner"] for row in status["partitions"]} == {"0"}
        other = tiny_bundle(tmp_path, seed=5, name="other").path
        assert json.loads(ask("audit", "--json"))
        examined = tool.run("doctor", "cluster", "--json")
        said.append(examined)
        assert json.loads(examined.stdout), examined
        ask("bundle", "promote", str(other))
        assert daemon.stop() == 0
    assert json.loads(ask("state", "list", "--json"))
    assert "price_not_positive" in ask("deadletters", "show")
    ask("deadletters", "replay")
    ask("state", "reset", "--all", "--yes")
    ask("rewind", "--to", "earliest", "--yes")
    ask("bundle", "show")
    settings = load_settings(tmp_path / "operator.toml")
    place = Connection.from_settings(settings.kafka)
    ranges = find_ranges(place, desk.topics.ticks, "earliest", "latest")
    assert len(list(read_topic(place, desk.topics.ticks, ranges))) >= 41
    said += [desk.tool("operator", WRONG).run("topics", "check"), desk.tool("operator", WRONG).run("run")]
    heard = "".join(done.stdout + done.stderr for done in said) + daemon.log.read_text()
    assert "refuses our login" in heard
    assert CANARY not in heard
    assert WRONG not in heard
