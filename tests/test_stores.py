"""Checkpoints in a folder and on a real S3-compatible server, a process of its own: what one promises, both keep."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import fs

from chronotune import checkpoint, stores
from chronotune.checkpoint import META, STATE, WEIGHTS
from chronotune.cluster import probe
from chronotune.config.cluster import ClusterProfile
from chronotune.data.prepare import load, trial_data
from chronotune.errors import ChronotuneError, StorageError
from chronotune.proposal import Proposal
from chronotune.records import BUDGET
from chronotune.results import elsewhere, remove
from chronotune.stores import SCRATCH, Bucket, Folder, Store, below, prune, store_at
from chronotune.trial import Assignment, TrialRun, Worker
from engine_parts import small_model
from objects_parts import Objects
from sweep_parts import POINT, new_study, result, small_recipe
from test_checkpoint import example

pytest.importorskip("moto", reason="the S3-compatible server of these tests")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server with an empty bucket `sweeps`; the environment holds the keys, and not the address."""
    with Objects(tmp_path_factory.mktemp("server")) as objects, pytest.MonkeyPatch.context() as environment:
        for key, value in objects.variables.items():
            if key != "AWS_ENDPOINT_URL":
                environment.setenv(key, value)
        yield objects.host


def _place(server: str, name: str) -> str:
    return f"s3://sweeps/{name}?endpoint_override={server}&scheme=http"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty one of each kind."""
    if request.param == "folder":
        return Folder(tmp_path / "checkpoints")
    return Bucket(_place(request.getfixturevalue("server"), tmp_path.name))


def _save(store: Store, key: str, **meta: Any) -> None:
    held = example()
    changed = checkpoint.Checkpoint(held.weights, held.state, {**held.meta, **meta})
    store.save(key, lambda folder: checkpoint.write(folder, changed))


def test_what_is_saved_is_read(store: Store) -> None:
    """Weights, state and notes; a second save under the same key replaces the first."""
    assert store.complete("0001") == []
    for note in ("first", "second"):
        _save(store, "0001/8", note=note)
    _save(store, "0001/16")
    _save(store, "finalists/0001/8")
    assert store.complete("0001") == [8, 16]
    assert sorted(store.children("")) == ["0001", "finalists"]
    assert store.meta("0001/8")["note"] == "second"
    with store.local("0001/8") as folder:
        read = checkpoint.read(folder)
    assert read.weights.keys() == example().weights.keys()
    assert read.state
    with pytest.raises(ChronotuneError, match="there is no checkpoint"):
        store.meta("0001/99")


def test_what_is_dropped_and_removed_is_gone(store: Store) -> None:
    """The state alone, one checkpoint, a trial's, all; what is not there is removed too."""
    for key in ("0001/8", "0001/16", "0002/8", "finalists/0002/8"):
        _save(store, key)
    store.drop_state("0001/8")
    store.drop_state("0001/8")
    with store.local("0001/8") as folder:
        assert {path.name for path in folder.iterdir()} == {META, WEIGHTS}
        assert checkpoint.read(folder).state == {}
    store.remove("0001/16")
    store.remove("0001/16")
    assert store.children("0001") == ["8"]
    store.remove("finalists/0002")
    assert store.complete("0002") == [8]
    store.remove("")
    assert store.children("") == []


def test_what_comes_again_is_removed_again(store: Store) -> None:
    """A trial that is trained again, Ray Tune's files of the finalists after those of the search."""
    for key in ("0001/8", "finalists/0001/8", f"{SCRATCH}/tune"):
        for _ in range(2):
            _save(store, key)
            store.remove(key.rpartition("/")[0])
            assert store.children(key.rpartition("/")[0]) == []


def test_what_is_gone_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network's file system each look takes milliseconds, and each end of a trial asks for all before it."""
    folder, looks = Folder(tmp_path), list[str]()
    monkeypatch.setattr("os.path.lexists", lambda path: looks.append(path))
    for _ in range(3):
        folder.remove("0001")
    assert len(looks) <= 2


def test_a_state_is_dropped_once(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each end of a trial asks for all before it, and each look costs a request; what is saved again has one again."""
    bucket, looks = Bucket(_place(server, "once")), list[str]()
    _save(bucket, "0001/8")
    look = bucket._only_meta

    def counted(key: str) -> AbstractContextManager[Path]:
        looks.append(key)
        return look(key)

    monkeypatch.setattr(bucket, "_only_meta", counted)
    for _ in range(3):
        bucket.drop_state("0001/8")
    assert looks == ["0001/8"]
    _save(bucket, "0001/8")
    bucket.drop_state("0001/8")
    with bucket.local("0001/8") as folder:
        assert not (folder / STATE).exists()
        assert (folder / WEIGHTS).exists()


def test_prune_keeps_the_best_in_both(store: Store, tmp_path: Path) -> None:
    """Of a complete trial the weights of its best checkpoint, of a running one everything."""
    study = new_study(tmp_path)
    for number, objective in enumerate((0.5, 0.4, 0.6)):
        record = study.ask(Proposal(_sampler(number), _any_point))
        for windows in (3, 27):
            _save(store, f"{record.number:04d}/{windows}")
            if number < 2 or windows == 3:
                study.record(record.number, result(windows, objective + windows / 1000))
        if number < 2:
            study.finish(record.number, full_budget=27)
    prune(store, study.trials, keep=1)
    assert [store.complete(f"{number:04d}") for number in range(3)] == [[], [3], [3, 27]]
    with store.local("0001/3") as folder:
        assert not (folder / STATE).exists()


def _sampler(seed: int) -> Any:
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


def _any_point(trial: Any) -> Any:
    return POINT.model_copy(update={"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)})


def test_in_a_bucket_a_part_is_no_checkpoint(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta.json` comes last, and goes first: a worker that dies in between leaves nothing that counts."""
    bucket = Bucket(_place(server, "parts"))
    _save(bucket, "0001/8")

    upload = Bucket._upload
    for last, left in ((META, ["8"]), (STATE, [])):

        def stop(self: Bucket, file: Path, key: str, last: str = last) -> None:
            if file.name in (last, META):
                raise OSError("the worker died here")
            upload(self, file, key)

        monkeypatch.setattr(Bucket, "_upload", stop)
        with pytest.raises(ChronotuneError, match=r"s3://sweeps/parts\S* 0001/8 must be written, but: the worker died"):
            _save(bucket, "0001/8")
        assert bucket.complete("0001") == []
        assert set(bucket.children("0001")) >= set(left)
    monkeypatch.setattr(Bucket, "_upload", upload)
    _save(bucket, "0001/8")
    assert bucket.complete("0001") == [8]


def test_damage_in_a_bucket_is_found(server: str) -> None:
    """By its digest, and told by the store's name."""
    bucket = Bucket(_place(server, "damaged"))
    _save(bucket, "0001/8")
    with bucket._files.open_output_stream(bucket._path("0001/8", WEIGHTS)) as file:
        file.write(b"something else")
    damaged = pytest.raises(ChronotuneError, match=r"checkpoint s3://sweeps/damaged\S* 0001/8 is damaged")
    with damaged, bucket.local("0001/8") as folder:
        checkpoint.read(folder)


def test_a_trial_goes_on_and_is_exported_from_a_bucket(server: str, tmp_path: Path) -> None:
    """Killed after its first result, in a new worker, with the same last result as an unbroken one in a folder."""
    small_model().save_pretrained(tmp_path / "model")
    recipe = small_recipe(tmp_path / "model")
    data = trial_data(load(recipe), recipe)
    there = Assignment(recipe, data, tmp_path / "there", _place(server, "trial"))
    here = Assignment(recipe, data, tmp_path / "here")
    next(TrialRun(Worker(there), 0, POINT).results())
    assert there.store.complete("0000") == [3]
    first, *_, last = TrialRun(Worker(there), 0, POINT).results()
    *_, unbroken = TrialRun(Worker(here), 0, POINT).results()
    assert first[BUDGET] == 3
    assert last["metrics"] == unbroken["metrics"]
    assert last["attributes"]["checkpoint"] == "0000/27"
    for assignment, name in ((there, "a"), (here, "b")):
        Worker(assignment).export(0, POINT, 27, tmp_path / name)
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b
    assert not (tmp_path / "there").exists()


def test_a_store_that_is_away_fails_no_trial(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial says so, instead of taking its checkpoints for damaged; what only tidies goes on."""
    small_model().save_pretrained(tmp_path / "model")
    recipe = small_recipe(tmp_path / "model")
    there = Assignment(recipe, trial_data(load(recipe), recipe), tmp_path / "there", _place(server, "away"))
    next(TrialRun(Worker(there), 0, POINT).results())

    def gone(*_: Any) -> None:
        raise OSError("the token has expired")

    with monkeypatch.context() as broken:
        broken.setattr(Bucket, "_download", gone)
        with pytest.raises(StorageError, match="the token has expired"):
            next(TrialRun(Worker(there), 0, POINT).results())
        broken.setattr(Bucket, "_delete", gone)
        there.store.remove("0000")
    monkeypatch.setattr(there.store, "_files", SimpleNamespace(get_file_info=gone))
    there.store.remove("0000")
    with pytest.raises(StorageError, match="must be listed, but: the token has expired"):
        there.store.complete("0000")


def test_a_sweep_whose_place_cannot_be_emptied_stays(server: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Else nobody would know any more where its checkpoints are."""
    place = _place(server, "stays")
    new_study(tmp_path, small_recipe(cluster={"name": "local", "checkpoints": place}))
    _save(store_at(place), "0001/8")
    monkeypatch.setattr(Bucket, "remove", lambda *_: None)
    with pytest.raises(ChronotuneError, match="some cannot be removed"):
        remove(tmp_path)
    assert (tmp_path / "study.journal").exists()


def test_removing_a_sweep_removes_its_place(server: str, tmp_path: Path) -> None:
    """Also when only its checkpoints shall go."""
    place = _place(server, "gone")
    recipe = small_recipe(cluster={"name": "local", "checkpoints": place})
    new_study(tmp_path, recipe)
    _save(store_at(place), "0001/8")
    assert elsewhere(tmp_path) == place
    remove(tmp_path, only_checkpoints=True)
    assert Bucket(place).children("") == []
    assert (tmp_path / "study.journal").exists()


def test_a_server_that_refuses_is_named(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to look at; the credentials are not shown."""
    bucket = Bucket(f"s3://nobody-s-bucket/x?endpoint_override={server}&scheme=http")
    with pytest.raises(ChronotuneError, match=r"must be written, but: .*Check address, rights") as caught:
        _save(bucket, "0001/8")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_preflight_writes_and_reads_a_bucket(server: str) -> None:
    """As one node and another would; nothing stays, and what is refused has its reason."""
    place = _place(server, "probed")
    name, why = probe.write(place)
    assert (why, probe.why_unreadable(place, name)) == ("", "")
    told = probe.look({"it": (place, name)}, [], None, gpus=False)["places"]["it"]
    assert (told["unread"], told["unwritten"], probe.why_unreadable(place, told["written"])) == ("", "", "")
    for each in (name, told["written"]):
        probe.remove(place, each)
    assert Bucket(place).children("") == []
    assert probe.why_unreadable(place, name) == "No such file or directory"
    name, why = probe.write(f"s3://nobody-s-bucket/x?endpoint_override={server}&scheme=http")
    assert not name
    assert "must be " in why


def test_the_endpoint_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every AWS tool; what the address says goes before it."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(fs, "S3FileSystem", lambda **options: asked.append(options))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://objects:8333")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert stores.connect("s3://bucket/a/b/")[1] == "bucket/a/b"
    stores.connect("s3://bucket?endpoint_override=other:1&scheme=https&region=here")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    stores.connect("s3://bucket/a")
    got = [(one["endpoint_override"], one["scheme"], one["region"]) for one in asked]
    assert got == [
        ("objects:8333", "http", "eu-central-1"),
        ("other:1", "https", "here"),
        (None, "https", "eu-central-1"),
    ]


def test_each_sweep_has_a_place_below_the_given_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query of an address stays at its end; a path becomes absolute."""
    monkeypatch.chdir(tmp_path)
    assert below("s3://bucket/a/?scheme=http", "mine") == "s3://bucket/a/mine?scheme=http"
    assert below("s3://bucket", "mine") == "s3://bucket/mine"
    assert below("shared", "mine") == str(tmp_path / "shared/mine")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("gs://bucket", "begins with s3://"),
        ("s3://key:secret@bucket/x", "no credentials"),
        ("s3://key:se/secret@bucket/x", "no credentials"),
        ("s3://bucket/x?endpoint_override=key:secret@host", "no credentials"),
        ("s3://bucket/x?region=here&secret_key=secret@", r"after the \?, but says secret_key"),
    ],
)
def test_a_place_that_cannot_be_is_refused(place: str, reason: str) -> None:
    """Without showing a secret."""
    with pytest.raises(ValueError, match=reason) as caught:
        ClusterProfile.model_validate({"name": "mine", "checkpoints": place})
    assert "secret@" not in json.dumps([error["msg"] for error in caught.value.errors()])  # type: ignore[attr-defined]


def test_an_at_in_a_place_is_no_secret() -> None:
    """A prefix may hold one."""
    place = "s3://bucket/me@work?endpoint_override=host:9000&scheme=http"
    assert ClusterProfile.model_validate({"name": "mine", "checkpoints": place}).checkpoints == place
