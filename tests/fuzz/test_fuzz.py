"""Whatever the bytes: no crash, no hang, an answer or a reason for every file."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from pipeline.data.decode.audio import read_waveform
from pipeline.data.decode.errors import DecodeError
from pipeline.data.decode.probe import probe
from pipeline.data.decode.video import read_frames
from pipeline.params import DecodeVideo
from pipeline.reasons import REASONS
from pipeline.workers.pool import Pool
from tests.fuzz import mutations

#: Reasons that would mean our own code, and not the file, is at fault.
UNFORESEEN = {"crash", "timeout", "error", "memory"}


def attempt(path):
    """What probing, looking and listening give; runs in a worker."""

    def tried(function):
        try:
            return None, function()
        except DecodeError as error:
            assert "\n" not in str(error)
            return error.reason, None

    def look():
        frames = read_frames(path, DecodeVideo(fps=4, size=64, max_frames=8))
        assert 1 <= len(frames.jpegs) <= 8 and frames.times.shape == (len(frames.jpegs), 2)
        assert np.isfinite(frames.times).all() and (frames.times >= 0).all() and (np.diff(frames.times[:, 0]) > 0).all()
        assert all(j[:2] == b"\xff\xd8" for j in frames.jpegs)
        return len(frames.jpegs)

    def listen():
        wave = read_waveform(path, 16000)
        assert wave.dtype == np.float32 and wave.ndim == 1 and wave.size and np.isfinite(wave).all()
        return wave.size

    def cut():
        for start, end in ((0.3, 0.7), (1.2, None)):  # within what files last, and far enough for a seek
            tried(lambda: read_frames(path, DecodeVideo(fps=4, size=64), start, end))  # noqa: B023
            tried(lambda: read_waveform(path, 16000, start, end))  # noqa: B023

    cut()
    return {"probe": tried(lambda: probe(path)), "frames": tried(look), "audio": tried(listen)}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    paths = mutations.generate(tmp_path_factory.mktemp("fuzz"))
    assert len(paths) >= 200
    # A file takes a fraction of a second; the limit is for one that hangs, on whatever machine.
    with Pool(attempt, workers=2, timeout=300.0, preload=("torchaudio.functional",)) as pool:
        outcomes = {o.key: o for o in pool.imap_unordered((p, p) for p in paths)}
    assert sorted(outcomes) == paths
    return {path.name: outcome for path, outcome in outcomes.items()}


@pytest.mark.slow
def test_every_file_is_accounted_for(results):
    lost = {name: (o.reason, o.detail) for name, o in results.items() if not o.ok}
    assert not lost
    for name, outcome in results.items():
        for what, (reason, _) in outcome.value.items():
            assert reason is None or reason in REASONS and reason not in UNFORESEEN, (name, what, reason)
    # The collection is of use only if it holds both kinds.
    tally = collections.Counter(o.value["frames"][0] for o in results.values())
    assert tally[None] > 40 and len(tally) >= 6, tally


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames", "audio"),
    [
        ("nothing.mp4", "empty", "empty"),
        ("text.mp4", "unreadable", "unreadable"),
        ("text.txt", "unreadable", "unreadable"),
        ("list.mp4", "unreadable", "unreadable"),
        ("never_there.mp4", "missing", "missing"),
        ("away.mp4", "missing", "missing"),
        ("no_sound.mp4", None, "no_audio"),
        ("no_picture.mp4", "no_video", None),
        ("one_frame.mp4", None, "no_audio"),
        ("8k.mkv", None, "no_audio"),
        ("nan.wav", "no_video", "not_finite"),
        ("clipped.wav", "no_video", None),
        ("rate_192000.wav", "no_video", None),
        ("10ms.wav", "no_video", None),
        ("no_samples.wav", "no_video", "empty"),
        ("late_index_cut0.5.mp4", "unreadable", "unreadable"),
        ("early_index_cut0.5.mp4", "truncated", "truncated"),
        ("sound_cut0.5.wav", "no_video", "truncated"),
        ("sound_renamed.mp4", "no_video", None),
        ("matroska_renamed.wav", None, None),
        ("frames", None, "no_audio"),
        ("broken_frames", "unreadable", "no_audio"),
        ("same_times.mkv", None, "no_audio"),
        ("ten_bit.mkv", None, None),
    ],
)
def test_reasons(results, name, frames, audio):
    value = results[name].value
    assert (value["frames"][0], value["audio"][0]) == (frames, audio)


@pytest.mark.slow
def test_sound_files_are_read(results):
    for name in ("late_index.mp4", "early_index.mp4", "fragments.mp4", "matroska.mkv", "old.avi", "stream.ts"):
        assert {k: v[0] for k, v in results[name].value.items()} == {"probe": None, "frames": None, "audio": None}
        assert results[name].value["frames"][1] == 4
        assert results[name].value["audio"][1] == pytest.approx(16000, abs=2000)  # MP3 begins with silence
