"""MELD: splits whose clip names collide, known damage, lost apostrophes, true counts."""

from __future__ import annotations

import json
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import build
from pipeline.data.corpora import meld
from pipeline.errors import CorpusError
from pipeline.params import Corpus

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"


def line(dialogue, utterance, *, text="Hello you", speaker="Ross", emotion="joy", sentiment="positive", end="00:00:01,500"):
    return f'1,"{text}",{speaker},{emotion},{sentiment},{dialogue},{utterance},1,{dialogue + 1},"00:00:01,000","{end}"\n'


@pytest.fixture
def root(tmp_path, tone):
    """Three splits in the folders of the archive; the same names in each."""
    root = tmp_path / "MELD.Raw"
    tables = {
        "train": [line(0, 0), line(0, 1, speaker="Rachel"), line(125, 3)],
        "dev": [line(0, 0), line(110, 7)],
        "test": [line(0, 0), line(0, 1, speaker="Mindy"), line(38, 4)],
    }
    (root / "train").mkdir(parents=True)
    for split, lines in tables.items():
        place = root / "train" if split == "train" else root
        (place / f"{split}_sent_emo.csv").write_text(HEADER + "".join(lines), encoding="utf-8")
    pitch = 200
    for folder, names in (
        ("train/train_splits", ["dia0_utt0", "dia0_utt1", "dia125_utt3"]),
        ("dev_splits_complete", ["dia0_utt0", "dia66_utt9"]),
        ("output_repeated_splits_test", ["dia0_utt0", "dia0_utt1", "dia38_utt4", "final_videos_testdia0_utt0"]),
    ):
        for name in names:
            pitch += 13
            # Sound under the name of a film: the probe looks at bytes.
            tone(root / folder / f"{name}.wav", seconds=8 if name == "dia38_utt4" else 0.5, frequency=pitch)
            (root / folder / f"{name}.wav").rename(root / folder / f"{name}.mp4")
    (root / "train/train_splits/dia125_utt3.mp4").write_bytes(b"\0" * 64)
    return root


def read(root, **options):
    return meld.Meld(Corpus(name="meld", root=str(root), options=options)).read()


def test_every_row_resolves_to_its_own_split(root):
    clips = read(root).clips
    folder = {"train": "train/train_splits", "val": "dev_splits_complete", "test": "output_repeated_splits_test"}
    assert len(clips) == 8 and len({clip["id"] for clip in clips}) == 8
    assert all(clip["video"].startswith(folder[clip["split"]] + "/") for clip in clips)
    assert {clip["dialogue"] for clip in clips} >= {"train/dia0", "dev/dia0", "test/dia0"}


@pytest.mark.parametrize("inner", ["test", "MELD.Raw", "MELD.Raw/test"])
@pytest.mark.parametrize("name", ["output_repeated_splits_test", "test_splits"])
def test_the_test_films_are_found_where_the_archives_put_them(root, inner, name, tmp_path, settings):
    (root / inner).mkdir(parents=True)
    (root / "output_repeated_splits_test").rename(root / inner / name)
    settings = settings("meld", root, protocol={"kind": "official", "on_leak": "report"})
    build.build_manifest(settings, tmp_path / "data")
    found = pl.read_parquet(tmp_path / "data/manifest.parquet").filter(pl.col("split") == "test")
    assert found["audio"].to_list() == [f"{inner}/{name}/dia0_utt0.mp4", f"{inner}/{name}/dia0_utt1.mp4"]


def test_whole_parts_may_lie_in_the_folder_of_the_archive(root):
    (root / "MELD.Raw").mkdir()
    for part in ("train", "dev_splits_complete"):
        (root / part).rename(root / "MELD.Raw" / part)
    assert {clip["video"].rsplit("/", 1)[0] for clip in read(root).clips} == {
        "MELD.Raw/train/train_splits",
        "MELD.Raw/dev_splits_complete",
        "output_repeated_splits_test",
    }


def test_known_damage_ends_in_the_quarantine(root, tmp_path, settings):
    build.build_manifest(settings("meld", root, protocol={"kind": "official", "on_leak": "report"}), tmp_path / "data")
    found = pl.read_parquet(tmp_path / "data/quarantine.parquet")
    assert {(r["id"] or r["media"].split("/")[-1], r["reason"]) for r in found.to_dicts()} == {
        ("meld/train/dia125_utt3", "unreadable"),
        ("meld/dev/dia110_utt7", "missing"),
        ("meld/test/dia38_utt4", "drift"),
        ("dia66_utt9.mp4", "surplus"),
        ("final_videos_testdia0_utt0.mp4", "surplus"),
    }
    card = json.loads((tmp_path / "data/card.json").read_text())
    assert card["clips"] == 5
    speaker = next(k for k in card["leaks"] if k["column"] == "speaker" and k["splits"] == ["train", "test"])
    assert speaker["examples"] == ["Ross"] and speaker["share"] == 0.5
    assert card["notes"]["speakers met in train and test"]["test utterances"] == 2


def test_known_damage_can_be_set_aside_unseen(root):
    tables = read(root, known="quarantine")
    assert sorted(p["id"] for p in tables.problems if p["reason"] == "known") == [
        "meld/dev/dia110_utt7",
        "meld/test/dia38_utt4",
        "meld/train/dia125_utt3",
    ]


@pytest.mark.parametrize(
    ("damaged", "mended"),
    [
        ("I?ve got it, that?s all. What? Really?", "I’ve got it, that’s all. What? Really?"),
        ("Itâ€™s over", "It’s over"),
        ("It\x92s over", "It’s over"),
        ("cafÃ©", "café"),
        ("Why?so", "Why?so"),
        ("naïve Â", "naïve Â"),
        ("It’s fine…", "It’s fine…"),
    ],
)
def test_text_is_mended_only_where_it_is_damaged(damaged, mended):
    assert meld.repaired(damaged) == mended


def test_a_table_in_windows_encoding(root):
    path = root / "dev_sent_emo.csv"
    path.write_bytes((HEADER + line(0, 0, text="It’s me")).encode("cp1252"))
    assert next(c for c in read(root).clips if c["id"] == "meld/dev/dia0_utt0")["text"] == "It’s me"


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_time_stamps(hours, minutes, seconds, thousandths):
    stamp = f"{hours:02}:{minutes:02}:{seconds:02},{thousandths:03}"
    assert meld.seconds(stamp) == pytest.approx(hours * 3600 + minutes * 60 + seconds + thousandths / 1000)


@given(st.text(max_size=12))
def test_no_text_but_a_time_stamp_is_a_time(text):
    try:
        assert meld.seconds(text) >= 0
    except ValueError:
        pass


def test_bad_lines_are_quarantined_with_file_and_line(root):
    with (root / "test_sent_emo.csv").open("a") as file:
        file.write(line(5, 0, emotion="glee") + line(5, 1, end="soon") + line(5, 2).replace("5,2", "x,2", 1))
    problems = [p for p in read(root).problems if p["reason"] == "row"]
    assert [p["media"] for p in problems] == ["test_sent_emo.csv"] * 3
    assert "line 5: emotion 'glee'" in problems[0]["detail"]


def test_a_missing_column_and_an_empty_folder_are_one_line(root, tmp_path):
    (root / "dev_sent_emo.csv").write_text("Utterance,Speaker\nhi,Ross\n")
    with pytest.raises(CorpusError, match="dev_sent_emo.csv: column 'Emotion' is missing"):
        read(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no table of MELD"):
        read(tmp_path / "empty")


def test_real_tables_have_the_published_counts(real):
    if not (real / "meld").is_dir():
        pytest.skip("no MELD in the real data")
    tables = read(real / "meld", media="none")
    assert not tables.problems
    assert tables.notes["utterances"] == {"train": 9989, "val": 1109}
    counted = {split: Counter(c["emotion"] for c in tables.clips if c["split"] == split) for split in ("train", "val")}
    assert counted["train"] == {
        "anger": 1109,
        "disgust": 271,
        "fear": 268,
        "joy": 1743,
        "neutral": 4710,
        "sadness": 683,
        "surprise": 1205,
    }
    assert counted["val"] == {
        "anger": 153,
        "disgust": 22,
        "fear": 40,
        "joy": 163,
        "neutral": 470,
        "sadness": 111,
        "surprise": 150,
    }
    people = {split: len({c["speaker"] for c in tables.clips if c["split"] == split}) for split in ("train", "val")}
    assert people == {"train": 260, "val": 47}
    names = {split: {c["id"].split("/")[-1] for c in tables.clips if c["split"] == split} for split in ("train", "val")}
    assert len(names["train"] & names["val"]) == 675 and len({c["id"] for c in tables.clips}) == 11098
    assert not any("60" == c["dialogue"].removeprefix("train/dia") for c in tables.clips)


def test_tables_without_any_film_are_read_alone_and_say_so(root, tmp_path, caplog):
    """Where one split has its films, a film that is not there is lost as ever; asked for, films are never given up."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in root.rglob("*.csv"):
        (bare / path.name).write_bytes(path.read_bytes())
    (bare / "train_splits").mkdir()  # empty: there is no film in it
    found = read(bare)
    assert len(found.clips) == 8 and all(clip["video"] is None and clip["text"] for clip in found.clips)
    assert "holds no film of MELD: the tables are read alone" in caplog.text
    assert found.notes["films"] == "none: the tables were read alone"
    caplog.clear()
    assert all(clip["video"] for clip in read(bare, media="video").clips)
    assert all(clip["video"] is None for clip in read(bare, media="none").clips)
    (bare / "train_splits" / "dia0_utt0.mp4").write_bytes(b"film")
    assert all(clip["video"] for clip in read(bare).clips)
    assert not caplog.text


def test_dev_is_tested_on_where_it_is_held_out_and_the_test_table_is_not_read(root):
    found = read(root, held_out="dev")
    assert Counter(clip["split"] for clip in found.clips) == {"train": 3, "test": 2}
    assert {clip["id"].split("/")[1] for clip in found.clips if clip["split"] == "test"} == {"dev"}
    assert "splits without a table" not in found.notes and "test" in found.notes["utterances"]
