"""The media stores: complete or absent, the same bytes however they came about, and nothing done twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import h5py
import lmdb
import numpy as np
import pytest
import soundfile
from PIL import Image

from pipeline import code
from pipeline.data import media
from pipeline.errors import CacheError, QuarantineError, StoreError
from pipeline.params import parse
from pipeline.reasons import BENIGN
from pipeline.storage import media_store, tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Status

RATE = 16000


def film(path, shade, sound=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(25):
            picture = np.full((48, 64, 3), (shade * 20 + i) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


class Corpus:
    """Films without sound, sounds without film, both; manifest and parameters."""

    def __init__(self, folder: Path, count: int = 6) -> None:
        self.root, self.data = folder / "corpus", folder / "data"
        self.root.mkdir(parents=True)
        self.rows = []
        for i in range(count):
            film(self.root / f"{i}.mp4", i)
            tone = 0.1 * (i + 1) * np.sin(np.arange(RATE) * 0.05 * (i + 1))
            soundfile.write(self.root / f"{i}.wav", tone, RATE)
            self.rows.append({"id": f"c/{i}", "video": f"{i}.mp4", "audio": f"{i}.wav", "content": f"hash{i}"})
        self.write()

    def write(self):
        tables.write(tables.frame(self.rows), self.data / "manifest.parquet")

    def params(self, **options):
        return parse(
            {
                "recipe": "t",
                "corpus": {"name": "folder", "root": str(self.root)},
                "fusion": {"name": "concat"},
                "streams": {"v": {"modality": "video", "source": "x", "encoder": "clip", "weights": "random:0"}},
                "run": {"workers": 1, "timeout": 20, **options.pop("run", {})},
                **options,
            }
        )

    def frames(self, name="frames.h5", **options):
        return media.extract_frames(self.params(**options), self.data / "manifest.parquet", self.data / name)

    def audio(self, name="audio.h5", **options):
        return media.extract_audio(self.params(**options), self.data / "manifest.parquet", self.data / name)

    def quarantine(self, stage):
        return tables.read(self.data / f"{stage}.quarantine.parquet").to_dicts()


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


@pytest.fixture
def decoded(monkeypatch):
    """Paths decoded in this process (`workers: 0`)."""
    paths = []
    for name in ("read_frames", "read_waveform"):
        module = media.video if name == "read_frames" else media.audio
        genuine = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, *a, g=genuine: (paths.append(Path(path).name), g(path, *a))[1])
    return paths


HERE = {"run": {"workers": 0}}


@pytest.mark.parametrize("name", ["../../out", "/tmp/out", "a/../../../out", "..", "", "a\\..\\..\\..\\out", "link/out"])
def test_nothing_is_exported_outside_the_folder(corpus, tmp_path, name):
    corpus.rows[4]["id"] = name if name != "/tmp/out" else str(tmp_path / "out")
    corpus.write()
    (tmp_path / "flac").mkdir()
    (tmp_path / "flac" / "link").symlink_to(tmp_path)
    before = {path for path in tmp_path.rglob("*out*")}
    audio = media_store.Media(corpus.audio())
    with pytest.raises(StoreError) as caught:
        audio.export(tmp_path / "flac")
    assert repr(corpus.rows[4]["id"]) in str(caught.value) and "\n" not in str(caught.value)
    assert {path for path in tmp_path.rglob("*out*")} == before
    assert [path.name for path in (tmp_path / "flac").iterdir()] == ["link"]


def test_what_is_stored_is_what_was_decoded(corpus, tmp_path):
    frames, audio = media_store.Media(corpus.frames()), media_store.Media(corpus.audio())
    assert frames.ids == audio.ids == [f"c/{i}" for i in range(6)] and audio.rate == RATE
    expected = media.video.read_frames(corpus.root / "2.mp4", corpus.params().decode.video)
    entry = frames["c/2"]
    assert entry.status is Status.OK and [bytes(i) for i in entry.items] == expected.jpegs
    np.testing.assert_array_equal(entry.times, expected.times)
    wave = media.audio.read_waveform(corpus.root / "3.wav", RATE)
    np.testing.assert_array_equal(audio.waveform("c/3"), wave)
    assert audio["c/3"].times.tolist() == [[0.0, 1.0]]
    assert frames.export(tmp_path / "jpg") == 24 and audio.export(tmp_path / "flac") == 6
    with Image.open(tmp_path / "jpg" / "c" / "2" / "00001.jpg") as picture:
        assert picture.size == (64, 48)
    assert soundfile.info(tmp_path / "flac" / "c" / "3.flac").samplerate == RATE
    with h5py.File(frames.path) as file:  # h5py alone is enough
        row = file["offsets"][2]
        assert file["values"][file["extents"][row] : file["extents"][row + 1]].tobytes() == expected.jpegs[0]
    with pytest.raises(StoreError, match="no clip"):
        frames["c/77"]


def test_a_clip_of_many_mib_keeps_its_files_apart(tmp_path):
    """Lengths are whole numbers: beyond 2**24 float32 knows no odd one."""
    items = [bytes([i]) * (2**23 + 1 + 2 * i) for i in range(3)] + [b"9" * (2**24 + 1)]
    entry, row = media_store.join_files(items, np.zeros((4, 2))), {"id": "a", "content": "c", "video": "a.mp4"}
    assert media_store.split_files(entry) == items
    with ClipCache("frames", {}) as cache:
        cache.put({"c": entry})
        media_store.pack(tmp_path / "frames.h5", [row], "video", cache, {}, {})
    assert [bytes(item) for item in media_store.Media(tmp_path / "frames.h5")["a"].items] == items


def test_same_clips_same_bytes(corpus, tmp_path, monkeypatch):
    first = corpus.frames("a.h5").read_bytes(), corpus.audio("b.h5").read_bytes()
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "another"))
    assert (corpus.frames("c.h5", run={"workers": 2}).read_bytes(), corpus.audio("d.h5", **HERE).read_bytes()) == first


def test_only_what_changed_is_decoded(corpus, decoded):
    corpus.frames(**HERE)
    assert len(decoded) == 6
    before = (corpus.data / "frames.h5").read_bytes()
    corpus.frames(**HERE)
    assert len(decoded) == 6 and (corpus.data / "frames.h5").read_bytes() == before
    shutil.copy(corpus.root / "0.mp4", corpus.root / "new.mp4")
    corpus.rows[1]["content"] = "changed"
    corpus.rows = [*corpus.rows[:4], {"id": "c/new", "video": "new.mp4", "content": "new"}]
    corpus.write()
    decoded.clear()
    corpus.frames(**HERE)
    assert sorted(decoded) == ["1.mp4", "new.mp4"]
    assert media_store.Media(corpus.data / "frames.h5").ids == ["c/0", "c/1", "c/2", "c/3", "c/new"]
    decoded.clear()
    corpus.frames(decode={"video": {"fps": 2}}, **HERE)
    assert len(decoded) == 5  # another identity


@pytest.mark.parametrize(("module", "other"), [("pipeline.data.decode.timeline", "audio"), ("pipeline.storage.flac", "frames")])
def test_code_that_decides_the_bytes_is_part_of_the_identity(module, other, corpus, monkeypatch):
    """Editing a module of the closure is another identity; for the other stage it is not, nor is the stage's own file."""
    kind = {"audio": "frames", "frames": "audio"}[other]
    stages = {"frames": corpus.frames, "audio": corpus.audio}
    before = {name: media_store.Media(stage(**HERE)).identity for name, stage in stages.items()}
    genuine = code._file_digest
    edited = {Path(sys.modules[name].__file__) for name in (module, "pipeline.data.media", "pipeline.storage.clip_cache")}
    monkeypatch.setattr(code, "_file_digest", lambda path, time: "edited" if path in edited else genuine(path, time))
    after = {name: media_store.Media(stage(**HERE)).identity for name, stage in stages.items()}
    assert after[other] == before[other]
    assert after[kind]["code"] != before[kind]["code"] and after[kind] | {"code": 0} == before[kind] | {"code": 0}


def test_missing_is_no_failure_and_failure_has_a_reason(corpus):
    corpus.rows[0]["video"] = None
    corpus.rows[1]["video"] = "1.wav"  # no picture inside
    (corpus.root / "2.mp4").write_bytes(b"")
    (corpus.root / "3.mp4").unlink()
    corpus.write()
    store = media_store.Media(corpus.frames(quarantine={"max_rate": 0.5}))
    assert store.status.tolist() == [Status.MISSING, Status.MISSING, Status.FAILED, Status.FAILED, Status.OK, Status.OK]
    assert not store["c/0"].items and store["c/0"].times.shape == (0, 2)
    assert [(r["id"], r["stage"], r["reason"]) for r in corpus.quarantine("frames")] == [
        ("c/2", "frames", "empty"),
        ("c/3", "frames", "missing"),
    ]


def test_too_many_failures_stop_but_lose_nothing(corpus, decoded):
    for i in range(3):
        (corpus.root / f"{i}.wav").write_text("no sound")
    with pytest.raises(QuarantineError, match="3 of 6 clips failed.*3 unreadable"):
        corpus.audio(**HERE)
    decoded.clear()
    corpus.audio(quarantine={"max_rate": 1.0}, **HERE)
    assert sorted(decoded) == ["0.wav", "1.wav", "2.wav"]  # the others are cached; these are tried again


def test_a_corpus_without_clips(corpus):
    corpus.rows = []
    corpus.write()
    assert media_store.Media(corpus.frames()).ids == []


def test_a_store_half_written_is_none(corpus, tmp_path):
    whole = corpus.audio().read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="half.h5"):
        media_store.Media(tmp_path / "half.h5")
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["ids"] = [b"a"]
    with pytest.raises(StoreError, match="not complete"):
        media_store.Media(tmp_path / "part.h5")


SCRIPT = """
import resource, signal, sys
from pathlib import Path
from pipeline.data import media
from pipeline.errors import UserError
from pipeline.params import Params

if __name__ == "__main__":
    params, data, commit, limit = sys.argv[1:]
    media.COMMIT = float(commit)
    if int(limit):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        media.extract_frames(Params.model_validate_json(params), Path(data) / "manifest.parquet", Path(data) / "frames.h5")
    except UserError as error:
        sys.exit(f"{type(error).__name__}: {error}")
"""


def run(corpus, *, commit=0.0, limit=0):
    script = corpus.data / "stage.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), corpus.params().model_dump_json(), str(corpus.data), str(commit), str(limit)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stderr=subprocess.PIPE,
        text=True,
    )


def cached(corpus):
    found = list(Path(os.environ["AFFECTORY_CACHE"]).glob("frames/*/data.mdb"))
    if not found:
        return set()
    with lmdb.open(str(found[0].parent), readonly=True) as environment, environment.begin() as transaction:
        return {bytes(key).decode() for key, _ in transaction.cursor()}


@pytest.mark.slow
def test_killed_at_any_moment_it_continues(tmp_path, monkeypatch):
    corpus = Corpus(tmp_path, count=24)
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "calm"))
    expected = corpus.frames("calm.h5").read_bytes()
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "troubled"))
    sizes = [0]
    for wanted in (1, 10):
        process = run(corpus)
        try:
            while process.poll() is None and len(cached(corpus)) < wanted:
                time.sleep(0.01)
            process.kill()
        finally:
            process.communicate(timeout=20)
        sizes.append(len(cached(corpus)))
        assert sizes[-1] >= max(wanted, sizes[-2])  # what was done stays done
        assert process.returncode == -signal.SIGKILL
        assert not (corpus.data / "frames.h5").exists()
    final = run(corpus)
    _, errors = final.communicate(timeout=60)
    assert final.returncode == 0, errors
    assert (corpus.data / "frames.h5").read_bytes() == expected


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_nothing_is_lost(corpus):
    # A limit on file size is what a full disk looks like to the database: a write that fails.
    process = run(corpus, limit=24 * 1024)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and errors.strip().splitlines()[-1].startswith("CacheError: the clip cache")
    assert not (corpus.data / "frames.h5").exists() and not list(corpus.data.glob(".frames.h5*"))
    kept = cached(corpus)
    again = run(corpus)
    assert again.communicate(timeout=60)[1] == "" and again.returncode == 0
    assert kept <= cached(corpus) and len(cached(corpus)) == 6
    assert (media_store.Media(corpus.data / "frames.h5").status == Status.OK).all()


def test_a_cache_that_cannot_be_written(corpus, monkeypatch, tmp_path):
    # A file where the folder should be fails for root as well, whom permissions do not stop.
    (tmp_path / "file").touch()
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheError, match="AFFECTORY_CACHE"):
        corpus.frames()
    assert not (corpus.data / "frames.h5").exists()


def test_a_cache_that_is_read_only(corpus, monkeypatch):
    genuine = ClipCache.__init__
    corpus.rows = corpus.rows[:3]
    corpus.write()
    corpus.frames()
    monkeypatch.setattr(ClipCache, "__init__", lambda self, kind, identity: genuine(self, kind, identity, readonly=True))
    before = corpus.frames("again.h5").read_bytes()  # all cached: reading is enough
    assert before == (corpus.data / "frames.h5").read_bytes()
    corpus.rows.append({"id": "c/9", "video": "5.mp4", "content": "hash9"})
    corpus.write()
    with pytest.raises(CacheError, match="cannot be written"):
        corpus.frames("third.h5")
    assert not (corpus.data / "third.h5").exists()


def test_a_lost_picture_of_a_folder_is_a_line_and_the_clip_stays(corpus):
    place = corpus.root / "pictures"
    place.mkdir()
    for i in range(25):
        Image.new("RGB", (64, 48), (i * 10, 0, 0)).save(place / f"{i:02}.png")
    (place / "12.png").write_bytes(b"no picture")
    corpus.rows = [*corpus.rows[:2], {"id": "c/pictures", "video": "pictures", "content": "hash-pictures"}]
    corpus.write()
    everyframe = {"decode": {"video": {"fps": 25}}, "quarantine": {"max_rate": 0.0}}
    store = media_store.Media(corpus.frames(**everyframe))
    assert len(store["c/pictures"].items) == 24 and store["c/pictures"].status == Status.OK
    (line,) = corpus.quarantine("frames")
    assert (line["id"], line["stage"], line["reason"]) == ("c/pictures", "frames", "lost_frames")
    assert "12.png" in line["detail"] and line["reason"] in BENIGN
    corpus.frames(**everyframe)
    assert corpus.quarantine("frames") == [line], "said again when nothing is decoded anew"
