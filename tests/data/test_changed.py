"""A file replaced after `manifest` is never stored under the identity of the one that was there."""

import os

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from pipeline.data.build import build_manifest
from pipeline.data.media import extract_audio, extract_frames
from pipeline.errors import QuarantineError
from pipeline.storage import tables
from pipeline.storage.feature_store import Status
from pipeline.storage.media_store import Media


@pytest.fixture
def sounds(tmp_path, tone, settings):
    """Four tones, their manifest made; (folder, parameters)."""
    for i in range(4):
        tone(tmp_path / "corpus" / "joy" / f"{i}.wav", frequency=200.0 + 50 * i)
    protocol = {"group": "id", "leakage": []}
    params = settings("generic", tmp_path / "corpus", protocol=protocol, decode={"audio": {"rate": 8000}})
    build_manifest(params, tmp_path / "data")
    return tmp_path, params


def overwrite(path, other, folder):
    path.write_bytes(other.read_bytes())


def rename(path, other, folder):
    os.replace(other, path)


def overwrite_keeping_time(path, other, folder):
    state = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def link(path, other, folder):
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("replace", [overwrite, rename, overwrite_keeping_time, link])
def test_another_sound_is_never_stored_under_the_old_identity(sounds, tone, replace):
    folder, params = sounds
    path, out = folder / "corpus" / "joy" / "1.wav", folder / "data" / "audio.h5"
    right, size = soundfile.read(path, dtype="float32")[0], path.stat().st_size
    original = path.read_bytes()
    other = tone(folder / "other.wav", frequency=900.0)
    assert other.stat().st_size == size
    replace(path, other, folder)
    extract_audio(params, folder / "data" / "manifest.parquet", out)
    (row,) = tables.read(folder / "data" / "audio.quarantine.parquet").to_dicts()
    assert (row["id"], row["stage"], row["reason"]) == ("generic/joy/1", "audio", "changed")
    assert "dvc repro manifest" in row["detail"]
    store = Media(out)
    assert [store[clip].status for clip in store.ids] == [Status.OK, Status.FAILED, Status.OK, Status.OK]
    # The bytes of the manifest are back, the time is another: nothing wrong was remembered.
    path.unlink()
    path.write_bytes(original)
    extract_audio(params, folder / "data" / "manifest.parquet", out)
    assert tables.read(folder / "data" / "audio.quarantine.parquet").is_empty()
    np.testing.assert_array_equal(Media(out).waveform("generic/joy/1"), right)


def test_after_a_new_manifest_the_new_sound_is_stored(sounds, tone):
    folder, params = sounds
    path, out = folder / "corpus" / "joy" / "1.wav", folder / "data" / "audio.h5"
    tone(path, frequency=900.0)
    extract_audio(params, folder / "data" / "manifest.parquet", out)
    build_manifest(params, folder / "data")
    extract_audio(params, folder / "data" / "manifest.parquet", out)
    assert tables.read(folder / "data" / "audio.quarantine.parquet").is_empty()
    np.testing.assert_array_equal(Media(out).waveform("generic/joy/1"), soundfile.read(path, dtype="float32")[0])


def test_a_copy_of_the_same_bytes_is_the_same(sounds):
    folder, params = sounds
    for path in (folder / "corpus" / "joy").iterdir():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    extract_audio(params, folder / "data" / "manifest.parquet", folder / "data" / "audio.h5")
    assert tables.read(folder / "data" / "audio.quarantine.parquet").is_empty()


def test_too_many_changed_files_end_the_stage(sounds, tone, settings):
    folder, params = sounds
    for i in range(4):
        tone(folder / "corpus" / "joy" / f"{i}.wav", frequency=1000.0 + i)
    strict = params.model_copy(update={"quarantine": params.quarantine.model_copy(update={"max_rate": 0.5})})
    with pytest.raises(QuarantineError, match="4 changed"):
        extract_audio(strict, folder / "data" / "manifest.parquet", folder / "data" / "audio.h5")


def test_one_frame_of_a_folder_is_another(tmp_path, settings):
    for clip in ("a", "b"):
        for i in range(4):
            (tmp_path / "corpus" / clip).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (i * 20, ord(clip) % 250, 0)).save(tmp_path / "corpus" / clip / f"{i}.png")
    (tmp_path / "corpus" / "clips.csv").write_text("id,video,emotion,end\na,a,joy,1\nb,b,anger,1\n")
    params = settings("generic", tmp_path / "corpus", {"table": "clips.csv"}, protocol={"group": "id", "test": 0.5, "val": 0})
    build_manifest(params, tmp_path / "data")
    Image.new("RGB", (32, 32), (255, 255, 255)).save(tmp_path / "corpus" / "b" / "2.png")
    extract_frames(params, tmp_path / "data" / "manifest.parquet", tmp_path / "data" / "frames.h5")
    found = tables.read(tmp_path / "data" / "frames.quarantine.parquet")
    assert found.select("id", "reason").rows() == [("generic/b", "changed")]


def test_the_manifest_tells_each_medium_apart(sounds):
    folder, _ = sounds
    table = tables.read(folder / "data" / "manifest.parquet")
    assert table["audio_hash"].n_unique() == 4 and table["video_hash"].null_count() == 4
    assert table.select(pl.col("audio_hash").str.len_chars().unique()).item() == 32
