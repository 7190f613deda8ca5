"""Batches, models and predictions at addresses: the same rows and bytes as on a disk, in few requests, or one line."""

import io
import json
import os
import re
import shutil
import socket
import sys
from contextlib import chdir
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import Bucket, Project, write_blobs
from test_workers import ONE_WORKER, Cluster

from stages.classify import classify as classify_stage
from stages.files.batches import Batch, open_batches, split_rows
from stages.files.blocks import digest_batch, read_blocks, read_centred, read_chosen
from stages.files.rows import read_rows
from stages.model import Clusters
from stages.reduce import reduce
from stages.runtime import remote
from stages.runtime.remote import Address, StoreError, local_path, place

s3fs = pytest.importorskip("s3fs", reason="needs what requirements-dev.txt lists")


CENTER = np.zeros(5, np.float32)


def random_rows(n: int, columns: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, columns))


def write(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def put_array(bucket: Bucket, key: str, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array)
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=content.getvalue())


@pytest.fixture
def afresh():
    """Connections of this test alone: to other stores, with other credentials, or none."""

    def forget() -> None:
        remote._open_store.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()

    forget()
    yield
    forget()


class Requests:
    """What is asked of the store, by the name of the call; and the bytes of the ranges."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bytes = 0

    def __enter__(self) -> "Requests":
        call, requests = s3fs.S3FileSystem._call_s3, self

        async def counted(self, method, *arguments, **options):
            requests.calls.append(method)
            if first_last := re.match(r"bytes=(\d+)-(\d+)", options.get("Range", "")):
                requests.bytes += int(first_last[2]) - int(first_last[1]) + 1
            return await call(self, method, *arguments, **options)

        self._patch = mock.patch.object(s3fs.S3FileSystem, "_call_s3", counted)
        self._patch.start()
        return self

    def __exit__(self, *_) -> None:
        self._patch.stop()


def test_an_address_is_joined_and_named_as_a_path_and_never_opened_by_the_system():
    address = place("s3://bucket/new/") / "b.npy"
    assert str(address) == "s3://bucket/new/b.npy"
    assert (address.name, address.stem, str(address.with_suffix(".jsonl"))) == ("b.npy", "b", "s3://bucket/new/b.jsonl")
    assert str(address.parent) == "s3://bucket/new"
    assert len({address, Address("s3://bucket/new/b.npy")}) == 1
    with pytest.raises(TypeError, match=r"s3://bucket/new/b\.npy is no path of this machine"):
        os.stat(address)
    assert place("data/new") == Path("data/new") == local_path("data/new")


@pytest.mark.parametrize("change", [np.asarray, np.float16, lambda a: a.astype(">f4")])
def test_rows_and_texts_of_objects_are_those_of_files(bucket, tmp_path, change):
    rows = change(random_rows(9000))
    folder = write(tmp_path / "e", batch_2=rows[:10], batch_10=rows[10:])
    texts = [{"text": f"text {i}", "topic": "any"} for i in range(10)]
    (folder / "batch_2.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    here, there = open_batches(folder), open_batches(place(bucket.put(folder, "new")))
    assert [batch.path.name for batch in there] == ["batch_2.npy", "batch_10.npy"]
    for read in (
        lambda batches: np.concatenate([block.copy() for block in read_blocks(batches, 700)]),
        lambda batches: read_chosen(batches, np.array([0, 9, 10, 4000, 8999])),
        lambda batches: np.concatenate([block[1].copy() for block in read_centred(batches[1], CENTER)]),
        lambda batches: [digest_batch(batch) for (batch,) in split_rows(batches[1:], 1000)],
    ):
        np.testing.assert_array_equal(read(there), read(here))
    assert list(read_rows(place(f"{bucket.address}/new"))) == list(read_rows(folder))


def test_rows_stored_by_column_are_refused_at_an_address(bucket):
    put_array(bucket, "new/b.npy", np.asfortranarray(random_rows(9)))
    (batch,) = open_batches(place(f"{bucket.address}/new"))
    with pytest.raises(ValueError, match=r"s3://.*/new/b.npy: stored column by column.*ascontiguousarray"):
        digest_batch(batch)


def test_of_a_large_object_a_sample_takes_few_bytes_and_all_of_it_few_requests(bucket):
    rows = np.ones((65_000, 768), np.float16)  # 100 MB
    rows[:, 0] = np.arange(65_000) % 2000
    put_array(bucket, "new/b.npy", rows)
    with Requests() as header:
        batches = open_batches(place(f"{bucket.address}/new"))
    assert header.bytes <= 4096
    chosen = np.arange(10) * 65_000 // 10
    with Requests() as sample:
        np.testing.assert_array_equal(read_chosen(batches, chosen), rows[chosen])
    assert sample.bytes == 10 * 768 * 2
    assert sample.calls.count("get_object") == 10
    with Requests() as part:
        digest_batch(batches[0]._replace(start=30_000, rows=16_384))
    assert part.bytes == 16_384 * 768 * 2
    assert part.calls.count("get_object") == 4
    assert len(part.calls) == 6  # and its state, before and after


def test_rows_that_are_wanted_are_fetched_together_where_they_lie_near():
    batch = Batch(Address("s3://bucket/b.npy"), 1000, 768, mock.Mock(dtype=np.dtype("f2"), fortran_order=False), False)
    from stages.files.blocks import GAP_BYTES, blocks_of

    gap = GAP_BYTES // (768 * 2)
    wanted = np.array([3, 4 + gap, 6 + 2 * gap])
    assert blocks_of(batch, 4096, wanted) == [range(3, 5 + gap), range(6 + 2 * gap, 7 + 2 * gap)]
    assert blocks_of(batch, 50, wanted[:2]) == [range(3, 53), range(53, 5 + gap)]
    assert blocks_of(batch._replace(start=10, rows=5), 3) == [range(10, 13), range(13, 15)]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (random_rows(9000, seed=1), "it was written to or replaced"),
        (random_rows(8000), "it has 320128 bytes, expected 360128"),
        (None, "it is gone"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("looked_elsewhere", [False, True])
def test_an_object_that_is_replaced_or_removed_is_refused_on_any_machine(bucket, other, said, begun, looked_elsewhere):
    put_array(bucket, "new/b.npy", random_rows(9000))
    (batch,) = open_batches(place(f"{bucket.address}/new"))
    if looked_elsewhere:
        batch = batch._replace(stored=batch.stored._replace(process=-1))
    blocks = read_centred(batch, CENTER)
    if begun:
        next(blocks)
    if other is None:
        bucket.client.delete_object(Bucket=bucket.name, Key="new/b.npy")
    else:
        put_array(bucket, "new/b.npy", other)
    with pytest.raises(ValueError, match=f"new/b.npy: changed while it was read: {said}"):
        list(blocks)


@pytest.fixture(scope="module")
def modelled(tmp_path_factory) -> Project:
    """A project up to its model; tests write elsewhere."""
    project = Project(tmp_path_factory.mktemp("modelled"))
    write_blobs(project)
    project.run_here("reduce", "link", "cluster", "train", "name")
    return project


def classify(project: Project, embeddings: str, predictions: str, *options: str) -> None:
    project.run_here("classify", options=("--embeddings", embeddings, "--predictions", predictions, *options))


def test_predictions_and_components_are_the_same_bytes_at_an_address_and_on_a_disk(modelled, bucket, tmp_path, caplog):
    caplog.set_level("INFO")
    here = tmp_path / "new"
    shutil.copytree(modelled.folder / "data/embeddings_clu", here)
    there = bucket.put(here, "new")
    classify(modelled, str(here), str(tmp_path / "p"))
    model = bucket.put(modelled.folder / "data/model", "model")
    classify(modelled, there, f"{bucket.address}/p", "--model", model)
    assert Clusters.load(place(model)).digest == Clusters.load(modelled.folder / "data/model").digest
    expected = {path.name: path.read_bytes() for path in (tmp_path / "p").iterdir() if not path.name.startswith(".")}
    assert bucket.get("p/") == expected
    assert {"a.parquet", "b.parquet", "drift.json"} == set(expected)
    for name, predictions in (("here", str(tmp_path / "p")), ("there", f"{bucket.address}/p")):
        modelled.run_here("table", options=("--predictions", predictions, "--output", f"{tmp_path}/{name}.csv"))
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()

    modelled.run_here(
        "reduce", options=("--embeddings", there, "--reduced", f"{tmp_path}/r.npy", "--model", f"{tmp_path}/m.npz")
    )
    assert (tmp_path / "r.npy").read_bytes() == (modelled.folder / "data/reduced.npy").read_bytes()
    assert (tmp_path / "m.npz").read_bytes() == (modelled.folder / "data/model/reduction.npz").read_bytes()

    # What is up to date is left alone, what is stale goes.
    bucket.client.delete_object(Bucket=bucket.name, Key="new/b.npy")
    with Requests() as again:
        classify(modelled, there, f"{bucket.address}/p")
    assert "1 batches were up to date" in caplog.text
    assert "b.parquet removed: its batch is gone" in caplog.text
    assert again.calls.count("put_object") == 2  # the trial, and drift.json
    assert set(bucket.get("p/")) == {"a.parquet", "drift.json"}


def test_every_stage_that_reads_batches_reads_them_at_an_address(modelled, bucket, tmp_path):
    project = modelled.copy_to(tmp_path / "copy")
    project.run_here("classify", "describe")
    outputs = project.digests()
    folders = {
        name: bucket.put(project.folder / "data" / name, name)
        for name in ("embeddings_clu", "embeddings_classf", "predictions", "clusters")
    }
    for name in folders:
        shutil.rmtree(project.folder / "data" / name)
    options = {
        "train": ("--embeddings", folders["embeddings_clu"]),
        "name": ("--clustered", folders["embeddings_clu"]),
        "describe": (
            "--clustered", folders["embeddings_clu"], "--new", folders["embeddings_classf"],
            "--clusters", folders["clusters"], "--predictions", folders["predictions"],
        ),
    }  # fmt: skip
    for stage, given in options.items():
        project.run_here(stage, options=given)
    assert {**outputs, **project.digests()} == outputs


def test_workers_read_addresses_themselves_and_see_no_disk_of_this_machine(modelled, bucket, tmp_path):
    rows = [np.load(modelled.folder / f"data/embeddings_clu/{name}.npy") for name in "ab"]
    there = bucket.put(write(tmp_path / "new", a=rows[0], b=rows[1]), "new")
    (tmp_path / "elsewhere").mkdir()
    project = modelled.copy_to(tmp_path / "copy")
    shutil.rmtree(tmp_path / "new")
    cluster = Cluster(tmp_path / "elsewhere", workers=2)
    found = {}
    try:
        for backend in ("local", "dask"):
            with Requests() as here, chdir(project.folder):
                run = cluster.run if backend == "dask" else ONE_WORKER
                reduce(
                    sample_rows=None, variance_threshold=0.95, standardize=True, run=run, embeddings=place(there),
                    reduced=Path("r.npy"), model=Path("m.npz"),
                )  # fmt: skip
                classify_stage(
                    sample_rows=None, run=run, embeddings=place(there), predictions=place(f"{bucket.address}/{backend}")
                )
            files = {name: (project.folder / name).read_bytes() for name in ("r.npy", "m.npz")}
            found[backend] = files | bucket.get(f"{backend}/"), here.bytes
    finally:
        cluster.stop()
    assert found["dask"][0] == found["local"][0]
    size = sum(each.nbytes for each in rows)
    # Of the first part the mean is taken here, to begin with; and what predictions were made of is not read again.
    assert found["local"][1] > 3 * size
    assert found["dask"][1] < 1.5 * size


def test_a_batch_that_is_refused_leaves_no_object_and_the_others_are_whole(modelled, bucket, tmp_path):
    rows = random_rows(300, 100)
    rows[299] = 0
    there = bucket.put(write(tmp_path / "new", a=random_rows(9, 100), b=rows), "new")
    with pytest.raises(SystemExit, match="1"):
        classify(modelled, there, f"{bucket.address}/p")
    assert set(bucket.get("p/")) == {"a.parquet", "drift.json"}
    assert bucket.get("p/")["a.parquet"].endswith(b"PAR1")


def test_a_store_that_fails_is_not_asked_batch_after_batch(modelled, bucket, tmp_path):
    there = bucket.put(write(tmp_path / "new", **{f"b{i}": random_rows(9, 100) for i in range(20)}), "new")
    call, asked = s3fs.S3FileSystem._call_s3, []

    async def get_nothing(self, method, *arguments, **options):
        if method == "get_object":
            asked.append(options["Key"])
            raise PermissionError("Access Denied")
        return await call(self, method, *arguments, **options)

    with (
        mock.patch.object(s3fs.S3FileSystem, "_call_s3", get_nothing),
        pytest.raises(SystemExit, match=r"/new/b\d+.npy: not read \(Access Denied\).*No output was replaced"),
    ):
        classify(modelled, there, f"{bucket.address}/p")
    assert len(asked) <= 20


def test_a_store_that_fails_at_the_end_is_told_with_what_is_written(modelled, bucket, tmp_path):
    there = bucket.put(write(tmp_path / "new", a=random_rows(9, 100), b=random_rows(9, 100)), "new")
    call = s3fs.S3FileSystem._call_s3

    async def put_all_but_b(self, method, *arguments, **options):
        if method == "put_object" and options["Key"].endswith("b.parquet"):
            raise PermissionError("Access Denied")
        return await call(self, method, *arguments, **options)

    with (
        mock.patch.object(s3fs.S3FileSystem, "_call_s3", put_all_but_b),
        pytest.raises(SystemExit) as refusal,
    ):
        classify(modelled, there, f"{bucket.address}/p")
    said, p = str(refusal.value), f"{bucket.address}/p"
    assert f"{p}/b.parquet: not written (Access Denied); give credentials that allow it" in said
    assert f"Replaced: {p}/a.parquet; as they were: {p}/b.parquet, {p}/drift.json." in said
    assert set(bucket.get("p/")) == {"a.parquet"}


def test_texts_are_fetched_a_few_megabytes_at_a_time(bucket, tmp_path):
    folder = write(tmp_path / "new", a=random_rows(1000))
    line = json.dumps({"text": "x" * 9000}) + "\n"
    (folder / "a.jsonl").write_text(line * 1000)
    there = place(bucket.put(folder, "new"))
    with Requests() as texts:
        assert len(list(read_rows(there))) == 1000
    assert texts.calls.count("get_object") == 1 + 3  # the header of the array, and 9 MB


def test_an_object_that_changes_after_it_was_read_lets_nothing_be_written(modelled, bucket, tmp_path):
    there = bucket.put(write(tmp_path / "new", a=random_rows(9, 100)), "new")
    written = remote.Address.open

    def replace_and_open(self, *arguments, **options):
        if self.suffix == ".npz":
            put_array(bucket, "model/reduction.npz", random_rows(2))
        return written(self, *arguments, **options)

    bucket.put(modelled.folder / "data/model", "model")
    with (
        mock.patch.object(remote.Address, "open", replace_and_open),
        pytest.raises(SystemExit, match=r"s3://.*reduction.npz: (not this pipeline's model|changed during the run)"),
    ):
        classify(modelled, there, f"{bucket.address}/p", "--model", f"{bucket.address}/model")
    assert bucket.get("p/") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing://bucket/new", "nothing://bucket: no such addresses are known .*expected one such as s3://BUCKET"),
        ("s3://", "an address without a bucket"),
        ("file:///data/new", "a path of this machine; give it without file://"),
        ("ftp://me:secret@host/new", "ftp://...: an address with @ or . may hold a password"),
        ("https://host/new?token=secret", "https://...: an address with @ or . may hold a password"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused_and_no_secret_is_shown(text, said):
    with pytest.raises(ValueError, match=said) as refusal:
        place(text)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(("stage", "option"), [("link", "--tree"), ("table", "--output"), ("reduce", "--model")])
def test_an_address_where_a_path_is_needed_is_refused(modelled, stage, option):
    with pytest.raises(SystemExit, match=r"s3://\.\.\.: an address, where only a path of this machine can be used"):
        modelled.run_here(stage, options=(option, "s3://bucket/any.csv"))


def test_a_package_that_is_not_installed_is_named_with_the_requirements(afresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(ValueError, match=r"s3://bucket: .*not installed .*`pip install -r requirements-s3.txt`"):
        place("s3://bucket/new")


def test_what_is_not_there_and_what_may_not_be_written_are_refused_before_any_work(modelled, bucket, tmp_path):
    there = bucket.put(write(tmp_path / "new", a=random_rows(9, 100)), "new")
    for embeddings, predictions, said in (
        ("s3://no-such-bucket/new", f"{bucket.address}/p", "s3://no-such-bucket/new: no such bucket, or nothing in"),
        (f"{bucket.address}/old", f"{bucket.address}/p", "/old: no such bucket, or nothing in such a folder"),
        (
            there,
            "s3://no-such-bucket/p",
            "s3://no-such-bucket/p: not written .*make the bucket, or correct the address",
        ),
        (there, f"{there}/p", "--predictions s3://.*/new/p lies in the folder s3://"),
    ):
        with pytest.raises(SystemExit, match=said):
            classify(modelled, embeddings, predictions)


def test_folders_and_other_objects_among_batches_are_refused(bucket):
    put_array(bucket, "new/b.npy", random_rows(9))
    for key, said in (
        ("new/inner/b.npy", "new/inner: not a batch but a folder"),
        ("new/b.csv", "new/b.csv: not a batch"),
    ):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"1,2")
        with pytest.raises(ValueError, match=said):
            open_batches(place(f"{bucket.address}/new"))
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    bucket.client.put_object(Bucket=bucket.name, Key="new/", Body=b"")  # as consoles make a folder
    assert len(open_batches(place(f"{bucket.address}/new"))) == 1


def test_a_store_that_cannot_be_reached_or_says_nothing_or_refuses_is_one_line(bucket, afresh, monkeypatch):
    times = {"connect_timeout": 0.2, "read_timeout": 0.2, "retries": {"total_max_attempts": 1}}
    monkeypatch.setattr(remote, "OPTIONS", {"s3": {"config_kwargs": times}})
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    with socket.socket() as silent, socket.socket() as closed:
        for each in (silent, closed):
            each.bind(("127.0.0.1", 0))
        silent.listen()
        for name, said in ((silent, "[Tt]imeout"), (closed, "Could not connect to the endpoint")):
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*name.getsockname()))
            remote._open_store.cache_clear()
            s3fs.S3FileSystem.clear_instance_cache()
            with pytest.raises(
                StoreError, match=rf"s3://b/new: not read \(.*{said}.*see that the store can be reached"
            ):
                open_batches(place("s3://b/new"))


def test_missing_credentials_are_one_line(bucket, afresh, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    with pytest.raises(StoreError, match=r"s3://b/new: not read \(Unable to locate credentials\); give credentials"):
        open_batches(place("s3://b/new"))


def test_what_a_store_forbids_is_one_line(bucket):
    error = PermissionError("Access Denied")
    with (
        mock.patch.object(s3fs.S3FileSystem, "_call_s3", side_effect=error),
        pytest.raises(
            StoreError, match=r"not read \(Access Denied\); give credentials that allow it, as data/README.md"
        ),
    ):
        open_batches(place(f"{bucket.address}/new"))
