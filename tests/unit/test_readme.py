"""The README says what is so."""

import re
from pathlib import Path

import pytest

from attacks.__main__ import SETTINGS as ATTACKED
from gateway.commands import main
from gateway.memory.event import MAX_RETRY_MS
from gateway.settings import Settings
from tools.settings_table import README, with_table

ROOT = README.parent


def test_the_table_of_settings_is_current() -> None:
    readme = README.read_text()
    assert readme == with_table(readme), "run `make docs`"


def test_links_lead_somewhere() -> None:
    for page in [README, *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_limits_in_the_text_are_the_defaults() -> None:
    readme = README.read_text()
    fields = Settings.model_fields
    assert f"up to {fields['max_stream_channels'].default} |" in readme
    assert f"| {fields['max_id_bytes'].default} bytes; visible ASCII; not in durable messages |" in readme
    assert f"0 to {MAX_RETRY_MS:,} |" in readme
    assert fields["max_payload_bytes"].default == 1024 * 1024
    assert "larger than 1 MiB" in readme


def test_the_page_names_the_settings_under_which_attacks_were_played() -> None:
    assert set(ATTACKED) == {"allowed_patterns", "address_streams", "address_rate", "address_channels", "linger"}
    assert ATTACKED["allowed_patterns"] == "*"
    page = " ".join((ROOT / "docs" / "security.md").read_text().split())
    assert (
        f"({ATTACKED['address_streams']:,} streams, {ATTACKED['address_rate']:,} new ones per second, "
        f"{ATTACKED['address_channels']:,} channels), every pattern allowed, channels that linger for "
        f"{ATTACKED['linger']} seconds, and everything else as it comes"
    ) in page


@pytest.mark.parametrize(
    "path", [README, ROOT / "docker-compose.yml", ROOT / "nginx.conf"], ids=lambda path: path.name
)
def test_commands_named_exist(path: Path) -> None:
    for command in re.findall(r"`gateway ([a-z]+)", path.read_text()):
        assert command in main.commands, command


def test_settings_named_exist() -> None:
    pages = [README, ROOT / "docker-compose.yml", ROOT / "nginx.conf", *sorted((ROOT / "deploy").rglob("*.*"))]
    for page in pages:
        for name in re.findall(r"GATEWAY_([A-Z_]+)", page.read_text()):
            assert name.removesuffix("_FILE").lower() in Settings.model_fields, f"{page.name}: GATEWAY_{name}"
