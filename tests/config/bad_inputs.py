"""Bad configurations and the exact message that each gets: rows for the test and for the documentation."""

from __future__ import annotations

from typing import NamedTuple


class BadInput(NamedTuple):
    """One way to get a configuration wrong."""

    title: str
    text: str
    """The whole of my.yaml."""
    overrides: tuple[str, ...]
    message: str


MINIMAL = """\
name: mine
data: {source: solar, time: time, target: ghi, seasons: [24]}
horizon: 24
model: tiny
search_space: smoke
budget: {trials: 4, windows: 48}
early_stopping: {grace: 16}
cluster: local
"""


def _yaml(title: str, old: str, new: str, message: str) -> BadInput:
    assert old in MINIMAL
    return BadInput(title, MINIMAL.replace(old, new), (), message)


def _set(title: str, *overrides: str, message: str) -> BadInput:
    return BadInput(title, MINIMAL, overrides, message)


def bad_inputs() -> list[BadInput]:
    """All rows, in the order in which the documentation prints them."""
    return [*_unreadable(), *_wrong_keys(), *_wrong_values(), *_rules_between_keys(), *_overrides()]


def _unreadable() -> list[BadInput]:
    return [
        BadInput(
            "an empty file",
            "",
            (),
            "my.yaml: must hold key: value lines, but is empty. Start from a copy: chronotune cp",
        ),
        BadInput(
            "a list at the top",
            "- name: mine\n",
            (),
            "my.yaml:1: must hold key: value lines at its top level, but holds a list. Write key: value lines",
        ),
        _yaml(
            "a tab",
            "budget: {trials: 4, windows: 48}",
            "budget:\n\ttrials: 4",
            "my.yaml:7: must be indented with spaces, but has a tab. Replace the tab by spaces",
        ),
        _yaml(
            "an open bracket",
            "seasons: [24]",
            "seasons: [24",
            "my.yaml:2: has a bracket that is never closed. Close the [ or {",
        ),
        _yaml(
            "a colon too many",
            "name: mine",
            "name: my: sweep",
            "my.yaml:1: has a second ': ' on one line, or a wrong indentation. Quote the text",
        ),
        _yaml(
            "two documents",
            "horizon: 24",
            "---\nhorizon: 24",
            "my.yaml:3: must hold one document, but '---' begins another. Split it into two files",
        ),
    ]


def _wrong_keys() -> list[BadInput]:
    return [
        _yaml(
            "a key twice",
            "horizon: 24",
            "horizon: 24\nhorizon: 48",
            "my.yaml:4: horizon: appears twice, first on line 3. Keep one of the two",
        ),
        _yaml("a misspelt key", "horizon:", "horizn:", "my.yaml:3: horizn: is not a known key. Did you mean horizon?"),
        _yaml(
            "a key that is missing",
            "{trials: 4, windows: 48}",
            "{windows: 48}",
            "my.yaml:6: budget.trials: is required, but missing. Add it: Configurations to try",
        ),
        _yaml(
            "a part left empty",
            "{trials: 4, windows: 48}",
            "",
            "my.yaml:6: budget: must be key: value lines, but got nothing. Give a value",
        ),
    ]


def _wrong_values() -> list[BadInput]:
    return [
        _yaml(
            "a number in quotes",
            "horizon: 24",
            "horizon: '24'",
            "my.yaml:3: horizon: must be a whole number, but got '24'. Remove the quotes",
        ),
        _yaml(
            "a negative count",
            "trials: 4",
            "trials: -3",
            "my.yaml:6: budget.trials: must be above 0, but got -3. Give a number above 0",
        ),
        _yaml(
            "a value for a list",
            "seasons: [24]",
            "seasons: 24",
            "my.yaml:2: data.seasons: must be a list, but got 24. Write [24]",
        ),
        _yaml(
            "no season at all",
            "seasons: [24]",
            "seasons: []",
            "my.yaml:2: data.seasons: must have at least 1 entry, but has 0. Add one",
        ),
        _yaml(
            "an unknown word",
            "source: solar",
            "source: sloar",
            "my.yaml:2: data.source: must be steel, solar or file, but got 'sloar'. Did you mean solar?",
        ),
        _yaml(
            "a name for a folder with a space",
            "name: mine",
            "name: my sweep",
            "my.yaml:1: name: may hold letters, digits, '.', '_' and '-' only, but got 'my sweep'. Rename it",
        ),
        _yaml(
            "an unknown model",
            "model: tiny",
            "model: tinny",
            "my.yaml:4: model: there is no model named 'tinny'. Did you mean tiny?",
        ),
    ]


def _rules_between_keys() -> list[BadInput]:
    return [
        _yaml(
            "a first rung after the end",
            "grace: 16",
            "grace: 160",
            "my.yaml:7: early_stopping.grace: must not exceed budget.windows, but 160 > 48."
            " Remove it: by default it fits",
        ),
        _yaml(
            "splits of one configuration while others are searched",
            "windows: 48",
            "windows: 48, splits: [[0, 2]]",
            "my.yaml:6: budget.splits: repeat the run of one configuration, but search_space leaves"
            " learning_rate, windows, context_length, covariates, mode, lora_rank to search."
            " Remove them (--set budget.splits=null): each trial finds out what fits into memory",
        ),
        _yaml(
            "threads of one configuration while others are searched",
            "windows: 48",
            "windows: 48, threads: [[0, 2]]",
            "my.yaml:6: budget.threads: repeat the run of one configuration, but search_space leaves"
            " learning_rate, windows, context_length, covariates, mode, lora_rank to search."
            " Remove them (--set budget.threads=null): each trial has those of its slot",
        ),
        _yaml(
            "a column with two roles",
            "seasons: [24]",
            "seasons: [24], known_future: [ghi]",
            "my.yaml:2: data.known_future: repeats column 'ghi', which target already has, but a column has one role."
            " Name it in one place only",
        ),
        _yaml(
            "a file without its path",
            "source: solar",
            "source: file",
            "my.yaml:2: data.path: is needed when source is file. Give the path of a CSV or Parquet file",
        ),
        _yaml(
            "a first point outside the space",
            "cluster: local",
            "cluster: local\nsearch:\n  enqueue:\n    - {windows: 2}\n    - {windows: 3}",
            "my.yaml:12: search.enqueue[1].windows: must be 2 to 4 in steps of 2, but is 3."
            " Change it, or widen search_space.windows",
        ),
        _set(
            "a grid of a continuous range",
            "search.sampler=grid",
            message="--set: search.sampler: is grid, which needs choices or steps, but search_space.learning_rate is a"
            " continuous range. Write {type: choice, values: [...]} there, or use another sampler",
        ),
        _set(
            "a grid without an end",
            "search.sampler=grid",
            "search_space.learning_rate=1e-4",
            "search_space.windows={type: int, low: 1, high: 100000}",
            message="--set: search.sampler: is grid, which must have at most 100,000 points, but the space has up to"
            " 1,600,000. Leave fewer values in the space, or use another sampler",
        ),
        _yaml(
            "a first point with a rank but without LoRA",
            "cluster: local",
            "cluster: local\nsearch: {enqueue: [{mode: full, lora_rank: 2}]}",
            "my.yaml:9: search.enqueue[0].lora_rank: only applies when mode is lora, but is given as 2."
            " Leave it out, or set what it asks for beside it",
        ),
        _yaml(
            "a first point with an unknown key",
            "cluster: local",
            "cluster: local\nsearch: {enqueue: [{lr: 0.0003}]}",
            "my.yaml:9: search.enqueue[0].lr: is not a known key. Known keys here: learning_rate, windows,"
            " accumulation, context_length, covariates, mode, lora_rank",
        ),
    ]


def _overrides() -> list[BadInput]:
    return [
        _set(
            "--set without a value",
            "budget.trials",
            message="--set: must look like key=value, but got 'budget.trials'. Write --set budget.trials=40",
        ),
        _set(
            "--set of an unknown key",
            "budget.trails=40",
            message="--set: budget.trails: is not a known key. Did you mean trials?",
        ),
        _set(
            "--set with an open bracket",
            "data.seasons=[24",
            message="--set: data.seasons: must be a YAML value, but got '[24'. Check its brackets and quotes",
        ),
        _set(
            "--set of a list where one value belongs",
            "search_space.windows=[4, 8]",
            message="--set: search_space.windows: must be a plain value, or key: value lines with type: float, int,"
            " choice or fixed, but got [4, 8]. To choose between values write {type: choice, values: [4, 8]}",
        ),
        _set(
            "--set of a range upside down",
            "search_space.learning_rate.low=1",
            message="--set: search_space.learning_rate.low: must not exceed high, but 1.0 > 0.001. Swap them",
        ),
        _set(
            "--set of a batch of no windows",
            "search_space.windows=0",
            message="--set: search_space.windows: must be a whole number of at least 1, but reaches 0. Change it",
        ),
        _set(
            "--set of a context beyond the model",
            "search_space.context_length=4096",
            message="--set: search_space.context_length: reaches 4096, but model tiny takes at most 2048."
            " Shorten it, or choose a search space made for this model",
        ),
        _set(
            "--set of an unknown covariate set",
            "search_space.covariates=weather",
            message="--set: search_space.covariates: must name covariate sets of the recipe (none, known, all),"
            " but names 'weather'. Define it under data.covariate_sets, or leave it out",
        ),
        _set(
            "--set of a segment that is a table already",
            "evaluation.segments=[hour]",
            message="--set: evaluation.segments[0]: must not name a column like a table that is always there"
            " (step, hour, weekday, series), but names 'hour'. Rename the column in the file, or leave it out",
        ),
        _set(
            "--set of a fraction above one GPU",
            "cluster.gpus_per_trial=1.5",
            message="--set: cluster.gpus_per_trial: must be whole above 1, but is 1.5."
            " Only fractions below 1 can share a GPU",
        ),
        _set(
            "--set of the address of Ray's client",
            "cluster={name: far, kind: here, address: 'ray://head:10001'}",
            message="--set: cluster.address: must be auto or HOST:6379, as Ray's client cannot drive a sweep, but is"
            " ray://head:10001. Remove it and run chronotune on a node of the cluster, or set kind: existing",
        ),
    ]
