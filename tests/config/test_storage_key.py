"""The key `storage`: a database's address that holds no password."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronotune.config.load import dump_recipe, load_recipe
from chronotune.config.secrets import holds_credentials, holds_password, masked
from chronotune.config.storage import absolute, expanded
from chronotune.errors import InputError

GOOD = (
    "sqlite:///study.db",
    "postgresql://localhost/studies",
    "postgresql+psycopg://me@db:5432/studies?sslmode=require",
    "postgresql+psycopg://me:${SECRET}@db/studies",
    "postgresql+psycopg://db/studies?password=${SECRET}",
)
BAD = {
    "studies.db": "must be a database's address",
    "sqlite://": "must be a database's address",
    "mysql://me@db/studies": "must be a database's address",
    "postgresql+psycopg://me:hunter2@db/studies": "must not hold a password",
    "postgresql+psycopg://me:hunter2${SECRET}@db/studies": "must not hold a password",
    "postgresql+psycopg://db/studies?user=me&password=hunter2": "must not hold a password",
    "postgresql+psycopg://db/studies?sslpassword=hunter2": "must not hold a password",
    "postgresql+psycopg://me:hunter2@[db/studies": "must not hold a password",
    "postgresql+psycopg://me:hunter2/hunter2@db/studies": "must not hold a password",
    "postgresql+psycopg://me:hunter2?hunter2@db/studies": "must not hold a password",
    "postgresql+psycopg://me:hunter2#hunter2@db/studies": "must not hold a password",
    "postgresql+psycopg://me:1/hunter2@db/studies": "must not hold a password",
    "me:hunter2/hunter2@db/studies": "must be a database's address",
}


@pytest.mark.parametrize("url", GOOD)
def test_an_address_without_a_password_is_taken(url: str, tmp_path: Path) -> None:
    """And comes back from the sweep's own recipe, its variables unread."""
    recipe = load_recipe("smoke", [f"storage={url}"])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.yaml").storage == recipe.storage
    assert recipe.storage is not None
    assert recipe.storage.startswith(url.split("study.db")[0])


@pytest.mark.parametrize(("url", "rule"), BAD.items())
def test_other_addresses_are_refused(url: str, rule: str) -> None:
    """A password is refused with the remedy, and never repeated."""
    with pytest.raises(InputError, match=f"storage.*{rule}") as refusal:
        load_recipe("smoke", [f"storage={url}"])
    assert "hunter2" not in str(refusal.value)


def test_variables_stand_for_one_part() -> None:
    """What is special in an address is quoted in a password; one that is not set is named."""
    assert expanded("postgresql://me:${P}@db/x", {"P": "a@b/{c}"}) == "postgresql://me:a%40b%2F%7Bc%7D@db/x"
    assert expanded("sqlite:///x.db", {}) == "sqlite:///x.db"
    with pytest.raises(InputError, match=r"variable P, which is not set\. Set it: export P="):
        expanded("postgresql://me:${P}@db/x", {})


def test_what_is_shown_holds_no_secret() -> None:
    """Neither user nor query."""
    assert masked("postgresql://me:${P}@db/x?a=b") == "postgresql://***@db/x?***"
    for sign in "/?#@ :":
        assert masked(f"postgresql://me:hun{sign}ter2@db/x") == "postgresql://***@db/x"
        assert holds_password(f"postgresql://me:hun{sign}ter2@db/x")
    assert masked("sqlite:////home/me@work/study.db") == "sqlite:////home/me@work/study.db"


@pytest.mark.parametrize(
    "text",
    [
        "chronos-forecasting==2.3.2",
        "tokenizers==0.22",
        "mine @ git+https://host/me/mine@v1",
        "mine @ git+https://${TOKEN}@host/me/mine@v1",
        "mine @ git+https://me:${TOKEN}@host:8443/me/mine@v1",
        "mine @ git+ssh://git@host/me/mine.git@v1",
        "--extra-index-url https://host:8443/simple/mine@v1",
        "registry:5000/me/image@sha256:0123",
        "postgresql://me@db/x",
    ],
)
def test_what_holds_no_credentials_is_taken(text: str) -> None:
    """An @ has other meanings too."""
    assert not holds_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "--extra-index-url https://me:hunter2@host/simple",
        "--extra-index-url https://hunter2@host/simple",
        "mine @ git+https://hunter2:@host/me/mine@v1",
        "mine @ git+https://me:hun/ter2@host/me/mine",
        "mine @ git+ssh://git:hunter2@host/me/mine",
        "https://me:${TOKEN}hunter2@host/simple",
        "https://host/simple?token=hunter2",
    ],
)
def test_credentials_are_found(text: str) -> None:
    """Wherever a web address may hold them."""
    assert holds_credentials(text)


def test_an_sqlite_file_means_the_same_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are those of the working directory, as for tracking."""
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///a/b.db?mode=rwc") == f"sqlite:///{tmp_path}/a/b.db?mode=rwc"
    assert absolute("postgresql://db/x") == "postgresql://db/x"
    assert absolute(None) is None
