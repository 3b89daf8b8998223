"""RAVDESS: names, and performances recorded three ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.corpora import ravdess
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus


def corpus(root, **options):
    return Corpus(name="ravdess", root=str(root), options=options)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


@given(
    st.tuples(
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(1, 8),
        st.integers(1, 2),
        st.integers(1, 2),
        st.integers(1, 2),
        st.integers(1, 24),
    )
)
def test_every_name_in_range_is_read_back(fields):
    stem = "-".join(f"{f:02}" for f in fields)
    if fields[2] == 1 and fields[3] == 2:
        with pytest.raises(ValueError, match="neutral has no strong"):
            ravdess.name_of(stem)
        return
    name = ravdess.name_of(stem)
    assert name.take == stem[3:]
    assert name.emotion == ravdess.EMOTIONS[fields[2] - 1] and name.actor == fields[6]


@given(st.text(alphabet="0123456789-x٣", max_size=22))
def test_other_names_are_value_errors(stem):
    try:
        name = ravdess.name_of(stem)
    except ValueError:
        return
    assert stem.isascii() and stem.endswith(name.take)


def test_columns(tmp_path):
    touch(tmp_path, "Actor_12/03-01-06-02-02-01-12.wav")
    (clip,) = ravdess.read(corpus(tmp_path)).clips
    assert clip["id"] == "ravdess/03-01-06-02-02-01-12" and clip["emotion"] == "fearful"
    assert clip["text"] == "Dogs are sitting by the door." and clip["speaker"] == clip["session"] == "actor_12"
    assert clip["labels"] == '{"channel": "speech", "intensity": "strong", "repetition": 1, "sex": "female"}'
    assert "valence" not in clip


def test_one_performance_is_one_clip(tmp_path):
    take = "01-03-01-01-01-05"
    touch(tmp_path, f"v/01-{take}.mp4", f"v/02-{take}.mp4", f"a/03-{take}.wav", f"b/03-{take}.flac", "._03.wav")
    tables = ravdess.read(corpus(tmp_path))
    (clip,) = tables.clips
    assert (clip["video"], clip["audio"]) == (f"v/01-{take}.mp4", f"a/03-{take}.wav")
    assert [p["reason"] for p in tables.problems] == ["surplus"]


def test_options(tmp_path):
    touch(tmp_path, "03-01-03-01-01-01-05.wav", "03-02-03-01-01-01-05.wav", "03-01-04-01-01-01-05.wav")
    assert len(ravdess.read(corpus(tmp_path)).clips) == 2
    assert len(ravdess.read(corpus(tmp_path, channel="song")).clips) == 1
    assert len(ravdess.read(corpus(tmp_path, channel=None)).clips) == 3
    assert len(ravdess.read(corpus(tmp_path, emotions=["sad"])).clips) == 1
    with pytest.raises(CorpusError, match="'joy' is not of RAVDESS"):
        ravdess.read(corpus(tmp_path, emotions=["joy"]))
    with pytest.raises(ParamsError, match="corpus.options.chanel is not an option of ravdess"):
        ravdess.read(corpus(tmp_path, chanel="song"))
    with pytest.raises(CorpusError, match="holds no RAVDESS speech"):
        ravdess.read(corpus(tmp_path / "empty") if (tmp_path / "empty").mkdir() is None else None)


def test_a_loop_of_links_ends(tmp_path):
    touch(tmp_path, "a/03-01-03-01-01-01-05.wav")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert len(ravdess.read(corpus(tmp_path)).clips) == 1
