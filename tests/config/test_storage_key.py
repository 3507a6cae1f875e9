"""The key `storage`: a database's address that holds no password."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronotune.config.load import dump_recipe, load_recipe
from chronotune.config.storage import absolute, expanded, masked
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


def test_an_sqlite_file_means_the_same_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are those of the working directory, as for tracking."""
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///a/b.db?mode=rwc") == f"sqlite:///{tmp_path}/a/b.db?mode=rwc"
    assert absolute("postgresql://db/x") == "postgresql://db/x"
    assert absolute(None) is None
