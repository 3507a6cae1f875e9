"""What hides a secret: addresses with credentials in them, names that promise one. `${VARIABLE}` hides none."""

from __future__ import annotations

import re

VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)\}")
SECRETIVE = re.compile(r"token|passw|secret|credential|(api|access|private)_?key", re.IGNORECASE)
"""Names of variables and keys that promise a secret."""

_ADDRESS = re.compile(r"(?P<scheme>(?:[A-Za-z][\w+.-]*://)?)(?:(?!/)(?P<user>.*)@)?(?P<rest>.*)", re.DOTALL)
_WEB = re.compile(r"(?P<scheme>\w+)://(?P<user>[^\s/?#@:]*):?(?P<password>[^\s/?#]*)@")
_BROKEN = re.compile(r"://[^\s/@:\[]*:(?!\d*[/?#])[^\s/?#@]+[/?#]\S*@")  # no port, and no end before the slash
_PAIR = re.compile(r"[?&](?P<key>[^=&\s]+)=(?P<value>[^&\s]+)")


def holds_password(address: str) -> bool:
    """Whether a database's address has a literal password, or what may be one.

    SQLAlchemy takes all up to an @ for it, whatever signs it has: `me:pa/ss@host`.
    """
    bare = VARIABLE.sub("", address)
    found = _ADDRESS.match(bare)
    _, _, password = ((found and found["user"]) or "").partition(":")
    return bool(password) or _names_secret(bare)


def holds_credentials(text: str) -> bool:
    """Whether web addresses in a text have a literal password, or a user, as which some tokens are given.

    Here credentials end before the first slash, so that the @ of `git+https://host/name@version` follows none.
    """
    bare = VARIABLE.sub("", text)
    return bool(_BROKEN.search(bare)) or _names_secret(bare) or any(map(_is_literal, _WEB.finditer(text)))


def _is_literal(found: re.Match[str]) -> bool:
    if found["password"]:
        return bool(VARIABLE.sub("", found["password"]))
    return found["scheme"] in ("http", "https") and bool(VARIABLE.sub("", found["user"]))


def _names_secret(bare: str) -> bool:
    return any(SECRETIVE.search(found["key"]) for found in _PAIR.finditer(bare))


def query_keys(address: str) -> list[str]:
    """What an address says something of behind its ?."""
    return [part.partition("=")[0] for part in address.partition("?")[2].split("&") if part]


def masked(address: str) -> str:
    """An address without its user, password and query; what has no scheme is masked likewise."""
    found = _ADDRESS.match(address)
    assert found is not None
    user = "" if found["user"] is None else "***@"
    return found["scheme"] + user + re.sub(r"\?.*", "?***", found["rest"], flags=re.DOTALL)
