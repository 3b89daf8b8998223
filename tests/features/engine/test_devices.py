"""Several devices: a process each, one cache; what a killed one had committed stays."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.features.encoders import registry
from pipeline.features.engine import devices
from pipeline.features.engine.reader import Job, Reader
from pipeline.features.engine.task import Task
from pipeline.params import Run, Stream
from pipeline.storage import feature_store, flac, media_store
from pipeline.storage.clip_cache import ClipCache, digest

CLIPS = 24


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """An audio store of noise of different lengths, and the stream that reads it: log-mel, which needs no framework."""
    folder, chance = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    rows, entries = [], {}
    for i in range(CLIPS):
        wave = chance.uniform(-0.5, 0.5, 1600 + 160 * i).astype(np.float32)
        rows.append({"id": f"clip{i:02d}", "content": digest({"clip": i}), "audio": "x"})
        entries[rows[-1]["content"]] = media_store.join_files([flac.encode(wave, 16000)], np.array([[0, len(wave) / 16000]]))
    identity = {"kind": "audio", "rate": 16000}
    with ClipCache("audio", identity, base=folder / "cache") as cache:
        cache.put(entries)
        media_store.pack(folder / "audio.h5", rows, "audio", cache, identity, {})
    work = [Job(row["id"], row["content"]) for row in rows]
    return Stream(modality="audio", source=str(folder / "audio.h5"), encoder="logmel", weights="none"), work


def run(stream, work, cache, names, advance=lambda _: None):
    extractor, missing = registry.build(stream), cache.missing(job.content for job in work)
    return devices.compute(
        Task(
            stream,
            extractor,
            Reader(extractor.prepare, "audio", Path(stream.source)),
            [job for job in work if job.content in missing],
            cache,
        ),
        Run(workers=0, batch=1e-6),
        names,
        advance,
        among=[job.content for job in work],
    )


def packed(path, cache, work):
    contents = [job.content for job in work]
    rows = [count for count, *_ in cache.layout(contents)]
    feature_store.write(path, [job.id for job in work], cache.iterate(contents), rows=rows, shape=(40,), dtype="float32")
    return path.read_bytes()


def test_killed_device_process_costs_nothing_committed(sounds, tmp_path):
    """One device, then two of which one is killed, then two again: the same bytes, nothing computed twice."""
    stream, work = sounds
    identity = dict(registry.build(stream).identity)
    with ClipCache("extract", identity, base=tmp_path / "one") as cache:
        assert run(stream, work, cache, ["cpu"]).clips == CLIPS
        expected = packed(tmp_path / "one.h5", cache, work)

    before = work[:4]
    for attempt in range(20):
        killed = []

        def kill(_, killed=killed):
            if not killed:
                killed.append(multiprocessing.active_children()[0])
                os.kill(killed[0].pid, signal.SIGKILL)

        with ClipCache("extract", identity, base=tmp_path / f"two{attempt}") as cache:
            run(stream, before, cache, ["cpu"])
            try:
                run(stream, work, cache, ["cpu", "cpu"], kill)
            except UserError as error:
                said = str(error)
                assert "device process ended with code -9; nothing committed is lost" in said and "\n" not in said
            assert not multiprocessing.active_children()
            left = cache.missing(job.content for job in work)
            if not left:
                continue  # on a busy machine both were done before the kill
            assert not left & {job.content for job in before}
            steps = []
            stats = run(stream, work, cache, ["cpu", "cpu"], steps.append)
            assert stats.clips == len(left) == sum(steps) and not stats.failures
            assert packed(tmp_path / "two.h5", cache, work) == expected
            return
    pytest.fail("no kill fell into the work")


def test_shares_are_even_and_stay_when_a_run_goes_on(sounds):
    _, work = sounds
    whole = devices.split_jobs(work, [], 3)
    assert [len(share) for share in whole] == [8, 8, 8]
    rest = work[5:]
    assert devices.split_jobs(rest, [job.content for job in work], 3) == [
        [job for job in share if job in rest] for share in whole
    ]
