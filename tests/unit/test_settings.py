"""Settings: one list, and one sentence for what can't be."""

import pytest
from click.testing import CliRunner

from gateway.commands import main
from gateway.commands.settings_options import default_text
from gateway.settings import DevSettings, Settings, SettingsError, flag, variable


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


def test_flags_win_over_variables_and_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "1234")
    monkeypatch.setenv("GATEWAY_HOST", "::1")
    settings = Settings.load({"port": "4321"})
    assert (settings.port, settings.host, settings.linger) == (4321, "::1", 30.0)


def test_lists_are_separated_by_commas_or_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", "https://a.example, http://b.example:8080\nhttps://*.c.example")
    assert Settings.load().cors_origins == ("https://a.example", "http://b.example:8080", "https://*.c.example")
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", '["https://a.example","https://b.example"]')
    assert Settings.load().cors_origins == ("https://a.example", "https://b.example")
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", "")
    assert Settings.load().cors_origins == ()


WRONG = {
    "not a number": ({"port": "http"}, "port (--port, GATEWAY_PORT): "),
    "out of range": ({"port": "65536"}, "port (--port, GATEWAY_PORT): "),
    "negative": ({"linger": "-1"}, "linger (--linger, GATEWAY_LINGER): "),
    "unknown choice": ({"delivery": "fast"}, "delivery (--delivery, GATEWAY_DELIVERY): "),
    "not a flag": ({"console": "perhaps"}, "console (--console, GATEWAY_CONSOLE): "),
    "scheme": ({"redis_url": "http://x"}, "redis_url (--redis-url, GATEWAY_REDIS_URL): must begin with redis://"),
    "no origin": ({"cors_origins": "example.com"}, "'example.com' is no origin"),
    "no header": ({"cors_headers": "X-A: b"}, "'X-A:' is no name of a header"),
    "origin with a path": ({"cors_origins": "https://example.com/"}, "is no origin"),
    "credentials for all": (
        {"cors_origins": "*", "cors_credentials": True},
        "cors_credentials (--cors-credentials, GATEWAY_CORS_CREDENTIALS): needs cors_origins with exact origins",
    ),
    "credentials for none": ({"cors_credentials": True}, "needs cors_origins"),
    "retries crossed": ({"retry_min": 5, "retry_max": 1}, "retry_max (--retry-max, GATEWAY_RETRY_MAX): must be at"),
    "no time to drain": ({"drain_window": 30}, "shutdown_timeout (--shutdown-timeout, GATEWAY_SHUTDOWN_TIMEOUT): "),
    "no policy": ({"overflow": "a.*=drop"}, "'drop' is no policy; known are disconnect, drop-oldest and latest"),
    "infinite": ({"ping_interval": "inf"}, "ping_interval (--ping-interval, GATEWAY_PING_INTERVAL): "),
    "unknown field": ({"redis": "x"}, "redis (--redis, GATEWAY_REDIS): "),
}


@pytest.mark.parametrize(("flags", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_named_in_one_sentence(flags: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.load(flags)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_variable_is_named_with_the_nearest_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_REDIS_ULR", "x")
    with pytest.raises(SettingsError, match="GATEWAY_REDIS_ULR is not a setting; did you mean GATEWAY_REDIS_URL"):
        Settings.load()


def test_what_kubernetes_puts_into_the_environment_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    links = ["GATEWAY_SERVICE_HOST", "GATEWAY_SERVICE_PORT_HTTP", "GATEWAY_PORT_80_TCP", "GATEWAY_PORT_80_TCP_ADDR"]
    for link in links:
        monkeypatch.setenv(link, "x")
    Settings.load()
    monkeypatch.setenv("GATEWAY_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        Settings.load()


@pytest.mark.parametrize("command", ["run", "dev"])
def test_help_shows_every_setting_with_variable_and_default(command: str) -> None:
    text = " ".join(CliRunner().invoke(main, [command, "--help"], terminal_width=10_000).output.split())
    for name, field in (Settings if command == "run" else DevSettings).model_fields.items():
        assert flag(name) in text
        assert f"{variable(name)}; default: {default_text(field) or 'none'}]" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--port", "x"], "port (--port, GATEWAY_PORT): "),
        (["run", "--redis-url", "redis://h/0?sock_timeout=1"], "redis_url (--redis-url, GATEWAY_REDIS_URL): "),
        (["run", "--redis-url", "redis://h/0?decode_responses=1"], "the option decode_responses can't be set"),
        (["run", "--prot", "1"], "--prot"),
        (["publish", "a", "b", "--redis-url", "x"], "redis_url"),
    ],
)
def test_a_command_stops_with_one_sentence(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output
