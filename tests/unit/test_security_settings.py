"""Settings of a protected cluster: what belongs together, what a file holds, and that no secret is ever shown."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from daemon.cli.main import app
from daemon.config import KafkaSettings, SecuritySettings, load_settings
from daemon.errors import SettingsError
from daemon.transport.connection import Connection
from tests.secure_kafka import secret_file

CANARY = "canary-0451"

LOGIN = {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "ann"}
BEARER = {"protocol": "SASL_SSL", "mechanism": "OAUTHBEARER"}
CLIENT = {"token_url": "https://sso.example/token", "client_id": "tickcast", "client_secret": CANARY}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TICKCAST_KAFKA")]:
        monkeypatch.delenv(name)


def toml(tmp_path: Path, security: Mapping[str, object]) -> Path:
    lines = [f"{key} = {value if isinstance(value, int) else repr(str(value))}" for key, value in security.items()]
    return secret_file(tmp_path / "tickcast.toml", "\n".join(["[kafka.security]", *lines]))


@pytest.mark.parametrize(
    "security",
    [
        {},
        {"protocol": "SSL"},
        {"protocol": "SSL", "ca_file": "ca.pem", "certificate_file": "c.pem", "key_file": "c.key"},
        LOGIN | {"password": CANARY},
        LOGIN | {"password_file": "password"},
        LOGIN | {"protocol": "SASL_PLAINTEXT", "password": CANARY},
        BEARER | {"token_file": "token"},
        BEARER | CLIENT | {"scope": "kafka"},
        BEARER | CLIENT | {"token_url": "http://127.0.0.1:8080/token"},
    ],
)
def test_what_belongs_together_is_taken(tmp_path: Path, security: Mapping[str, object]) -> None:
    assert load_settings(toml(tmp_path, security)).kafka.security.protocol == security.get("protocol", "PLAINTEXT")


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"protocol": "SLL"}, "kafka.security.protocol = 'SLL': input should be 'PLAINTEXT', 'SSL'"),
        ({"ca_file": "ca.pem"}, 'ca_file counts under TLS only, protocol is PLAINTEXT; set protocol = "SSL"'),
        (
            LOGIN | {"password": CANARY, "protocol": "SASL_PLAINTEXT", "ca_file": "c"},
            'ca_file counts under TLS only, protocol is SASL_PLAINTEXT; set protocol = "SASL_SSL"',
        ),
        ({"protocol": "SSL", "certificate_file": "c"}, "certificate_file and key_file need each other"),
        ({"protocol": "SSL", "key_file": "c"}, "certificate_file and key_file need each other"),
        ({"protocol": "SSL", "key_password_file": "c"}, "a key_password without a key_file; set key_file"),
        ({"mechanism": "PLAIN"}, 'mechanism is for a login, protocol is PLAINTEXT; set protocol = "SASL_SSL"'),
        ({"protocol": "SSL", "password": CANARY}, "password is for a login, protocol is SSL"),
        ({"protocol": "SASL_SSL"}, 'protocol = "SASL_SSL" needs a mechanism: PLAIN'),
        (LOGIN, "mechanism SCRAM-SHA-512 needs a password or, better, a password_file"),
        (LOGIN | {"username": "", "password": CANARY}, "mechanism SCRAM-SHA-512 needs a username"),
        (LOGIN | {"password": CANARY, "password_file": "p"}, "password and password_file are both set; keep one"),
        (LOGIN | {"password": CANARY, "token_file": "t"}, "token_file is for OAUTHBEARER, not for SCRAM-SHA-512"),
        (BEARER, "needs a token_file or a token_url, one of the two"),
        (BEARER | CLIENT | {"token_file": "t"}, "needs a token_file or a token_url, one of the two"),
        (BEARER | {"token_file": "t", "password": CANARY}, "password is not for OAUTHBEARER; leave it out"),
        (BEARER | {"token_file": "t", "scope": "s"}, "scope goes with a token_url"),
        (BEARER | {"token_url": "https://sso.example"}, "a token_url needs client_id and client_secret"),
        (BEARER | CLIENT | {"token_url": "http://sso.example"}, "would send the secret in the clear"),
        (BEARER | CLIENT | {"token_url": f"https://me:{CANARY}@sso.example"}, "token_url holds a user or password"),
        (BEARER | CLIENT | {"token_url": "file:///etc/passwd"}, "token_url is no https address"),
        (LOGIN | {"password": 451}, "kafka.security.password: input should be a valid string"),
        (LOGIN | {"pasword": CANARY}, "unknown key kafka.security.pasword"),
    ],
)
def test_what_does_not_is_one_line_that_names_the_key_and_shows_no_secret(
    tmp_path: Path, security: Mapping[str, object], said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(toml(tmp_path, security))
    assert said in str(caught.value)
    assert str(caught.value).startswith(("kafka.security", "unknown key kafka.security"))
    assert "\n" not in str(caught.value)
    for secret in (CANARY, "451"):
        assert secret not in str(caught.value)
        assert secret not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", [CANARY, '{"security": "' + CANARY + '"}', "[" + CANARY])
def test_an_environment_that_cannot_be_read_is_one_line_without_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TICKCAST_KAFKA", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "kafka" in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_secrets_come_from_the_environment_and_are_shown_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKCAST_KAFKA__SECURITY__PASSWORD", CANARY)
    settings = load_settings(toml(tmp_path, LOGIN))
    there = Connection.from_settings(settings.kafka)
    assert there.security["sasl_plain_password"]() == CANARY
    shown = [CliRunner().invoke(app, ["config", "show", "-c", str(tmp_path / "tickcast.toml"), *form]).output
             for form in ((), ("--json",))]  # fmt: skip
    everything = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(there),
        str(dict(there.security)),
        *shown,
    ]
    assert all("SASL_SSL" in text or "Connection" in text for text in everything)
    assert CANARY not in "".join(everything)


def test_an_empty_secret_in_the_environment_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKCAST_KAFKA__SECURITY__PASSWORD", "")
    file = secret_file(tmp_path / "password", CANARY)
    settings = load_settings(toml(tmp_path, LOGIN | {"password_file": file}))
    assert Connection.from_settings(settings.kafka).security["sasl_plain_password"]() == CANARY


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_file_is_read_without_its_line_end_each_time(tmp_path: Path, ending: str) -> None:
    file = secret_file(tmp_path / "password", CANARY + ending)
    there = Connection.from_settings(KafkaSettings(security=SecuritySettings(**LOGIN, password_file=file)))
    assert there.security["sasl_plain_password"]() == CANARY
    file.write_text("another one" + ending)
    assert there.security["sasl_plain_password"]() == "another one"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file or directory; make it readable"), (b"", "is empty"), (b"\xff" + CANARY.encode(), "no UTF-8"),
     (b"x" * 70_000, "more than 65536 bytes"), ("folder", "Is a directory")],
)  # fmt: skip
def test_a_secret_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | str | None, said: str) -> None:
    file = tmp_path / "password"
    if isinstance(content, bytes):
        secret_file(file, "").write_bytes(content)
    elif content:
        file.mkdir()
    result = CliRunner().invoke(app, ["config", "check", "-c", str(toml(tmp_path, LOGIN | {"password_file": file}))])
    assert isinstance(result.exception, SettingsError)
    assert f"kafka.security.password_file = {file}" in str(result.exception)
    assert said in str(result.exception)
    assert CANARY not in "".join(traceback.format_exception(result.exception))


@pytest.mark.parametrize("key", ["ca_file", "certificate_file", "key_file"])
def test_what_is_no_certificate_or_key_is_named_at_the_start(tmp_path: Path, key: str) -> None:
    leaf = trustme.CA().issue_cert("client@tickcast.test")
    files = {
        "ca_file": leaf.cert_chain_pems[0].bytes().decode(),
        "certificate_file": leaf.cert_chain_pems[0].bytes().decode(),
        "key_file": leaf.private_key_pem.bytes().decode(),
    } | {key: "-----BEGIN NONSENSE-----\n" + CANARY}
    paths = {name: secret_file(tmp_path / name, text) for name, text in files.items()}
    with pytest.raises(SettingsError, match=f"{key} = {paths[key]}") as caught:
        Connection.from_settings(KafkaSettings(security=SecuritySettings(protocol="SSL", **paths)))
    assert CANARY not in str(caught.value)


def test_a_secret_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = secret_file(tmp_path / "password", CANARY)

    def warnings(protocol: str, mechanism: str) -> list[str]:
        login = LOGIN | {"protocol": protocol, "mechanism": mechanism, "password_file": file}
        caplog.clear()
        Connection.from_settings(KafkaSettings(security=SecuritySettings(**login)))
        return caplog.messages

    assert warnings("SASL_SSL", "PLAIN") == warnings("SASL_PLAINTEXT", "SCRAM-SHA-512") == []
    assert warnings("SASL_PLAINTEXT", "PLAIN") == [
        "PLAIN under SASL_PLAINTEXT sends its secret in the clear; SASL_SSL does not"
    ]
    file.chmod(0o644)
    assert warnings("SASL_SSL", "PLAIN") == [
        f"kafka.security.password_file = {file} can be read by every user of this machine; chmod o-r"
    ]
