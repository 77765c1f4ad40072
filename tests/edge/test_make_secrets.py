"""What deploy/make-secrets writes for deploy/compose.auth.yml."""

import hashlib
import stat
import subprocess
from pathlib import Path

import pytest

from gateway.settings import Settings
from testing.acl import documented
from testing.nginx import REPOSITORY


def make_secrets(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "deploy" / "make-secrets", *words], capture_output=True, text=True, check=False
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    made = make_secrets(str(directory), "news*", "user.?")
    assert made.returncode == 0, made.stderr
    return directory


def test_users_may_do_what_the_document_says(written: Path) -> None:
    users = {line.split()[1]: line.split()[2:] for line in (written / "redis_users").read_text().splitlines()}
    assert users.keys() == {"default", "operator", "worker", "publisher"}
    assert users["default"] == ["off"]
    for user in ("worker", "publisher"):
        rules = documented(user)[0]
        for sign in "~&":
            rules.insert(rules.index(f"{sign}news*") + 1, f"{sign}user.?")
        assert sorted(users[user][2:]) == sorted(rules[2:])


def test_passwords_are_only_in_files_of_their_own(written: Path) -> None:
    users = (written / "redis_users").read_text()
    passwords = {name: (written / f"redis_{name}").read_text() for name in ("operator", "publisher")}
    url = (written / "redis_url").read_text()
    passwords["worker"] = url.removeprefix("redis://worker:").removesuffix("@redis:6379/0")
    for user, password in passwords.items():
        assert len(password) == 64
        assert f"user {user} on #{hashlib.sha256(password.encode()).hexdigest()} " in users
    assert len({*passwords.values(), (written / "jwt_secret").read_text()}) == 4
    Settings.load({"redis_url": url, "jwt_secret": (written / "jwt_secret").read_text()})
    assert stat.S_IMODE(written.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in written.iterdir()} == {0o444}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "usage: "),
        (["*"], "'*' has the gateway's own names in it"),
        (["news*", "gateway?*"], "'gateway?*' has the gateway's own names in it"),
        (["news on"], "'news on' is no glob"),
        ([""], "'' is no glob"),
    ],
)
def test_names_that_are_not_for_publishers_are_rejected(tmp_path: Path, words: list[str], why: str) -> None:
    made = make_secrets(str(tmp_path / "secrets"), *words)
    assert made.returncode == 2
    assert why in made.stderr
    assert not (tmp_path / "secrets").exists()


def test_what_is_there_stays(written: Path) -> None:
    before = {file.name: file.read_text() for file in written.iterdir()}
    assert make_secrets(str(written), "news*").returncode != 0
    assert {file.name: file.read_text() for file in written.iterdir()} == before
