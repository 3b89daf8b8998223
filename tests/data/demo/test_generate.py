"""The generated corpus: repeatable bytes, truth that fits, files that real decoders read."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.data.demo import generate, script
from pipeline.data.demo.options import Options
from pipeline.errors import CorpusError


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_options_same_bytes_whatever_the_workers(tiny, tmp_path):
    folder, options = tiny
    generate.generate(options, tmp_path / "again", workers=2)
    first, again = _bytes(folder), _bytes(tmp_path / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_another_seed_gives_other_clips(tiny, tiny_options, tmp_path):
    folder, _ = tiny
    generate.generate(Options.model_validate(tiny_options | {"seed": 1, "turns": 1}), tmp_path, workers=1)
    old, new = _bytes(folder), _bytes(tmp_path)
    media = [name for name in new if name.endswith(".mp4")]
    assert len(media) == 2
    assert all(new[name] != old[name] for name in media)


def test_no_two_clips_are_the_same_file(tiny):
    folder, options = tiny
    media = [content for name, content in _bytes(folder).items() if name.endswith(".mp4")]
    assert len(set(media)) == len(media) == options.clips


def test_annotations_lie_in_the_clip_and_average_to_its_label(tiny):
    folder, options = tiny
    frames = defaultdict(list)
    for row in _table(folder / "annotations.csv"):
        frames[row["id"]].append([float(row[name]) for name in ("time", "valence", "arousal")])
    clips = _table(folder / "clips.csv")
    assert {clip["id"] for clip in clips} == frames.keys()
    for clip in clips:
        course = np.array(frames[clip["id"]])
        assert np.all(np.abs(course[:, 1:]) <= 1) and abs(float(clip["dominance"])) <= 1
        assert course[0, 0] == 0 and np.all(np.diff(course[:, 0]) > 0)
        assert options.shortest - 1 / options.fps <= len(course) / options.fps <= options.longest + 1 / options.fps
        label = [float(clip["valence"]), float(clip["arousal"])]
        assert course[:, 1:].mean(axis=0) == pytest.approx(label, abs=1e-4)


def test_files_decode_with_the_tracks_the_table_promises(tiny):
    folder, options = tiny
    times = defaultdict(list)
    for row in _table(folder / "annotations.csv"):
        times[row["id"]].append(float(row["time"]))
    clips = _table(folder / "clips.csv")
    for clip in clips:
        with av.open(str(folder / (clip["video"] or clip["audio"]))) as container:
            assert len(container.streams.video) == bool(clip["video"])
            assert len(container.streams.audio) == bool(clip["audio"])
        length = len(times[clip["id"]]) / options.fps
        if clip["video"]:
            with av.open(str(folder / clip["video"])) as container:
                assert container.streams.video[0].codec_context.name == "h264"
                pictures = list(container.decode(video=0))
            assert [picture.time for picture in pictures] == pytest.approx(times[clip["id"]], abs=1e-3)
            assert (pictures[0].width, pictures[0].height) == (options.size, options.size)
        if clip["audio"]:
            with av.open(str(folder / clip["audio"])) as container:
                assert container.streams.audio[0].codec_context.name == "aac"
                assert container.streams.audio[0].rate == options.rate
                sound = np.concatenate([part.to_ndarray()[0] for part in container.decode(audio=0)])
            assert len(sound) / options.rate == pytest.approx(length, abs=0.15)
            level = 20 * np.log10(np.sqrt(np.mean(sound**2)))
            assert -50 < level < -3
    assert sum(not clip["video"] for clip in clips) == 1
    assert sum(not clip["audio"] for clip in clips) == 1
    assert sum(not clip["text"] for clip in clips) == 1


def test_no_file_tells_when_it_was_made(tiny):
    folder, _ = tiny
    for path in (folder / "media").iterdir():
        with av.open(str(path)) as container:
            assert "creation_time" not in container.metadata


def test_rerun_with_fewer_clips_removes_its_own_leftovers_only(tiny_options, tmp_path):
    generate.generate(Options.model_validate(tiny_options | {"turns": 2}), tmp_path, workers=1)
    (tmp_path / "media" / "holiday.mp4").write_bytes(b"not ours")
    generate.generate(Options.model_validate(tiny_options | {"turns": 1}), tmp_path, workers=1)
    names = {path.name for path in (tmp_path / "media").iterdir()}
    assert names == {"s00_d00_t00.mp4", "s01_d01_t00.mp4", "holiday.mp4"}


def test_a_killed_run_leaves_no_table(tiny_options, tmp_path, monkeypatch):
    options = Options.model_validate(tiny_options | {"turns": 2})
    generate.generate(options, tmp_path, workers=1)
    whole = _bytes(tmp_path)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generate.render, "render", die)
        with pytest.raises(KeyboardInterrupt):
            generate.generate(options, tmp_path, workers=1)
    assert not (tmp_path / "clips.csv").exists()
    generate.generate(options, tmp_path, workers=1)
    assert _bytes(tmp_path) == whole


def test_a_folder_that_cannot_be_written_is_one_line(tiny_options, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CorpusError, match="taken") as caught:
        generate.generate(Options.model_validate(tiny_options), tmp_path / "taken", workers=1)
    assert "\n" not in str(caught.value)


def test_a_file_is_named_after_its_clip():
    line = script.write(Options())[0]
    assert (line.id, line.media) == ("demo/s00/d00_t00", "media/s00_d00_t00.mp4")
