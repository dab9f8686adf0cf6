"""Settings: read once at start, from one TOML file and the environment, and checked as a whole.

Every key has an environment name: ``TICKCAST_`` + section + ``__`` + key, e.g. ``TICKCAST_KAFKA__BOOTSTRAP_SERVERS``;
the environment wins over the file. Unknown keys are an error in both. This is the one module that reads the
environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource
from pydantic_settings import SettingsError as EnvironmentParseError

from daemon.errors import SettingsError

ENV_PREFIX = "TICKCAST_"
#: Environment names with our prefix that are not settings: where the tests find real ticks.
ENV_RESERVED = frozenset({"TICKCAST_TEST_DATA"})

Name = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
#: As RFC 7628 has them; nothing that could end a field of the login message early.
ExtensionName = Annotated[str, Field(pattern=r"^[A-Za-z]+$")]
ExtensionValue = Annotated[str, Field(pattern=r"^[ -~]+$")]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    # Without their inputs: what is wrong may be a secret, and a validation error stands in tracebacks.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SecuritySettings(Section):
    """How to speak to a protected cluster. A secret stands here or, better, in a file of its own."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="security protocol of the listeners"
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities that may sign the brokers' certificates; else the system's"
    )
    certificate_file: Path | None = Field(None, description="PEM file of our own certificate")
    key_file: Path | None = Field(None, description="PEM file of our own private key")
    key_password: SecretStr | None = Field(None, description="password of an encrypted private key; never logged")
    key_password_file: Path | None = Field(None, description="file that holds it")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="SASL mechanism"
    )
    username: str | None = Field(None, description="PLAIN, SCRAM: user")
    password: SecretStr | None = Field(None, description="PLAIN, SCRAM: password; never logged")
    password_file: Path | None = Field(None, description="file that holds it; read again for every login")
    token_file: Path | None = Field(None, description="OAUTHBEARER: file with a token; read again for every login")
    token_url: str | None = Field(None, description="OAUTHBEARER: where a token is given for client id and secret")
    client_id: str | None = Field(None, description="OAUTHBEARER: our name at token_url")
    client_secret: SecretStr | None = Field(None, description="OAUTHBEARER: our secret at token_url; never logged")
    client_secret_file: Path | None = Field(None, description="file that holds it; read again for every token")
    scope: str | None = Field(None, description="OAUTHBEARER: scope to ask token_url for")
    extensions: Mapping[ExtensionName, ExtensionValue] = Field(
        default_factory=dict, description="OAUTHBEARER: what else a login says, e.g. logicalCluster and identityPoolId"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> SecuritySettings:
        given = {key for key in type(self).model_fields if _is_given(getattr(self, key))}
        for problem in _security_problems(self, given):
            raise ValueError(problem)
        return self


def _is_given(value: object) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


TLS_KEYS = ("ca_file", "certificate_file", "key_file", "key_password", "key_password_file")
PASSWORD_KEYS = ("username", "password", "password_file")
TOKEN_KEYS = ("token_file", "token_url", "client_id", "client_secret", "client_secret_file", "scope", "extensions")
#: Each may stand in the settings or in a file, not in both.
SECRETS = ("key_password", "password", "client_secret")


def _security_problems(security: SecuritySettings, given: Set[str]) -> Iterator[str]:
    """Say what does not fit together: a key that would have no effect is an error, it was meant to protect something.

    Parameters
    ----------
    given : the keys that are set
    """
    protocol, mechanism = security.protocol, security.mechanism
    sasl = protocol.startswith("SASL")

    def found(*keys: str) -> list[str]:
        return [key for key in keys if key in given]

    yield from (f"{key} and {key}_file are both set; keep one" for key in SECRETS if {key, f"{key}_file"} <= given)
    for key in found(*TLS_KEYS) if not protocol.endswith("SSL") else ():
        yield f'{key} counts under TLS only, protocol is {protocol}; set protocol = "{"SASL_SSL" if sasl else "SSL"}"'
    if len(found("certificate_file", "key_file")) == 1:
        yield "certificate_file and key_file need each other; one file that holds both is named in both"
    if found("key_password", "key_password_file") and "key_file" not in given:
        yield "a key_password without a key_file; set key_file"
    if not sasl:
        for key in found("mechanism", *PASSWORD_KEYS, *TOKEN_KEYS):
            yield f'{key} is for a login, protocol is {protocol}; set protocol = "SASL_SSL"'
    elif mechanism is None:
        yield f'protocol = "{protocol}" needs a mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER'
    elif mechanism == "OAUTHBEARER":
        yield from (f"{key} is not for OAUTHBEARER; leave it out" for key in found(*PASSWORD_KEYS))
        yield from _token_problems(security.token_url or "", given)
    else:
        yield from (f"{key} is for OAUTHBEARER, not for {mechanism}; leave it out" for key in found(*TOKEN_KEYS))
        if "username" not in given:
            yield f"mechanism {mechanism} needs a username"
        if not found("password", "password_file"):
            yield f"mechanism {mechanism} needs a password or, better, a password_file"


def _token_problems(url: str, given: Set[str]) -> Iterator[str]:
    if len({"token_file", "token_url"} & given) != 1:
        yield "mechanism OAUTHBEARER needs a token_file or a token_url, one of the two"
    if not url:
        keys = ("client_id", "client_secret", "client_secret_file", "scope")
        yield from (f"{key} goes with a token_url; set token_url or leave {key} out" for key in keys if key in given)
        return
    if "client_id" not in given or not {"client_secret", "client_secret_file"} & given:
        yield "a token_url needs client_id and client_secret or, better, client_secret_file"
    parts = urlsplit(url)
    if "@" in parts.netloc:
        yield "token_url holds a user or password; set client_id and client_secret_file instead"
    if not parts.hostname or parts.scheme not in ("https", "http"):
        yield "token_url is no https address"
    elif parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        yield "token_url would send the secret in the clear; it must begin with https, on this machine alone with http"


class KafkaSettings(Section):
    """The cluster and our place in it."""

    client: Literal["kafka-python", "librdkafka"] = Field(
        "kafka-python", description="what reads and writes; librdkafka is faster and comes with the extra `librdkafka`"
    )
    bootstrap_servers: str = Field("127.0.0.1:9092", description="brokers to ask first, `host:port`, comma-separated")
    group_id: Name = Field("tickcast", description="consumer group; all instances of one service share it")
    instance_id: Name = Field("0", description="stable name of this instance, unique in the group")
    auto_offset_reset: Literal["earliest", "latest"] = Field(
        "earliest", description="where a group without committed offsets begins"
    )
    stop: Literal["leave", "stay"] = Field(
        "leave", description="on SIGTERM: leave the group at once, or keep the place for a restart"
    )
    broker_timeout_seconds: Seconds = Field(
        60.0, description="how long an absent broker is waited for before giving up"
    )
    security: SecuritySettings = SecuritySettings()


class TopicSettings(Section):
    """Names of the topics."""

    ticks: Name = Field("ticks", description="input topic")
    forecasts: Name = Field("forecasts", description="output topic")
    state: Name = Field("tickcast-state", description="compacted topic of snapshots")
    dead_letters: Name = Field("tickcast-dead-letters", description="topic of ticks that could not be used")
    scores: Name | Literal[""] = Field("", description="topic of forecasts with their outcomes; empty: none is written")

    @model_validator(mode="after")
    def _all_different(self) -> TopicSettings:
        names = [self.ticks, self.forecasts, self.state, self.dead_letters, *([self.scores] if self.scores else [])]
        if len(set(names)) < len(names):
            raise ValueError(f"the topics must have different names, found {', '.join(names)}")
        return self


class TickMap(Section):
    """Names of our tick fields in the user's own JSON; dots reach into objects, e.g. `data.price`."""

    instrument: str | None = Field(None, description="JSON name of the instrument")
    ts: str | None = Field(None, description="JSON name of the event time")
    price: str | None = Field(None, description="JSON name of the trade price")
    size: str | None = Field(None, description="JSON name of the trade size")
    aggressor: str | None = Field(None, description="JSON name of the aggressor side (buy or sell)")
    bid: str | None = Field(None, description="JSON name of the bid")
    ask: str | None = Field(None, description="JSON name of the ask")
    bid_size: str | None = Field(None, description="JSON name of the bid size")
    ask_size: str | None = Field(None, description="JSON name of the ask size")
    seq: str | None = Field(None, description="JSON name of the sequence number")
    session: str | None = Field(None, description="JSON name of the session id")
    fields: Mapping[str, str] = Field(default_factory=dict, description="our field name = JSON name")
    time_unit: Literal["ns", "us", "ms", "s"] = Field("ns", description="unit of a numeric event time")


class TicksSettings(Section):
    """How ticks look on the input topic."""

    map: TickMap | None = Field(None, description="names of the fields where the JSON is not ours")


class ModelSettings(Section):
    """The model to run."""

    bundle: Path = Field(
        Path("bundle"), description="folder of the bundle; where the group has pinned one, that one counts"
    )
    bundles: Path = Field(Path("bundles"), description="folder of the bundles that can be pinned, found by their ids")
    engine: Literal["auto", "numpy", "tensorflow"] = Field(
        "auto", description="what runs the step; auto takes numpy wherever it can"
    )


class PipelineSettings(Section):
    """How ticks become forecasts. Those marked (revision) shape payloads: changing one starts the states anew."""

    max_batch_ticks: int = Field(2000, ge=1, le=100_000, description="most ticks in one batch, one transaction")
    min_batch_ms: float = Field(0.0, ge=0, le=1000, description="wait this long for a batch to fill")
    checkpoint_seconds: Seconds = Field(5.0, description="a partition's states are saved after so long")
    checkpoint_ticks: int = Field(100_000, ge=1, description="or after so many ticks, whichever comes first")
    warmup_ticks: int = Field(50, ge=0, description="ticks after a reset before forecasts count as warm (revision)")
    future_skew_seconds: Seconds = Field(
        60.0, description="how far `ts` may be ahead of the record's Kafka timestamp (revision)"
    )
    max_lateness_seconds: Seconds = Field(
        0.0, description="how far `ts` may be behind the instrument's last one (revision)"
    )
    seq_restart_seconds: Seconds = Field(
        300.0, description="`seq` may start anew after this much event time (revision)"
    )
    coverage: float = Field(0.9, gt=0, lt=1, description="share of outcomes the interval shall hold (revision)")
    dead_letter_ratio_max: float = Field(
        0.5, gt=0, le=1, description="stop when a larger share of the last 1,000 ticks were dead letters; 1 never stops"
    )
    on_lost_ticks: Literal["stop", "reset"] = Field(
        "stop", description="what to do when ticks we still need are no longer retained"
    )
    warmup_replay_ticks_max: int = Field(
        100_000, ge=0, description="most ticks of a partition replayed to warm up another revision"
    )
    instruments_per_partition_max: int = Field(
        100_000, ge=1, description="states kept per partition; the least recently used gives way (revision)"
    )
    stuck_seconds: float = Field(
        60.0,
        ge=1,
        description="a loop that has not turned for so long, or got nowhere while ticks wait, ends with code 12",
    )


class SessionSettings(Section):
    """One session rule; the first whose `match` fits the instrument counts."""

    match: str = Field("*", description="glob of instruments")
    rule: Literal["gap", "calendar", "daily", "field", "never"] = Field(description="what opens a session")
    gap_seconds: float = Field(
        3600.0, gt=0, description="gap: idle time that ends a session; calendar and daily: the rule past their end"
    )
    calendar: str | None = Field(None, description="calendar: exchange_calendars code, e.g. XNYS")
    outside: Literal["own", "attach", "dead_letter"] = Field(
        "own",
        description="calendar: ticks outside opening hours are their own session, go with the last one, or are refused",
    )
    time: str | None = Field(
        None, pattern=r"^\d\d:\d\d(:\d\d)?$", description="daily: time of day that opens a session"
    )
    zone: str | None = Field(None, description="daily: time zone, e.g. America/New_York")

    @model_validator(mode="after")
    def _complete(self) -> SessionSettings:
        if self.rule == "calendar" and self.calendar is None:
            raise ValueError('rule "calendar" needs `calendar`, e.g. calendar = "XNYS"')
        if self.rule == "daily" and (self.time is None or self.zone is None):
            raise ValueError('rule "daily" needs `time` and `zone`, e.g. time = "17:00", zone = "America/New_York"')
        return self


class MetricsSettings(Section):
    """Where metrics and probes are served."""

    host: str = Field("127.0.0.1", description="address to bind")
    port: int = Field(9464, ge=0, le=65535, description="port of /metrics, /livez and /readyz; 0 takes a free one")
    instruments_max: int = Field(50, ge=0, description="instruments that get series of their own")


class LogSettings(Section):
    """Log lines on standard error."""

    format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, JSON elsewhere")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level shown")


class Settings(BaseSettings):
    """All settings of the daemon."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)  # type: ignore[assignment]

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    ticks: TicksSettings = TicksSettings()
    model: ModelSettings = ModelSettings()
    pipeline: PipelineSettings = PipelineSettings()
    session: tuple[SessionSettings, ...] = ()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the environment before the file; the file comes in as the initial values."""
        environment = EnvSettingsSource(settings_cls, env_prefix=ENV_PREFIX, env_nested_delimiter="__")
        return environment, init_settings


def load_settings(file: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Read the settings.

    Parameters
    ----------
    file : the TOML file, or None for defaults and environment only
    overrides : section -> key -> value from the command line; they win over the environment

    Raises
    ------
    SettingsError : names the key, the value found and the value allowed
    """
    _refuse_unknown_environment()
    try:
        settings = Settings(**(_read_toml(file) if file else {}))
        for section, values in (overrides or {}).items():
            group: Section = getattr(settings, section)
            changed = type(group).model_validate(group.model_dump() | dict(values))
            settings = settings.model_copy(update={section: changed})
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from error
    except EnvironmentParseError as error:  # names the section, shows no value
        raise SettingsError(f"environment: {error}; name one key, e.g. TICKCAST_KAFKA__GROUP_ID") from error
    return settings


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read the settings file {file}: {error.strerror}; give its path with --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is no valid TOML: {error}") from error


def _refuse_unknown_environment() -> None:
    """Pydantic passes over names whose section is unknown; a typo there would go unnoticed."""
    sections = {name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(ENV_PREFIX) and name not in ENV_RESERVED:
            section = name.removeprefix(ENV_PREFIX).partition("__")[0]
            if section.upper() not in sections:
                known = ", ".join(sorted(Settings.model_fields))
                raise SettingsError(
                    f"environment variable {name}: there is no section {section.lower()!r}; known: {known}"
                )


def _one_line(error: ValidationError) -> str:
    """Say the first thing wrong, and how many more there are."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        text = f"unknown key {key}; `tickcast config show` lists the known ones"
    elif first["type"] == "value_error":
        text = f"{key}: {first['ctx']['error']}"
    else:
        found = "" if _may_be_secret(first["loc"]) else f" = {first['input']!r}"
        text = f"{key}{found}: {first['msg'][0].lower()}{first['msg'][1:]}"
    more = error.error_count() - 1
    return text + (f" (and {more} more)" if more else "")


def _may_be_secret(loc: tuple[int | str, ...]) -> bool:
    """Whether what was found at a key may be shown to nobody: a password that is a number, or in the wrong place."""
    return loc == ("kafka",) or ("security" in loc and loc[-1] not in ("protocol", "mechanism"))
