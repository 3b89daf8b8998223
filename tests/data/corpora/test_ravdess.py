"""RAVDESS: names, and performances recorded three ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.corpora import ravdess
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus


def read(root, **options):
    return ravdess.Ravdess(Corpus(name="ravdess", root=str(root), options=options)).read()


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
            ravdess.parse_name(stem)
        return
    name = ravdess.parse_name(stem)
    assert name.take == stem[3:]
    assert name.emotion == ravdess.EMOTIONS[fields[2] - 1] and name.actor == fields[6]


@given(st.text(alphabet="0123456789-x٣", max_size=22))
def test_other_names_are_value_errors(stem):
    try:
        name = ravdess.parse_name(stem)
    except ValueError:
        return
    assert stem.isascii() and stem.endswith(name.take)


def test_columns(tmp_path):
    touch(tmp_path, "Actor_12/03-01-06-02-02-01-12.wav")
    (clip,) = read(tmp_path).clips
    assert clip["id"] == "ravdess/03-01-06-02-02-01-12" and clip["emotion"] == "fearful"
    assert clip["text"] == "Dogs are sitting by the door." and clip["speaker"] == clip["session"] == "actor_12"
    assert clip["labels"] == '{"channel": "speech", "intensity": "strong", "repetition": 1, "sex": "female"}'
    assert "valence" not in clip


def test_one_performance_is_one_clip(tmp_path):
    take = "01-03-01-01-01-05"
    touch(tmp_path, f"v/01-{take}.mp4", f"v/02-{take}.mp4", f"a/03-{take}.wav", f"b/03-{take}.flac", "._03.wav")
    tables = read(tmp_path)
    (clip,) = tables.clips
    assert (clip["video"], clip["audio"]) == (f"v/01-{take}.mp4", f"a/03-{take}.wav")
    assert [p["reason"] for p in tables.problems] == ["surplus"]


def test_options(tmp_path):
    touch(tmp_path, "03-01-03-01-01-01-05.wav", "03-02-03-01-01-01-05.wav", "03-01-04-01-01-01-05.wav")
    assert len(read(tmp_path).clips) == 2
    assert len(read(tmp_path, channel="song").clips) == 1
    assert len(read(tmp_path, channel=None).clips) == 3
    assert len(read(tmp_path, emotions=["sad"]).clips) == 1
    with pytest.raises(CorpusError, match="'joy' is not of RAVDESS"):
        read(tmp_path, emotions=["joy"])
    with pytest.raises(ParamsError, match="Unknown parameter of corpus.options 'chanel'. Did you mean 'channel'"):
        read(tmp_path, chanel="song")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no RAVDESS speech"):
        read(tmp_path / "empty")


def test_a_loop_of_links_ends(tmp_path):
    touch(tmp_path, "a/03-01-03-01-01-01-05.wav")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert len(read(tmp_path).clips) == 1
