"""Look for secrets in what was written: `python tools/find_secrets.py sweeps/steel dist/*.whl /tmp/ray/session_latest`.

Secrets are the values of this environment's variables that hold one, the files that such variables name (`..._PATH`,
`..._FILE`, PGPASSFILE), Ray's own token file and PostgreSQL's `.pgpass`; each is looked for as it is, in base64 and
percent-encoded. What looks like a secret of a known kind is told too. Wheels and other zip files are opened, tar and
gzip are not; databases and journals are read as bytes. With `--processes` the arguments of all running processes are
read as well. Exits with 1 when something was found, and shows where, never what.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_SECRETIVE = re.compile(r"TOKEN|PASSW|SECRET|CREDENTIAL|(API|ACCESS)_?KEY|PGPASS", re.IGNORECASE)
_SHORTEST = 8
"""Shorter values are words that stand everywhere."""

KINDS = {
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{16}"),
    "an AWS access key": re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a Hugging Face token": re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b"),
    "a GitHub token": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    "a password in an address": re.compile(
        rb"\b[a-z][a-z0-9+.-]*://[^/\s:@\"'<>{}*$]+:(?!\*+@)[^/\s:@\"'<>{}$]+@[\w.-]+"
    ),
}
"""What looks like a secret, whoever it belongs to."""


class Finding(NamedTuple):
    """A secret that lies where others can read it."""

    place: str
    """File, with the member of an archive after `!`; or a process."""
    what: str
    """The variable whose value it is, or the kind of secret."""


def secrets_of(environment: Mapping[str, str], home: Path | None = None) -> dict[str, str]:
    """The secrets that a process with this environment knows, by where they come from."""
    named = {key: value for key, value in environment.items() if _SECRETIVE.search(key)}
    files = {key: value for key, value in named.items() if key.endswith(("_PATH", "_FILE", "PASSFILE"))}
    found = {key: value for key, value in named.items() if key not in files and not key.endswith("_MODE")}
    if home:
        files |= {f"~/{inside}": str(home / inside) for inside in (".ray/auth_token", ".pgpass")}
    for key, path in files.items():
        if os.path.isfile(path):  # unlike Path, it takes values that are too long for a path
            of_line = _password if key.endswith(("PASSFILE", ".pgpass")) else _value
            lines = Path(path).read_text(errors="replace").splitlines()
            for number, line in enumerate(lines):
                found[f"{key} line {number + 1}"] = of_line(line)
    return {key: value for key, value in found.items() if len(value) >= _SHORTEST and not os.path.exists(value)}


def _value(line: str) -> str:
    """Of a line `key = value`, or that is the value; none of `[section]`."""
    return "" if line.startswith("[") else line.rpartition("=")[2].strip()


def _password(line: str) -> str:
    """Of a line `host:port:database:user:password` as PostgreSQL reads it: a backslash before : and itself."""
    fields = re.split(r"(?<!\\)(?:\\\\)*:", line.removeprefix("#"), maxsplit=4)
    return re.sub(r"\\(.)", r"\1", fields[4]) if len(fields) == 5 else ""


def forms(secret: str) -> set[bytes]:
    """How a secret may be written: as it is, percent-encoded, and in base64 behind any number of other bytes."""
    plain = secret.encode()
    return {plain, quote(secret, safe="").encode(), *(_in_base64(plain, before) for before in range(3))}


def _in_base64(plain: bytes, before: int) -> bytes:
    """The digits that stand for nothing but `plain` when so many bytes come before it."""
    return base64.b64encode(bytes(before) + plain)[(8 * before + 5) // 6 : 8 * (before + len(plain)) // 6]


def find(places: Iterable[Path], secrets: Mapping[str, str]) -> Iterator[Finding]:
    """All secrets in files and folders, each once a place; links are not followed."""
    wanted = {name: forms(secret) for name, secret in secrets.items()}
    for file in _files(places):
        for place, content in _contents(file):
            yield from (Finding(place, what) for what in _in(content, wanted))


def in_processes(secrets: Mapping[str, str], root: Path = Path("/proc")) -> Iterator[Finding]:
    """Secrets in the arguments of running processes: every user of the machine can read those."""
    wanted = {name: forms(secret) for name, secret in secrets.items()}
    for path in root.glob("[0-9]*/cmdline"):
        try:
            content = path.read_bytes()
        except OSError:  # it has ended
            continue
        yield from (Finding(f"arguments of process {path.parent.name}", what) for what in _in(content, wanted))


def _in(content: bytes, wanted: Mapping[str, set[bytes]]) -> Iterator[str]:
    yield from (name for name, written in wanted.items() if any(form in content for form in written))
    yield from (kind for kind, pattern in KINDS.items() if pattern.search(content))


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        yield from (path for path in inside if path.is_file() and not path.is_symlink())


def _contents(file: Path) -> Iterator[tuple[str, bytes]]:
    try:
        yield str(file), file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                yield from ((f"{file}!{name}", archive.read(name)) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        print(f"{file}: cannot be read: {error}", file=sys.stderr)


def main() -> int:
    """The command line; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", type=Path, help="files and folders")
    parser.add_argument("--processes", action="store_true", help="also the arguments of all processes")
    arguments = parser.parse_args()
    secrets = secrets_of(os.environ, Path.home())
    found = list(find(arguments.places, secrets))
    if arguments.processes:
        found += in_processes(secrets)
    for finding in found:
        print(f"{finding.place}: holds {finding.what}")
    files = sum(1 for _ in _files(arguments.places))
    print(f"{len(found)} found in {files} files; looked for {len(secrets)} secrets of here and {len(KINDS)} kinds")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
