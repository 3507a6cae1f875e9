"""The size report that `make check` prints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def sizes() -> ModuleType:
    """tools/sizes.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("sizes", ROOT / "tools" / "sizes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counts(sizes: ModuleType, tmp_path: Path) -> None:
    """Lines of modules and of functions, methods included, are counted."""
    (tmp_path / "a.py").write_text(
        "def f():\n    return 1\n\n\nclass C:\n    def g(self):\n        x = 1\n        return x\n"
    )
    (tmp_path / "b.py").write_text("x = 1\n" * 20)
    assert sorted(size.lines for size in sizes.modules(tmp_path)) == [8, 20]
    assert sorted(size.lines for size in sizes.functions(tmp_path)) == [2, 3]
    assert "b.py" in sizes.report(tmp_path)


def test_limit(sizes: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A module of more than 400 lines fails the check and is named."""
    (tmp_path / "long.py").write_text("x = 1\n" * 400)
    assert sizes.main([str(tmp_path)]) == 0
    (tmp_path / "long.py").write_text("x = 1\n" * 401)
    assert sizes.main([str(tmp_path)]) == 1
    assert "long.py has 401 lines, but at most 400 are allowed" in capsys.readouterr().out


def test_package_keeps_the_limit(sizes: ModuleType) -> None:
    """No module of ours is too large."""
    assert sizes.too_large(ROOT / "src") == []
