"""Settings: one list, and one sentence for what can't be."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.commands import main
from gateway.commands.settings_options import default_text
from gateway.settings import DevSettings, Settings, SettingsError, flag, variable


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
        monkeypatch.delenv(f"{variable(name)}_FILE", raising=False)


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


def test_a_variable_may_name_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that neither `docker inspect` nor /proc shows the value."""
    for name, text in (
        ("secret", "sixteen-letters-and-more\n"),
        ("port", "1234\r\n"),
        ("cors_origins", "http://a.b\n"),
    ):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(f"{variable(name)}_FILE", str(tmp_path / name))
    settings = Settings.load({"port": 4321})
    assert (settings.secret, settings.port) == ("sixteen-letters-and-more", 4321)
    assert settings.cors_origins == ("http://a.b",)
    assert Settings.load().port == 1234
    monkeypatch.setenv("GATEWAY_PORT_FILE", "")
    assert Settings.load().port == 8080


def test_a_file_that_can_not_be_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    monkeypatch.setenv("GATEWAY_SECRET_FILE", str(path))
    with pytest.raises(SettingsError, match=f"^GATEWAY_SECRET_FILE: {path} can't be read: No such file"):
        Settings.load()
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(SettingsError, match=f"^GATEWAY_SECRET_FILE: {path} can't be read: it is not UTF-8"):
        Settings.load()
    path.write_text("short")
    with pytest.raises(SettingsError, match=r"^secret \(--secret, GATEWAY_SECRET\): must be at least 16"):
        Settings.load()
    monkeypatch.setenv("GATEWAY_SECRET", "sixteen-letters-and-more")
    with pytest.raises(SettingsError, match=r"^GATEWAY_SECRET and GATEWAY_SECRET_FILE are both set"):
        Settings.load()
    monkeypatch.delenv("GATEWAY_SECRET_FILE")
    monkeypatch.setenv("GATEWAY_SECRETS_FILE", str(path))
    with pytest.raises(SettingsError, match="did you mean GATEWAY_SECRET_FILE"):
        Settings.load()


@pytest.mark.parametrize("name", ["secret", "jwt_secret", "port"])
def test_what_is_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """Nor what stands in a file: it may be another one than was meant."""
    (tmp_path / "file").write_text("hidden" * 200)
    monkeypatch.setenv(f"{variable(name)}_FILE", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=f"^{name} ") as error:
        Settings.load()
    assert "hidden" not in str(error.value)


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


# The least and the most that is accepted; None: no limit. What lies just beyond is rejected.
NONE_IS_POSSIBLE = 0.0
MORE_THAN_NOTHING = 1e-9
BOUNDS: dict[str, tuple[float, float | None]] = {
    "port": (0, 65_535),
    "redis_connect_timeout": (MORE_THAN_NOTHING, 60),
    "redis_backoff_max": (MORE_THAN_NOTHING, 60),
    "max_streams": (0, None),
    "max_connections": (0, None),
    "address_streams": (0, None),
    "address_rate": (NONE_IS_POSSIBLE, None),
    "address_channels": (0, None),
    "max_channels": (1, None),
    "max_stream_channels": (1, 10_000),
    "max_patterns": (0, None),
    "max_stream_patterns": (0, 10_000),
    "max_channel_bytes": (1, 4096),
    "max_payload_bytes": (1, None),
    "max_request_bytes": (64, None),
    "max_bodies_bytes": (1024, None),
    "max_id_bytes": (1, 4096),
    "queue_events": (1, None),
    "queue_bytes": (1024, None),
    "history_events": (0, None),
    "history_bytes": (1024, None),
    "history_total_bytes": (1024, None),
    "history_age": (MORE_THAN_NOTHING, None),
    "replay_events": (1, None),
    "replay_bytes": (1024, None),
    "replay_total_bytes": (1024, None),
    "unsent_total_bytes": (65_536, None),
    "replays_at_once": (1, None),
    "replays_waiting": (0, None),
    "durable_events": (1, None),
    "durable_age": (NONE_IS_POSSIBLE, None),
    "canary_interval": (NONE_IS_POSSIBLE, None),
    "jwt_leeway": (0, 600),
    "expiry_notice": (NONE_IS_POSSIBLE, None),
    "end_age": (1, None),
    "revocation_age": (1, None),
    "ticket_seconds": (1, None),
    "ticket_bytes": (1, None),
    "ticket_stream_age": (1, None),
    "subject_streams": (NONE_IS_POSSIBLE, None),
    "subject_publish_rate": (NONE_IS_POSSIBLE, None),
    "subject_ticket_rate": (NONE_IS_POSSIBLE, None),
    "auth_timeout": (MORE_THAN_NOTHING, 60),
    "auth_concurrency": (1, None),
    "auth_cache": (NONE_IS_POSSIBLE, None),
    "auth_grace": (NONE_IS_POSSIBLE, None),
    "head_timeout": (MORE_THAN_NOTHING, None),
    "body_timeout": (MORE_THAN_NOTHING, None),
    "keepalive_timeout": (MORE_THAN_NOTHING, None),
    "stall_timeout": (NONE_IS_POSSIBLE, None),
    "max_age": (NONE_IS_POSSIBLE, None),
    "accept_rate": (NONE_IS_POSSIBLE, None),
    "ping_interval": (NONE_IS_POSSIBLE, None),
    "retry_min": (0.01, None),
    "retry_max": (0.01, None),
    "retry_busy": (0.01, None),
    "subscribe_timeout": (MORE_THAN_NOTHING, None),
    "linger": (NONE_IS_POSSIBLE, None),
    "drain_window": (NONE_IS_POSSIBLE, None),
    "handover_timeout": (NONE_IS_POSSIBLE, 60),
    "shutdown_timeout": (MORE_THAN_NOTHING, None),
    "gzip_min_bytes": (0, 65_535),
}
# What other settings have to be for a value at its bound.
BESIDE: dict[str, dict[str, object]] = {
    "max_bodies_bytes": {"max_payload_bytes": 1},
    "max_payload_bytes": {"max_bodies_bytes": 2**63},
    "replay_total_bytes": {"unsent_total_bytes": 2**63},
    "unsent_total_bytes": {"replay_total_bytes": 1024},
    "retry_min": {"retry_max": 2e18},
    "retry_max": {"retry_min": 0.01},
    "drain_window": {"shutdown_timeout": 2e18},
    "handover_timeout": {"shutdown_timeout": 1000},
    "shutdown_timeout": {"drain_window": 0, "handover_timeout": 0},
}
MUCH = 10**18


def test_every_number_has_its_bounds_here() -> None:
    numbers = {name for name, field in Settings.model_fields.items() if field.annotation in (int, float)}
    assert numbers == BOUNDS.keys()


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items(), ids=BOUNDS)
def test_a_number_may_be_at_its_bounds_and_not_beyond(name: str, bounds: tuple[float, float | None]) -> None:
    least, most = bounds
    whole = Settings.model_fields[name].annotation is int

    def load(value: float) -> object:
        return getattr(Settings.load({**BESIDE.get(name, {}), name: repr(value)}), name)

    assert load(least) == least
    assert load(MUCH if most is None else most) == (MUCH if most is None else most)
    below = least - 1 if whole else 0.0 if least == MORE_THAN_NOTHING else least - 0.001
    for beyond in [below, *([] if most is None else [most + 1])]:
        with pytest.raises(SettingsError, match=rf"^{name} \({flag(name)}, {variable(name)}\): "):
            load(beyond)


@pytest.mark.parametrize(
    ("accepted", "rejected", "named"),
    [
        ({"max_payload_bytes": 2000, "max_bodies_bytes": 2000}, {"max_bodies_bytes": 1999}, "max_bodies_bytes"),
        (
            {"replay_total_bytes": 100_000, "unsent_total_bytes": 100_000},
            {"unsent_total_bytes": 99_999},
            "unsent_total_bytes",
        ),
        ({"retry_min": 2, "retry_max": 2}, {"retry_max": 1.9}, "retry_max"),
        (
            {"drain_window": 5, "handover_timeout": 1, "shutdown_timeout": 6.1},
            {"shutdown_timeout": 6},
            "shutdown_timeout",
        ),
        ({"secret": "x" * 16}, {"secret": "x" * 15}, "secret"),
        ({"secret": "x" * 256}, {"secret": "x" * 257}, "secret"),
        ({"channel_prefix": "x" * 256}, {"channel_prefix": "x" * 257}, "channel_prefix"),
        ({"channel_prefix": "gateway-"}, {"channel_prefix": "gateway."}, "channel_prefix"),
    ],
)
def test_settings_that_have_to_agree_may_just_do_so(
    accepted: dict[str, object], rejected: dict[str, object], named: str
) -> None:
    Settings.load(accepted)
    with pytest.raises(SettingsError, match=rf"^{named} "):
        Settings.load({**accepted, **rejected})


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
