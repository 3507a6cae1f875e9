"""The scan for secrets finds one that was planted, wherever it hides, and nothing where none is."""

from __future__ import annotations

import base64
import sqlite3
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from find_secrets import KINDS, find, in_processes, secrets_of

from chronotune import authtoken

ROOT = Path(__file__).parents[1]
SECRET = "s3cr3t/with+signs=" + "0123456789abcdef" * 2
TOKEN = {"RAY_AUTH_TOKEN": SECRET}


def _journal(folder: Path) -> None:
    (folder / "study.journal").write_text(f'{{"op_code": 2, "user_attr": {{"uri": "http://x/?t={SECRET}"}}}}\n')


def _log(folder: Path) -> None:
    (folder / "logs").mkdir()
    (folder / "logs" / ".hidden.log").write_bytes(b"\xff\xfe " + base64.b64encode(b"user:" + SECRET.encode()))


def _header(folder: Path) -> None:
    (folder / "page.html").write_text(f"Bearer {base64.b64encode(SECRET.encode()).decode()}")


def _address(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("uri: http://x/?token=s3cr3t%2Fwith%2Bsigns%3D" + "0123456789abcdef" * 2)


def _database(folder: Path) -> None:
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("create table tags (value text)")
        database.execute("insert into tags values (?)", (f"token {SECRET}",))
    database.close()


def _wheel(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("a/_shipped/token.txt", SECRET * 3)


@pytest.mark.parametrize("plant", [_journal, _log, _header, _address, _database, _wheel], ids=lambda f: f.__name__)
def test_a_planted_secret_is_found(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    """And only there."""
    (tmp_path / "innocent.txt").write_text("loss 0.7 token=RAY_AUTH_TOKEN http://user:****@host/")
    assert list(find([tmp_path], TOKEN)) == []
    plant(tmp_path)
    found = list(find([tmp_path], TOKEN))
    assert {finding.what for finding in found} == {"RAY_AUTH_TOKEN"}
    assert not any("innocent" in finding.place for finding in found)


EXAMPLES = {
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA",
    "an AWS access key": "key AKIA" + "Q" * 16,
    "a Hugging Face token": "hf_" + "a" * 34,
    "a GitHub token": "ghp_" + "a" * 36,
    "a password in an address": "postgresql://mlflow:hunter2@db/mlflow",
}


@pytest.mark.parametrize("kind", KINDS)
def test_known_kinds_are_found_without_being_known(tmp_path: Path, kind: str) -> None:
    """Other people's secrets."""
    (tmp_path / "log").write_text(EXAMPLES[kind])
    assert [finding.what for finding in find([tmp_path], {})] == [kind]


def test_secrets_come_from_variables_and_the_files_they_name(tmp_path: Path) -> None:
    """Not what is too short, names a mode or a path, or has nothing secret in its name."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("f" * 64)
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = 0123456789\naws_secret = abcdefghij\n")
    environment = {
        "RAY_AUTH_MODE": "token-mode-is-none",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "MLFLOW_TRACKING_PASSWORD": "long enough",
        "SHORT_TOKEN": "short",
        "PATH": "/usr/bin:/bin",
    }
    secrets = set(secrets_of(environment, tmp_path).values())
    assert secrets == {"f" * 64, "0123456789", "abcdefghij", "long enough"}


def test_passwords_of_postgresql_are_looked_for(tmp_path: Path) -> None:
    """Its own files hold five fields a line; the last is the password, which may hold what parts them."""
    (tmp_path / ".pgpass").write_text("db:5432:*:me:first password\n")
    (tmp_path / "passes").write_text("# comment\ndb\\:1:5432:*:me:a\\:b\\\\c:d=ef\n")
    found = secrets_of({"PGPASSFILE": str(tmp_path / "passes"), "PGPASSWORD": "another one"}, tmp_path)
    assert set(found.values()) == {"first password", "a:b\\c:d=ef", "another one"}


def test_a_long_secret_is_no_path(tmp_path: Path) -> None:
    """A file's name has at most 255 bytes."""
    (tmp_path / "log").write_text("x" * 5000)
    assert secrets_of({"A_TOKEN": "x" * 5000, "A_TOKEN_FILE": "y" * 5000}) == {"A_TOKEN": "x" * 5000}


def test_arguments_of_processes_are_read(tmp_path: Path) -> None:
    """As every user of the machine can."""
    (tmp_path / "123").mkdir()
    (tmp_path / "123" / "cmdline").write_bytes(b"ray\0start\0--token\0" + SECRET.encode() + b"\0")
    assert [finding.place for finding in in_processes(TOKEN, tmp_path)] == ["arguments of process 123"]


def test_the_command_shows_where_and_never_what(tmp_path: Path) -> None:
    """And its exit code tells."""
    command = [sys.executable, str(ROOT / "tools/find_secrets.py"), str(tmp_path)]
    environment = {**TOKEN, "HOME": str(tmp_path / "home")}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    _journal(tmp_path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "study.journal: holds RAY_AUTH_TOKEN" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_the_repository_holds_no_secret() -> None:
    """Of the known kinds; but for the tests of how addresses with passwords are refused and masked."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this tree is no clone")
    files = [ROOT / name for name in listed.stdout.split("\0") if name and name != "tests/test_secrets.py"]
    found = [one for one in find(files, {}) if not one.place.startswith(f"{ROOT}/tests/")]
    assert found == []
    assert {one.what for one in find(files, {})} <= {"a password in an address"}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once; a file that Ray left open to all is closed; a token that the user names is left alone."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / ".ray" / "auth_token"
    authtoken.keep_private()
    token = path.read_text()
    assert len(token) == 64
    assert (_mode(path), _mode(path.parent)) == (0o600, 0o700)
    path.chmod(0o644)
    authtoken.keep_private()
    assert (path.read_text(), _mode(path)) == (token, 0o600)
    path.unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    authtoken.keep_private()
    assert not path.exists()
