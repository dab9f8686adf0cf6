"""Settings: where they come from, and one clear line for each that is wrong."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemon.cli.config import as_toml
from daemon.cli.main import app
from daemon.config import KafkaSettings, Settings, load_settings
from daemon.errors import SettingsError
from daemon.transport.clients import require_client


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "tickcast.toml"
    file.write_text(text)
    return file


def test_file_sets_keys_and_the_rest_are_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, '[kafka]\ngroup_id = "desk"\n[pipeline]\nmax_batch_ticks = 7\n'))
    assert settings.kafka.group_id == "desk"
    assert settings.pipeline.max_batch_ticks == 7
    assert settings.topics == Settings().topics


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKCAST_KAFKA__GROUP_ID", "from-environment")
    settings = load_settings(write(tmp_path, '[kafka]\ngroup_id = "from-file"\ninstance_id = "3"\n'))
    assert (settings.kafka.group_id, settings.kafka.instance_id) == ("from-environment", "3")


def test_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKCAST_METRICS__PORT", "1111")
    assert load_settings(None, {"metrics": {"port": 2222}}).metrics.port == 2222


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[kafka]\ngruop_id = 'x'\n", "unknown key kafka.gruop_id"),
        ("[nonsense]\n", "unknown key nonsense"),
        ("[kafka]\nstop = 'now'\n", "kafka.stop = 'now': input should be 'leave' or 'stay'"),
        (
            "[pipeline]\nmax_batch_ticks = 0\n",
            "pipeline.max_batch_ticks = 0: input should be greater than or equal to 1",
        ),
        ("[pipeline]\ncoverage = nan\n", "pipeline.coverage"),
        ("[topics]\nticks = 'a'\nforecasts = 'a'\n", "topics: the topics must have different names"),
        ("[[session]]\nrule = 'calendar'\n", 'session.0: rule "calendar" needs `calendar`'),
        ("[[session]]\nrule = 'daily'\ntime = '17:00'\n", 'session.0: rule "daily" needs `time` and `zone`'),
        ("[[session]]\nrule = 'weekly'\n", "session.0.rule = 'weekly'"),
        ("[ticks.map]\ntime_unit = 'min'\n", "ticks.map.time_unit = 'min'"),
        ("kafka = [\n", "no valid TOML"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("name", ["TICKCAST_KAFKA__GROUPID", "TICKCAST_KAFAK__GROUP_ID", "TICKCAST_PORT"])
def test_unknown_environment_names_are_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError):
        load_settings()


def test_config_show_prints_what_can_be_read_back_and_hides_passwords(tmp_path: Path) -> None:
    login = 'protocol = "SASL_PLAINTEXT"\nmechanism = "PLAIN"\nusername = "ann"\npassword = "hunter2"\n'
    text = f'[kafka.security]\n{login}[[session]]\nrule = "never"\n'
    result = CliRunner().invoke(app, ["config", "show", "--config", str(write(tmp_path, text))])
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    shown = tomllib.loads(result.output)
    assert shown["session"] == [{"match": "*", "rule": "never", "gap_seconds": 3600.0, "outside": "own"}]
    assert Settings(**shown).session == load_settings(write(tmp_path, text)).session


def test_config_show_as_json_is_the_same(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["config", "show", "--json"])
    assert json.loads(result.output) == load_settings().model_dump(mode="json")
    assert tomllib.loads(as_toml(json.loads(result.output)))["metrics"]["port"] == load_settings().metrics.port


def test_config_check_finds_an_unknown_calendar(tmp_path: Path) -> None:
    file = write(tmp_path, "[[session]]\nrule = 'calendar'\ncalendar = 'MARS'\n")
    result = CliRunner().invoke(app, ["config", "check", "--config", str(file)])
    assert isinstance(result.exception, SettingsError)
    assert "MARS" in str(result.exception)


def test_a_client_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    require_client(Settings())
    with pytest.raises(SettingsError, match=r'kafka\.client = "librdkafka" .* pip install "tickcast\[librdkafka\]"'):
        require_client(Settings(kafka=KafkaSettings(client="librdkafka")))
