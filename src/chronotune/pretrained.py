"""Load a Chronos-2 model from a folder or from Hugging Face, and nothing else than that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chronotune.checkpoint import sha256
from chronotune.config.model import ModelPreset
from chronotune.errors import ChronotuneError, InputError

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model

_FILES = ("config.json", "model.safetensors")


def load_model(preset: ModelPreset) -> Chronos2Model:
    """The model of a preset, in fp32 on the CPU, ready to forecast.

    Its `weights` are a folder if there is one of that name, else a Hugging Face id: looked up in the local cache,
    then downloaded once.

    Raises:
        ChronotuneError: The weights cannot be found or reached, are not those that the preset's revision names, or
            are no Chronos-2 model.
    """
    return _load(locate(preset), preset)


def locate(preset: ModelPreset) -> Path:
    """The folder of a preset's weights, downloaded if they are on Hugging Face and not yet in the local cache.

    Raises:
        ChronotuneError: As `load_model`.
    """
    folder = Path(preset.weights)
    if folder.is_dir():
        _check_files(folder)
        _check_revision(folder, preset.revision)
    elif folder.is_absolute() or preset.weights.count("/") != 1:
        raise ChronotuneError(
            f"model {preset.name}: weights must be a folder or a Hugging Face id such as "
            f"amazon/chronos-2, but there is no {preset.weights}"
        )
    else:
        folder = _hub_folder(preset)
        _check_files(folder)
    return folder


def refuse_unreachable(preset: ModelPreset) -> None:
    """See that `load_model` will find the weights on this machine, without downloading them.

    Raises:
        ChronotuneError: As `load_model`.
    """
    if Path(preset.weights).is_dir() or preset.weights.count("/") != 1 or Path(preset.weights).is_absolute():
        locate(preset)
        return
    from huggingface_hub import model_info

    with quiet():
        if _cached(preset) is None:
            try:
                model_info(preset.weights, revision=preset.revision, timeout=10)
            except Exception as error:  # of several HTTP libraries
                raise ChronotuneError(_unreachable(preset, error)) from error


def _check_files(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise ChronotuneError(
            f"{folder} holds a LoRA adapter; merge it into its base model first (peft's "
            "merge_and_unload, then save_pretrained)"
        )
    if missing := [name for name in _FILES if not (folder / name).is_file()]:
        raise ChronotuneError(
            f"a model folder must hold {' and '.join(_FILES)}, but {folder} lacks {' and '.join(missing)}"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        is_chronos2 = "chronos_config" in config and config["architectures"] == ["Chronos2Model"]
    except (OSError, ValueError, KeyError, TypeError):
        is_chronos2 = False
    if not is_chronos2:
        raise ChronotuneError(
            f"weights must be a Chronos-2 model, but {folder / 'config.json'} describes none; "
            "take amazon/chronos-2 or a model exported by chronotune"
        )


def _check_revision(folder: Path, revision: str | None) -> None:
    if revision is not None and (found := sha256(folder / "model.safetensors")) != revision:
        raise InputError(
            f"{folder / 'model.safetensors'} must have the SHA-256 {revision}, but has {found}; "
            "restore the file, or correct revision in the preset"
        )


def _hub_folder(preset: ModelPreset) -> Path:
    """Folder of a Hugging Face model in the local cache, downloaded if it is not there."""
    from huggingface_hub import model_info

    with quiet():
        # the cache first: a pinned revision never changes, and the Hub may be out of reach
        if (folder := _cached(preset)) is not None:
            return folder
        try:
            model_info(preset.weights, revision=preset.revision, timeout=10)  # without a network this fails at once
            return _snapshot(preset, offline=False)
        except Exception as error:  # of several HTTP libraries
            raise ChronotuneError(_unreachable(preset, error)) from error


def _cached(preset: ModelPreset) -> Path | None:
    with suppress(OSError, ValueError):
        folder = _snapshot(preset, offline=True)
        if all((folder / name).is_file() for name in _FILES):
            return folder
    return None


def _snapshot(preset: ModelPreset, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted, files = preset.revision, list(_FILES)
    return Path(snapshot_download(preset.weights, revision=wanted, allow_patterns=files, local_files_only=offline))


def _unreachable(preset: ModelPreset, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    revision = f" --revision {preset.revision}" if preset.revision else ""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"model {preset.name}: {preset.weights}{revision} is neither in the Hugging Face cache {HF_HUB_CACHE} nor can "
        f"it be downloaded ({reason}). Run `hf download {preset.weights}{revision}` on a connected machine and copy "
        "its cache here (HF_HOME says where), or use model=tiny"
    )


def _load(folder: Path, preset: ModelPreset) -> Chronos2Model:
    import torch
    from chronos.chronos2.model import Chronos2Model
    from safetensors import SafetensorError

    try:
        with quiet():
            model, found = Chronos2Model.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AssertionError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ChronotuneError(f"model {preset.name}: cannot load {folder} ({reason}); fetch it again") from error
    # the library would fill these with random numbers and go on
    if wrong := [*found["missing_keys"], *found["mismatched_keys"], *found["unexpected_keys"]]:
        raise ChronotuneError(
            f"model {preset.name}: the weights in {folder} do not fit its config.json "
            f"({len(wrong)} tensors, e.g. {wrong[0]}); fetch it again"
        )
    if preset.max_context_length > (limit := model.chronos_config.context_length):
        raise ChronotuneError(
            f"model {preset.name}: max_context_length must not exceed the {limit} of its weights, but "
            f"is {preset.max_context_length}; lower it in the preset"
        )
    return model.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of Hugging Face; its switches are put back."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    levels = [(log, log.get_verbosity()) for log in (hub_logging, logging)]
    bars, hub_bars_off = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    disable_progress_bars()
    logging.disable_progress_bar()
    for log, _ in levels:
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, level in levels:
            log.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if not hub_bars_off:
            enable_progress_bars()
