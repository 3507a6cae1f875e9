"""The layers of ARCHITECTURE.md: imports point down only, and each outside library has its few importers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "chronotune"

LAYERS = {
    "words": "errors config config.base config.cluster config.model config.points config.recipe config.search "
    "config.secrets config.space config.storage collector",
    "pure": "authtoken blending data data.* metrics noise openings records segments significance verdict gate scoring "
    "specimens logs meanwhile memory catalog lease config.lines config.faults config.resolve config.load",
    "adapters": "attention averaging baselines checkpoint cluster.* device drawing dropout ema endings extrapolation "
    "finetune forecaster forwards gauges journal lstm members onednn pretrained proposal sampler search start storage "
    "stores study threads trainable trees tracking.*",
    "story": "again challenger compare contenders evaluation export finalists identity page.* refit repeats results "
    "serving standalone sweep train trial tuner validation",
    "faces": "__init__ __main__ cli commands.* driver progress pyfunc report",
}
"""From the bottom up. A new module belongs in one of them before the tests pass."""

SIDEWAYS = {
    ("search", "study"),  # the study is the one record that both read
    ("search", "sampler"),  # what is proposed, apart from when
    ("search", "proposal"),
    ("sampler", "extrapolation"),  # what a sampler is shown
    ("study", "proposal"),
    ("study", "drawing"),  # the record, and where samplers draw
    ("drawing", "proposal"),
    ("start", "study"),
    ("study", "storage"),  # the record, and where it is kept
    ("study", "journal"),
    ("storage", "journal"),
    ("gauges", "study"),
    ("stores", "checkpoint"),
    ("tracking", "study"),
    ("finetune", "checkpoint"),  # the engine, cut into files
    ("finetune", "trainable"),
    ("finetune", "attention"),
    ("finetune", "ema"),
    ("attention", "onednn"),
    ("attention", "dropout"),
    ("attention", "forwards"),
    ("onednn", "forwards"),
    ("dropout", "forwards"),
    ("forecaster", "attention"),
    ("forecaster", "device"),
    ("finetune", "device"),
    ("finetune", "pretrained"),
    ("pretrained", "checkpoint"),
    ("cluster", "stores"),  # whether a node reaches the checkpoints
    ("cluster", "pretrained"),  # what is sent, and whether a node can load it
    ("forecaster", "pretrained"),
    ("members", "forecaster"),  # a blend is several models
}
"""Adapters know nothing of each other but for these."""

IMPORTERS = {
    "mlflow": "tracking.* pyfunc",
    "plotly": "page.*",
    "optuna": "drawing extrapolation journal page.* proposal sampler search storage study",
    "sqlalchemy": "storage",
    "ray": "cluster.* evaluation gauges repeats search sweep trial tuner",
    "torch": "attention checkpoint device dropout ema finetune forecaster forwards lstm members onednn pretrained "
    "sampler threads trainable trial",
    "chronos": "attention finetune forecaster pretrained trainable trial validation",
    "transformers": "pretrained",
    "peft": "trainable",
    "safetensors": "averaging checkpoint pretrained",
    "sklearn": "trees",
    "polars": "data.* pyfunc results serving standalone",
    "pyarrow": "stores",
    "yaml": "config.*",
    "typer": "cli commands.*",
    "rich": "cli commands.* driver progress report",
}
"""Who may import what."""

FILES = sorted(PACKAGE.rglob("*.py"))


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {_name(file): file for file in FILES}


def _matches(module: str, patterns: str) -> bool:
    heads = [pattern.removesuffix(".*") for pattern in patterns.split() if pattern.endswith(".*")]
    return module in patterns.split() or any(module == head or module.startswith(f"{head}.") for head in heads)


def _layer(module: str) -> int:
    found = [level for level, patterns in enumerate(LAYERS.values()) if _matches(module, patterns)]
    assert len(found) == 1, f"put module {module} into one layer of LAYERS"
    return found[0]


def _imports(file: Path) -> Iterator[str]:
    """Full names of all that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} line {node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(full: str) -> str | None:
    """The module of ours that holds `full`; None for the version, which belongs to no layer, and for others'."""
    if full.split(".")[0] != "chronotune" or full == "chronotune.__version__":
        return None
    parts = full.split(".")[1:]
    found = (".".join(parts[:end]) for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in MODULES)
    return next(found, "__init__")


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """No module imports from a layer above its own, nor one adapter another."""
    level, adapters = _layer(module), list(LAYERS).index("adapters")
    for full in _imports(MODULES[module]):
        if (other := _own(full)) is None or other.split(".")[0] == module.split(".")[0]:
            continue
        assert _layer(other) <= level, f"{module} imports {other} from the layer above"
        if _layer(other) == level == adapters:
            assert (module.split(".")[0], other) in SIDEWAYS, f"{module} imports the adapter {other}"


@pytest.mark.parametrize("module", MODULES)
def test_libraries_have_few_importers(module: str) -> None:
    """An outside library is imported only where it belongs, so that it can be replaced there."""
    for full in _imports(MODULES[module]):
        allowed = IMPORTERS.get(full.split(".")[0])
        assert allowed is None or _matches(module, allowed), f"{module} imports {full}"


def test_rules_bite(tmp_path: Path) -> None:
    """An import hidden in a function is seen, and an unknown module is refused."""
    file = tmp_path / "late.py"
    file.write_text("def late():\n    from chronotune.config import load\n    import torch.nn\n")
    assert [_own(full) or full for full in _imports(file)] == ["config.load", "torch.nn"]
    with pytest.raises(AssertionError, match="put module newcomer into one layer"):
        _layer("newcomer")


HEAVY = ("torch", "chronos", "ray", "optuna", "mlflow", "polars", "sklearn", "transformers", "pandas")


def _loaded(code: str) -> list[str]:
    """Which heavy libraries a fresh interpreter has loaded after `code`."""
    code = f"import sys\n{code}\nprint('loaded:', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


def test_import_is_light() -> None:
    """Importing the package loads none of the heavy libraries."""
    assert _loaded("import chronotune") == []


def test_help_is_light() -> None:
    """Printing the help loads none of the heavy libraries."""
    run = "try:\n    main()\nexcept SystemExit:\n    pass"
    assert _loaded(f"sys.argv = ['chronotune', '--help']\nfrom chronotune.cli import main\n{run}") == []
