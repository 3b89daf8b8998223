"""The other corpora: small faithful replicas of their folders, run through the manifest stage."""

from __future__ import annotations

import io
import json

import av
import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from pipeline.data import build, media
from pipeline.data.corpora import afew_va, crema_d, emo_db, iemocap, mer2023, msp_improv, open_corpus, sentiment
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus
from pipeline.storage.media_store import Media


def read(name, root, **options):
    return open_corpus(Corpus(name=name, root=str(root), options=options)).read()


def built(settings, tmp_path, name, root, options=None, **groups):
    groups = {"protocol": {"kind": "official", "on_leak": "report", "val": 0.0}} | groups
    build.build_manifest(settings(name, root, options, **groups), tmp_path / "data")
    return pl.read_parquet(tmp_path / "data/manifest.parquet"), pl.read_parquet(tmp_path / "data/quarantine.parquet")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# IEMOCAP ------------------------------------------------------------------------------------------------------------

TURNS = (
    ("F000", "neu", "2.5000, 2.5000, 2.5000"),
    ("M000", "exc", "5.0000, 4.0000, 3.0000"),
    ("F001", "xxx", "3.0000, 3.0000, 3.0000"),
    ("M001", "fru", "1.0000, 5.5000, 3.0000"),
    ("F002", "hap", "4.0000, 3.0000, 3.0000"),
)


@pytest.fixture
def iemocap_root(tmp_path, tone):
    root = tmp_path / "IEMOCAP_full_release"
    for session in (1, 2, 3):
        name = f"Ses0{session}F_impro01"
        place = root / f"Session{session}"
        blocks, spoken = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], ["M: (off) start now"]
        for at, (turn, code, vad) in enumerate(TURNS):
            start, end = at * 0.5, at * 0.5 + 0.5
            blocks += [f"[{start:.4f} - {end:.4f}]\t{name}_{turn}\t{code}\t[{vad}]", "C-E2:\tNeutral;\t()"]
            blocks += [f"C-E4:\tAnger; Neutral;\t(was not {code})", "C-F1:\tSadness;\t()", "A-E3:\tval 3;\t()", ""]
            # The transcript stands in another order than time.
            spoken.insert(1, f"{name}_{turn} [{start:08.4f}-{end:08.4f}]: Turn number {at}.")
            tone(place / f"sentences/wav/{name}/{name}_{turn}.wav", frequency=200 + 30 * at + 7 * session)
        write(place / f"dialog/EmoEvaluation/{name}.txt", "\n".join(blocks))
        write(place / f"dialog/transcriptions/{name}.txt", "\n".join(spoken))
        tone(place / f"dialog/wav/{name}.wav", seconds=2.5, frequency=300 + session)
    return root


def test_iemocap(iemocap_root, tmp_path, settings):
    table, lost = built(
        settings, tmp_path, "iemocap", iemocap_root, protocol={"kind": "leave_one_out", "group": "session", "val": 0.0}
    )
    assert lost.is_empty() and table.height == 15 and table["target"].all()
    # No majority, or not among the classes: no emotion, but valence, arousal and dominance, and a turn.
    others = table.filter(pl.col("emotion").is_null())
    assert others["id"].str.slice(-4).to_list() == ["F001", "M001"] * 3 and others["valence"].to_list() == [0.0, -1.0] * 3
    row = table.filter(pl.col("id") == "iemocap/Ses01F_impro01_M000").row(0, named=True)
    assert (row["emotion"], row["speaker"], row["session"], row["turn"], row["text"]) == (
        "happy",
        "Ses01_M",
        "Ses01",
        1,
        "Turn number 1.",
    )
    assert (row["valence"], row["arousal"], row["dominance"]) == (1.0, 0.5, 0.0)
    assert row["duration"] == 0.5 and row["start"] is None
    # Each annotator's labels; not what the actors said of themselves.
    assert json.loads(row["labels"]) == {"votes": {"anger": 1, "neutral": 2}}
    folds = pl.read_parquet(tmp_path / "data/folds.parquet")
    assert folds["fold"].n_unique() == 3


@pytest.mark.parametrize(
    ("options", "emotions"),
    [
        ({"classes": "4"}, ["neutral", "happy", "happy"]),
        ({"classes": "5"}, ["neutral", "happy", "frustrated", "happy"]),
        ({"classes": "6"}, ["neutral", "excited", "frustrated", "happy"]),
        ({"excited": "drop"}, ["neutral", "happy"]),
        ({"classes": "all", "excited": "happy"}, ["neutral", "happy", "frustrated", "happy"]),
    ],
)
def test_iemocap_classes(iemocap_root, options, emotions):
    clips = [c for c in read("iemocap", iemocap_root, **options, others="drop").clips if c["session"] == "Ses01"]
    assert [c["emotion"] for c in clips] == emotions
    kept = [c for c in read("iemocap", iemocap_root, **options).clips if c["session"] == "Ses01"]
    assert [c["emotion"] for c in kept if c["emotion"]] == emotions and len(kept) == len(TURNS)
    assert max(abs(c["arousal"]) for c in clips) <= 1.0
    assert {c["turn"] for c in clips} <= {0, 1, 3, 4} and {c["turn"] for c in kept} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("dialogue", "turn", "side"),
    [
        ("Ses01F_impro01", "F000", "left"),
        ("Ses01F_impro01", "M000", "right"),
        ("Ses02M_impro01", "F000", "right"),
        ("Ses02M_impro01", "M000", "left"),
        ("Ses03M_script01_1b", "FXX0", "right"),
        ("Ses03M_script01_1b", "M002", "left"),
    ],
)
def test_iemocap_left_is_who_wears_the_markers(tmp_path, dialogue, turn, side):
    """The letter of the dialogue says who; sound and picture are divided alike."""
    place = tmp_path / f"Session{dialogue[4]}/dialog"
    line = f"[0.5 - 1.0]\t{dialogue}_{turn}\tneu\t[2.5, 2.5, 2.5]\n"
    write(place / f"EmoEvaluation/{dialogue}.txt", line)
    write(place / f"transcriptions/{dialogue}.txt", f"{dialogue}_{turn} [0.5-1.0]: Yes.\n")
    (clip,) = read("iemocap", tmp_path, audio="dialogue").clips
    assert (clip["channel"], clip.get("half"), clip.get("video")) == (side, None, None)
    (clip,) = read("iemocap", tmp_path, audio="dialogue", video=True).clips
    assert (clip["channel"], clip["half"], clip["start"], clip["end"]) == (side, side, 0.5, 1.0)
    assert clip["video"].endswith(f"dialog/avi/DivX/{dialogue}.avi") and clip["audio"].endswith(f"dialog/wav/{dialogue}.wav")


def test_iemocap_sound_and_picture_of_the_speaker(tmp_path, settings):
    """Through the stages: of two actors, the one who speaks is heard and seen."""
    root = tmp_path / "IEMOCAP"
    for session, letter in ((1, "F"), (2, "M"), (3, "F")):
        name, place = f"Ses0{session}{letter}_impro01", root / f"Session{session}/dialog"
        turns = [(f"{sex}000", at) for at, sex in enumerate("FM")]
        write(
            place / f"EmoEvaluation/{name}.txt",
            "".join(f"[{at:.1f} - {at + 1:.1f}]\t{name}_{turn}\tneu\t[2.5, 2.5, 2.5]\n" for turn, at in turns),
        )
        write(
            place / f"transcriptions/{name}.txt",
            "".join(f"{name}_{turn} [{at:.1f}-{at + 1:.1f}]: Hm.\n" for turn, at in turns),
        )
        time = np.arange(2 * 8000) / 8000
        # 300 Hz on the left, 700 Hz on the right; the left half is dark, the right one bright.
        (place / "wav").mkdir()
        soundfile.write(place / f"wav/{name}.wav", 0.3 * np.sin(2 * np.pi * np.outer(time, [300.0, 700.0])), 8000)
        (place / "avi/DivX").mkdir(parents=True)
        with av.open(str(place / f"avi/DivX/{name}.avi"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
            picture = np.zeros((32, 64, 3), np.uint8)
            picture[:, :32], picture[:, 32:], picture[0, 0] = 40, 200, session * 20
            for _ in range(20):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    params = settings(
        "iemocap", root, {"audio": "dialogue", "video": True}, protocol={"kind": "leave_one_out", "group": "session", "val": 0.0}
    )
    data = tmp_path / "data"
    build.build_manifest(params, data)
    table = pl.read_parquet(data / "manifest.parquet")
    assert table["content"].n_unique() == 6 and table["half"].equals(table["channel"], check_names=False)
    frames = Media(media.extract_frames(params, data / "manifest.parquet", data / "frames.h5"))
    sound = Media(media.extract_audio(params, data / "manifest.parquet", data / "audio.h5"))
    for row in table.iter_rows(named=True):
        left = row["speaker"][-1] == row["dialogue"][5]
        wave = sound.waveform(row["id"])
        pitch = np.abs(np.fft.rfft(wave)).argmax() * 16000 / len(wave)
        assert pitch == pytest.approx(300 if left else 700, abs=10)
        for item in frames[row["id"]].items:
            picture = np.asarray(Image.open(io.BytesIO(bytes(item))))
            assert picture.shape == (32, 32, 3) and picture.mean() == pytest.approx(40 if left else 200, abs=8)


def test_iemocap_damage(iemocap_root, tmp_path):
    path = iemocap_root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    path.write_text(path.read_text() + "[1.0 - 2.0]\tSes01F_impro01_F009\tzzz\t[1.0, 1.0, 1.0]\n[oops\n")
    assert [p["reason"] for p in read("iemocap", iemocap_root).problems] == ["label", "row"]
    path.write_text(path.read_text().replace("\tneu\t", "\tzzz\t"))
    tables = read("iemocap", iemocap_root)
    (turn,) = [c for c in tables.clips if c.get("target") is False]
    assert (turn["id"], turn["emotion"], turn["valence"], turn["turn"]) == ("iemocap/Ses01F_impro01_F000", None, None, 0)
    path.rename(path.with_name("gone"))
    (lost,) = read("iemocap", iemocap_root).problems
    assert (lost["reason"], lost["media"]) == ("missing", "Session1/dialog/transcriptions/Ses01F_impro01.txt")
    path.with_name("gone").rename(path)
    (iemocap_root / "Session2/dialog/transcriptions/Ses02F_impro01.txt").unlink()
    with pytest.raises(CorpusError, match="Ses02F_impro01.txt is not there"):
        read("iemocap", iemocap_root)
    assert len(iemocap.CLASSES["4"]) == 4


# AFEW-VA ------------------------------------------------------------------------------------------------------------


def nested(frames, actor="A"):
    return {
        "video_id": "001",
        "actor": actor,
        "frames": {f"{i:05}": {"valence": v, "arousal": a, "landmarks": [[10.0, 20.0], [30.0, 30.0]]} for i, v, a in frames},
    }


LAYOUTS = {
    "nested": nested([(0, -10, 5), (1, 10, 5)]),
    "list": [{"frame": "00000", "valence": -10, "arousal": 5}, {"frame": 1, "valence": 10, "arousal": 5}],
    "pairs": {"00000": [-10, 5], "00001": [10, 5]},
    "dicts": {"00000.png": {"valence": -10, "arousal": 5}, "00001.png": {"valence": 10, "arousal": 5}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_afew_va_layouts(layout):
    actor, found = afew_va.frames(json.loads(json.dumps(LAYOUTS[layout])), "x.json")
    assert found == {0: (-10, 5), 1: (10, 5)} and actor == ("A" if layout == "nested" else None)
    assert [afew_va.original(v / afew_va.SCALE) for v in range(-10, 11)] == list(range(-10, 11))


@pytest.mark.parametrize(
    "bad",
    [
        {},
        [],
        {"frames": {}},
        3,
        {"frames": {"a": {"valence": 1, "arousal": 1}}},
        {"0": [11, 0]},
        {"0": {"valence": 1}},
        {"0": [None, 1]},
        ["x"],
    ],
)
def test_afew_va_damage_names_the_file(bad):
    with pytest.raises(CorpusError, match="x.json"):
        afew_va.frames(bad, "x.json")


def test_afew_va(tmp_path, settings):
    root = tmp_path / "AFEW-VA"
    for clip in range(1, 9):
        place = root / f"{clip:03}"
        write(place / f"{clip:03}.json", json.dumps(nested([(i, i, -i) for i in range(5)], actor=f"actor {clip % 4}")))
        for i in range(5):
            if (clip, i) != (2, 1):
                Image.new("RGB", (32, 32), (clip * 20, i * 20, 0)).save(place / f"{i:05}.{'jpg' if clip == 3 else 'png'}")
    write(root / "009/009.json", "{broken")
    table, lost = built(settings, tmp_path, "afew_va", root, protocol={"kind": "kfold", "folds": 2, "val": 0.2})
    assert table.height == 8 and lost.select("id", "reason").rows() == [("afew_va/002", "missing"), ("afew_va/009", "row")]
    assert lost["detail"][0] == "1 of 5 annotated frames have no image: 00001"
    row = table.row(0, named=True)
    assert (row["id"], row["speaker"], row["valence"], row["arousal"]) == ("afew_va/001", "actor 1", 0.2, -0.2)
    assert row["duration"] == pytest.approx(0.2) and row["audio"] is None
    frames = pl.read_parquet(tmp_path / "data/truth_annotations.parquet")
    first = frames.filter(pl.col("id") == "afew_va/001")
    assert first["time"].to_list() == pytest.approx([0.02, 0.06, 0.1, 0.14, 0.18]) and first["valence"][4] == 0.4
    # The second frame of clip 002 is absent: what follows keeps its own label, at its place among the images.
    second = frames.filter(pl.col("id") == "afew_va/002")
    assert second["valence"].to_list() == [0.0, 0.2, 0.3, 0.4] and second["time"][1] == pytest.approx(0.06)
    assert second["frame"].to_list() == ["00000", "00002", "00003", "00004"]
    folds = pl.read_parquet(tmp_path / "data/folds.parquet").join(table.select("id", "speaker"), on="id")
    for fold in (0, 1):
        parts = {r: set(folds.filter((pl.col("fold") == fold) & (pl.col("role") == r))["speaker"]) for r in ("train", "test")}
        assert not parts["train"] & parts["test"], "the actor field drives the split"


# CH-SIMS, MOSI, MOSEI -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scale"), [("ch_sims", 1), ("mosi", 3), ("mosei", 3)])
def test_sentiment_corpora(tmp_path, tone, settings, name, scale):
    root = tmp_path / name
    rows = ["video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"]
    for i, (share, said, mode) in enumerate(((-1.0, "Negative", "train"), (0, "Neutral", "valid"), (0.6, "Positive", "test"))):
        rows.append(f"video_{i},1,我很好{i},{share * scale},{share * scale},,{share * scale},{said},{mode}")
        tone(root / f"Raw/video_{i}/0001.wav", frequency=200 + 30 * i)
    rows += ["video_9,1,bad,99,,,,Positive,train", "video_9,2,none,,,,,,train", "video_9,3,x,0,,,,Odd,train"]
    write(root / "label.csv", "\n".join(rows))
    table, lost = built(settings, tmp_path, name, root)
    assert table["split"].to_list() == ["train", "val", "test", None, None, None]
    assert sorted(lost["reason"]) == ["missing"] * 3 + ["row", "row"]
    # Nobody rated them, or not as the corpus rates: they stay turns of their video, for what was said.
    assert table["target"].to_list() == [True] * 3 + [False] * 3 and table["text"].to_list()[3:] == ["bad", "none", "x"]
    assert not set(pl.read_parquet(tmp_path / "data/folds.parquet")["id"]) & {f"{name}/video_9/{i}" for i in (1, 2, 3)}
    truth = pl.read_parquet(tmp_path / "data/truth.parquet")
    assert truth["valence"].to_list() == [0.6] and truth["sentiment"].to_list() == ["positive"]
    assert json.loads(truth["labels"][0]) == pytest.approx({"sentiment_text": 0.6 * scale, "sentiment_video": 0.6 * scale})
    assert [c["emotion"] for c in read(name, root, view="seven").clips][:3] == ["strongly negative", "neutral", "positive"]
    assert [c["emotion"] for c in read(name, root, view="three").clips] == ["negative", "neutral", "positive"] + [None] * 3


@pytest.mark.parametrize(("value", "degree"), [(-1, 0), (-0.5, 1), (-0.2, 2), (-0.1, 3), (0, 3), (0.5, 5), (1, 6)])
def test_seven_degrees(value, degree):
    assert sentiment.seven(value) == sentiment.SEVEN[degree]


# CREMA-D, EMO-DB ----------------------------------------------------------------------------------------------------


def test_crema_d(tmp_path, tone, settings):
    root = tmp_path / "c"
    for actor in (1001, 1002, 1003):
        for at, emotion in enumerate(crema_d.EMOTIONS):
            tone(root / f"AudioWAV/{actor}_DFA_{emotion}_XX.wav", frequency=actor - 800 + 31 * at)
    tone(root / "AudioWAV/1002_ZZZ_ANG_XX.wav")
    table, lost = built(settings, tmp_path, "crema_d", root, protocol={"kind": "split", "val": 0.3, "test": 0.3})
    assert table.height == 18 and lost["reason"].to_list() == ["name"]
    assert table["text"].unique().to_list() == ["Don't forget a jacket."]
    assert crema_d.parse_name("1001_IEO_HAP_HI")["labels"] == '{"level": "high"}'


def test_emo_db(tmp_path, tone, settings):
    root = tmp_path / "e"
    for at, stem in enumerate(("03a01Fa", "03a01Na", "08b10Wb", "08a01Fa", "16a05Lc", "16a05Wc")):
        tone(root / f"wav/{stem}.wav", frequency=200 + 30 * at, amplitude=0 if stem == "16a05Wc" else 0.3)
    tone(root / "wav/04a01Fa.wav")
    (root / "wav/08a01Fa.wav").write_bytes((root / "wav/08b10Wb.wav").read_bytes())
    table, lost = built(settings, tmp_path, "emo_db", root, protocol={"kind": "leave_one_out", "on_leak": "report", "val": 0})
    assert table.select("id", "speaker", "emotion").rows() == [
        ("emo_db/03a01Fa", "03", "happiness"),
        ("emo_db/03a01Na", "03", "neutral"),
        ("emo_db/08a01Fa", "08", "happiness"),
        ("emo_db/16a05Lc", "16", "boredom"),
    ]
    assert table["text"][3].startswith("Das schwarze Stück") and table["language"].unique().to_list() == ["de"]
    assert [(row["id"], row["reason"]) for row in lost.to_dicts()] == [
        ("emo_db/08b10Wb", "duplicate"),
        ("emo_db/16a05Wc", "silent"),
        (None, "name"),
    ]
    card = json.loads((tmp_path / "data/card.json").read_text())
    # The speakers say the same sentences: known, and no leak.
    assert card["leaks"] == [] and [(item["examples"], item["clips"]) for item in card["similar_text"]] == [
        (["auf dem der eisschrank lappen liegt"], 2)
    ]
    for bad in ("04a01Fa", "03a03Fa", "03a01Xa", "03a01F"):
        with pytest.raises(ValueError):
            emo_db.parse_name(bad)


# MSP ----------------------------------------------------------------------------------------------------------------


def test_msp_improv(tmp_path, tone, settings):
    root, lines = tmp_path / "m", []
    for session in (1, 2, 3):
        for at, (sex, code) in enumerate((("F", "A"), ("M", "X"), ("M", "N"))):
            name = f"MSP-IMPROV-S01A-{sex}0{session}-P-FM0{at + 1}"
            lines += [
                f"{name.replace('MSP', 'UTD')}.avi; {code}; A:3.000000; V:5.000000; D:1.0 ; N:NaN;",
                "WORKER00000001; Angry; Angry; A:3.000000; V:2.000000; D:4.000000; N:2.000000;",
                "",
            ]
            tone(root / f"session{session}/S01A/P/{name}.wav", frequency=200 + 10 * session + 37 * at)
            write(root / f"Human_transcripts/{name}.txt", "HOW ARE\nYOU\n")
    write(root / "Evalution.txt", "\n".join([*lines, "UTD-IMPROV-broken.avi; A"]))
    table, lost = built(
        settings, tmp_path, "msp_improv", root, protocol={"kind": "leave_one_out", "group": "session", "val": 0.0}
    )
    assert table.height == 9 and lost["reason"].to_list() == ["row"]
    first = table.filter(pl.col("dialogue") == "01-S01A-P").sort("turn")
    assert first["emotion"].to_list() == ["angry", None, "neutral"] and first["turn"].to_list() == [1, 2, 3]
    assert len(read("msp_improv", root, others="drop").clips) == 6
    row = table.row(0, named=True)
    assert (row["speaker"], row["session"], row["emotion"], row["text"]) == ("F01", "01", "angry", "HOW ARE YOU")
    assert (row["valence"], row["arousal"], row["dominance"]) == (1.0, 0.0, -1.0)
    assert msp_improv.parse_name("MSP-IMPROV-S01A-F01-P-FM01")["dialogue"] == "01-S01A-P"


def test_msp_podcast(tmp_path, tone, settings):
    rows = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    for i, (code, speaker, part) in enumerate(
        (
            ("A", "1", "Train"),
            ("N", "Unknown", "Train"),
            ("H", "2", "Development"),
            ("S", "3", "Test1"),
            ("X", "4", "Train"),
            ("H", "5", "Test2"),
            ("Z", "6", "Train"),
        )
    ):
        rows.append(f"MSP-PODCAST_0001_000{i}.wav,{code},1,4,7,{speaker},Male,{part}")
        tone(tmp_path / f"p/Audios/MSP-PODCAST_0001_000{i}.wav", frequency=200 + 30 * i)
    write(tmp_path / "p/Labels/labels_consensus.csv", "\n".join(rows))
    write(tmp_path / "p/Transcripts/MSP-PODCAST_0001_0000.txt", "hello there\n")
    table, lost = built(settings, tmp_path, "msp_podcast", tmp_path / "p")
    assert table["split"].to_list() == ["train", "train", "val", "test", "train"] and lost["reason"].to_list() == ["row"]
    # No agreement on an emotion: what was agreed on of valence, arousal and dominance is still learned from.
    assert table.row(4, named=True)["emotion"] is None and table["target"].all() and table["arousal"][4] == -1.0
    (tmp_path / "p/Labels/labels_consensus.csv").rename(tmp_path / "p/Labels/labels_concensus.csv")
    assert len(read("msp_podcast", tmp_path / "p", others="drop").clips) == 4
    row = table.row(0, named=True)
    assert (row["arousal"], row["valence"], row["dominance"], row["text"]) == (-1.0, 0.0, 1.0, "hello there")
    assert table["speaker"].to_list() == ["1", None, "2", "3", "4"], "unknown people are not one person"
    assert len(read("msp_podcast", tmp_path / "p", also_test=["Test2"]).clips) == 6
    (tmp_path / "p/Labels/labels_concensus.csv").rename(tmp_path / "p/labels_concensus.csv")
    assert len(read("msp_podcast", tmp_path / "p").clips) == 5
    (tmp_path / "p/labels_concensus.csv").unlink()
    with pytest.raises(CorpusError, match="labels_consensus.csv or labels_concensus.csv"):
        read("msp_podcast", tmp_path / "p")


# MER2023, MERR ------------------------------------------------------------------------------------------------------


def test_mer2023(tmp_path, tone, settings):
    root = tmp_path / "mer"
    write(root / "train.txt", "sample_1 50 happy 2.5\nsample_2 40 worried -10\nsample_3 x happy 1\nsample_4 9 glee 1\n")
    write(root / "test3_NCEV.txt", "sample_1 50 sad -5.0\n")
    tone(root / "video/sample_1.wav", frequency=300).rename(root / "video/sample_1.mp4")
    tone(root / "video/sample_2.wav", frequency=400).rename(root / "video/sample_2.mp4")
    table, lost = built(settings, tmp_path, "mer2023", root)
    assert table["id"].to_list() == ["mer2023/test3/sample_1", "mer2023/train/sample_1", "mer2023/train/sample_2"]
    assert table["valence"].to_list() == [None, 0.5, None] and table["emotion"].to_list() == [None, "happy", "worried"]
    assert sorted(lost["reason"]) == ["row", "row"]
    assert pl.read_parquet(tmp_path / "data/truth.parquet")["valence"].to_list() == [-1.0]
    card = json.loads((tmp_path / "data/card.json").read_text())
    assert [leak["column"] for leak in card["leaks"]] == ["content"], "one film under two splits is seen"
    with pytest.raises(ValueError, match="3 fields"):
        mer2023.parse_line("a 1 happy", 5)


def test_mer2023_as_distributed(tmp_path):
    """Tables beside the folders of their films; test3 has no valence; one name may stand in two parts."""
    write(tmp_path / "train-label.csv", "name,discrete,valence\nsample_1,happy,2.5\nsample_2,glee,1\n")
    write(tmp_path / "test3-label.csv", "name,discrete\nsample_1,sad\n")
    write(tmp_path / "transcription.csv", "name,sentence\nsample_1,你好\n")
    for part in ("train", "test3"):
        write(tmp_path / part / "sample_1.mp4", "")
    tables = read("mer2023", tmp_path)
    assert [(c["id"], c["emotion"], c["valence"], c["video"], c["text"]) for c in tables.clips] == [
        ("mer2023/test3/sample_1", "sad", None, "test3/sample_1.mp4", "你好"),
        ("mer2023/train/sample_1", "happy", 0.5, "train/sample_1.mp4", "你好"),
    ]
    assert [p["detail"] for p in tables.problems] == ["line 3: label 'glee' is not of MER2023"]


def test_merr_through_the_stage(tmp_path, tone, settings):
    root, records = tmp_path / "m", {}
    for i in range(6):
        records[f"sample_{i}"] = {"pseu_emotion": "happy" if i % 2 else "doubt", "text": f"这是第{i}句话"}
        tone(root / f"video/sample_{i}.wav", frequency=200 + 30 * i).rename(root / f"video/sample_{i}.mp4")
    (root / "video/sample_4.mp4").unlink()
    (root / "video/sample_5.mp4").write_bytes((root / "video/sample_0.mp4").read_bytes())
    write(root / "MERR.json", json.dumps(records | {"sample_7": {"pseu_emotion": "glee"}}))
    protocol = {"kind": "kfold", "group": "id", "folds": 2, "val": 0.25}
    table, lost = built(settings, tmp_path, "merr", root, protocol=protocol)
    assert table["id"].to_list() == [f"merr/sample_{i}" for i in range(4)]
    assert [(row["id"], row["reason"]) for row in lost.to_dicts()] == [
        ("merr/sample_4", "missing"),
        ("merr/sample_5", "duplicate"),
        (None, "row"),
    ]
    # Sound under the name of a film: the picture it promises is not there.
    assert table["video"].null_count() == 4 and json.loads((tmp_path / "data/card.json").read_text())["leaks"] == []


def test_merr(tmp_path):
    write(
        tmp_path / "MERR_fine.json",
        json.dumps(
            {
                "sample_1": {"pseu_emotion": "contempt", "text": "你好", "peak_index": "7"},
                "sample_2": {"pseu_emotion": "glee"},
                "sample_3": "no",
            }
        ),
    )
    tables = read("merr", tmp_path)
    (clip,) = tables.clips
    assert (clip["id"], clip["emotion"], clip["text"], clip["video"]) == (
        "merr/sample_1",
        "contempt",
        "你好",
        "video/sample_1.mp4",
    )
    assert json.loads(clip["labels"]) == {"peak_index": "7"} and len(tables.problems) == 2
    write(tmp_path / "instructions.json", json.dumps([{"video": "s/sample_9.mp4", "answer": "doubt"}]))
    with pytest.raises(CorpusError, match="corpus.options.file"):
        read("merr", tmp_path)
    write(tmp_path / "twice.json", '{"sample_1": {"emotion": "sad"}, "sample_1": {"emotion": "happy"}}')
    with pytest.raises(CorpusError, match=r"twice.json: not valid JSON \('sample_1' stands twice"):
        read("merr", tmp_path, file="twice.json")
    (clip,) = read("merr", tmp_path, file="instructions.json").clips
    assert (clip["id"], clip["emotion"]) == ("merr/sample_9", "doubt")


def test_mer2023_test_sets_are_not_mixed(tmp_path, caplog):
    """As published: the tables of training and tests in folders of their own; each test set is a track of the challenge."""
    for place, part, names in (
        ("train&label", "train", "ab"),
        ("test1&label", "test1", "ab"),
        ("test2&label", "test2", "c"),
        ("test3", "test3", "a"),
    ):
        write(tmp_path / place / f"{part}-label.csv", "name,discrete\n" + "".join(f"{name},sad\n" for name in names))
        for name in names:
            # Films beside the table, in a folder of the part, or under the part's name.
            write(tmp_path / place / ("" if part == "test2" else part) / f"{name}.mp4", "")
    tables = read("mer2023", tmp_path)
    assert [(c["id"], c["split"], c["session"], c["video"]) for c in tables.clips] == [
        ("mer2023/test1/a", "test", "test1", "test1&label/test1/a.mp4"),
        ("mer2023/test1/b", "test", "test1", "test1&label/test1/b.mp4"),
        ("mer2023/train/a", "train", "train", "train&label/train/a.mp4"),
        ("mer2023/train/b", "train", "train", "train&label/train/b.mp4"),
    ]
    assert "tested on test1; corpus.options.test chooses test2, test3" in caplog.text
    chosen = [c for c in read("mer2023", tmp_path, test=["test2", "test3"]).clips if c["split"] == "test"]
    assert [(c["session"], c["video"]) for c in chosen] == [("test2", "test2&label/c.mp4"), ("test3", "test3/test3/a.mp4")]
    with pytest.raises(ParamsError, match="'test9'"):
        read("mer2023", tmp_path, test=["test9"])


def test_a_name_that_several_folders_use_is_not_guessed(tmp_path):
    """Without a folder that says which is meant, neither film is taken: the clip is `missing`, not another one's."""
    write(tmp_path / "val.txt", "sample_1 5 sad -10\n")
    for place in ("train", "test1"):
        write(tmp_path / place / "sample_1.mp4", "")
    (clip,) = read("mer2023", tmp_path).clips
    assert clip["video"] == "val/sample_1.mp4"
