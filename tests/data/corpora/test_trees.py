"""Trees of folders: every entry ends in the manifest or in the quarantine, and none of them ends the stage."""

from __future__ import annotations

import os
import socket

import av
import numpy as np
import polars as pl
import pytest

from pipeline.data import build
from pipeline.data.corpora import crema_d, films, folder, generic, open_corpus, ravdess
from pipeline.errors import ParamsError
from pipeline.params import Corpus
from pipeline.reasons import BENIGN

ENCODED = {
    "wma": ("asf", "wmav2", "flt"),
    "mka": ("matroska", "aac", "fltp"),
    "m4b": ("mp4", "aac", "fltp"),
    "aiff": ("aiff", "pcm_s16be", "s16"),
    "caf": ("caf", "pcm_s16le", "s16"),
    "au": ("au", "pcm_s16be", "s16"),
    "opus": ("ogg", "libopus", "s16"),
    "aac": ("adts", "aac", "fltp"),
    "tta": ("tta", "tta", "s16"),
    "w64": ("w64", "pcm_s16le", "s16"),
}
FILMED = {"wmv": "asf", "flv": "flv", "ts": "mpegts", "3gp": "3gp", "m4v": "mp4", "mpg": "mpeg", "vob": "vob", "mxf": "mxf"}


def sound(path, pitch=440.0):
    form, codec, kind = ENCODED[path.suffix[1:]]
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = (0.3 * np.sin(2 * np.pi * pitch * np.arange(48000) / 48000)).astype(np.float32)
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=48000)
        stream.layout, stream.bit_rate = "mono", 96000
        values = (wave * 32767).astype(np.int16) if kind == "s16" else wave
        frame = av.AudioFrame.from_ndarray(values[None], format=kind, layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def film(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    form = FILMED[path.suffix[1:]]
    with av.open(str(path), "w", format=form) as container:
        codec = {"flv": "flv", "wmv": "wmv2", "mpg": "mpeg1video"}.get(
            path.suffix[1:], "mpeg2video" if form != "3gp" else "mpeg4"
        )
        stream = container.add_stream("mpeg4" if path.suffix == ".m4v" else codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(25):
            picture = np.full((64, 64, 3), (shade * 20 + i * 4) % 256, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def manifest(root, tmp_path, settings, name="generic", **options):
    build.build_manifest(settings(name, root, options, protocol={"group": "id", "val": 0.0, "test": 0.5}), tmp_path / "data")
    return tuple(pl.read_parquet(tmp_path / f"data/{part}.parquet") for part in ("manifest", "quarantine"))


def reasons(table):
    return {row["media"]: row["reason"] for row in table.to_dicts()}


def read(root, **options):
    return open_corpus(Corpus(name="generic", root=str(root), options=options)).read()


def test_every_medium_that_can_be_decoded_is_taken(tmp_path, settings):
    for i, suffix in enumerate(ENCODED):
        sound(tmp_path / f"c/happy/{i}.{suffix}", 300 + 40 * i)
    for i, suffix in enumerate(FILMED):
        film(tmp_path / f"c/sad/{i}.{suffix}", i)
    table, lost = manifest(tmp_path / "c", tmp_path, settings)
    assert not lost.height, lost.rows()
    assert table["audio"].drop_nulls().to_list() == sorted(f"happy/{i}.{suffix}" for i, suffix in enumerate(ENCODED))
    assert table["video"].drop_nulls().to_list() == [f"sad/{i}.{suffix}" for i, suffix in enumerate(FILMED)]
    heard = table.filter(pl.col("audio").is_not_null())
    assert {name: length for name, length in heard.select("audio", "duration").rows() if not 0.9 < length < 1.1} == {}


def test_second_takes_are_told(tmp_path, tone, settings):
    root = tmp_path / "c"
    tone(root / "a/1.wav", frequency=200)
    tone(root / "b/1.wav", frequency=240)
    for suffix, pitch in (("aac", 280), ("caf", 320)):
        sound(root / f"a/1.{suffix}", pitch)
    tone(root / "a/2.flac", frequency=360)
    sound(root / "a/2.mka", 400)
    for i, suffix in enumerate(("flv", "wmv")):
        film(root / f"a/3.{suffix}", i)
    tone(root / "a/3.wav", frequency=440)
    table, lost = manifest(root, tmp_path, settings)
    assert table.select("id", "video", "audio").rows() == [
        ("generic/a/1", None, "a/1.wav"),
        ("generic/a/2", None, "a/2.flac"),
        ("generic/a/3", "a/3.flv", "a/3.wav"),
        ("generic/b/1", None, "b/1.wav"),
    ]
    assert reasons(lost) == {name: "duplicate" for name in ("a/1.aac", "a/1.caf", "a/2.mka", "a/3.wmv")}
    assert lost.row(0, named=True)["detail"] == "another take of that name; a/1.wav is used"


def test_entries_that_are_no_files(tmp_path, tone, settings):
    """None is opened: a pipe would keep the stage waiting for ever."""
    root = tmp_path / "c"
    tone(root / "happy/a.wav")
    tone(root / "sad/b.wav", frequency=300)
    (root / "happy/gone.wav").symlink_to("nowhere.wav")
    (root / "happy/self.wav").symlink_to("self.wav")
    (root / "happy/device.wav").symlink_to("/dev/zero")
    (root / "happy/again").symlink_to(root)
    (root / "happy/folder.wav").mkdir()
    (root / "happy/through.wav").symlink_to("a.wav/b.wav")
    os.mkfifo(root / "happy/pipe.wav")
    os.mkfifo(root / "sad/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)
        try:
            listener.bind("sad/door.mp4")
        finally:
            os.chdir(here)
        table, lost = manifest(root, tmp_path, settings)
    assert table["audio"].to_list() == ["happy/a.wav", "sad/b.wav"]
    assert reasons(lost) == {
        "happy/again": "surplus",
        "happy/device.wav": "unreadable",
        "happy/folder.wav": "name",
        "happy/gone.wav": "missing",
        "happy/pipe.wav": "unreadable",
        "happy/self.wav": "missing",
        "happy/through.wav": "missing",
        "sad/door.mp4": "unreadable",
        "sad/pipe": "unreadable",
    }
    said = {row["media"]: row["detail"] for row in lost.to_dicts()}
    assert said["happy/pipe.wav"] == "a pipe, not a file" and said["happy/device.wav"] == "a device, not a file"
    assert said["happy/gone.wav"] == "a link that leads nowhere" and said["sad/door.mp4"] == "a socket, not a file"


def test_rows_of_a_table_that_lead_to_no_file(tmp_path, tone, settings, monkeypatch):
    root = tmp_path / "c"
    tone(root / "a.wav")
    tone(root / "b.wav", frequency=300)
    tone(root / "locked.wav", frequency=340)
    (root / "self.wav").symlink_to("self.wav")
    (root / "zero.wav").symlink_to("/dev/zero")
    (root / "folder.wav").mkdir()
    os.mkfifo(root / "pipe.wav")
    names = [
        "a.wav",
        "b.wav",
        "self.wav",
        "zero.wav",
        "folder.wav",
        "pipe.wav",
        "locked.wav",
        "a.wav/c.wav",
        "x" * 300,
        "none.wav",
    ]
    (root / "t.csv").write_text("id,media\n" + "".join(f"{i},{name}\n" for i, name in enumerate(names)))
    may = os.access
    # Whoever runs the tests as root may read everything.
    monkeypatch.setattr(
        os, "access", lambda path, *rest, **more: not str(path).endswith("locked.wav") and may(path, *rest, **more)
    )
    table, lost = manifest(root, tmp_path, settings, table="t.csv")
    assert table["audio"].to_list() == ["a.wav", "b.wav"]
    found = reasons(lost)
    assert found == {
        "self.wav": "missing",
        "zero.wav": "unreadable",
        "folder.wav": "empty",
        "pipe.wav": "unreadable",
        "locked.wav": "access",
        "a.wav/c.wav": "missing",
        "x" * 300: "missing",
        "none.wav": "missing",
    }


def test_names_that_are_no_text(tmp_path, tone, settings):
    root = tmp_path / "c"
    tone(root / "happy/a.wav")
    tone(root / "sad/b.wav", frequency=300)
    raw = os.fsencode(root)
    for name in (b"/happy/caf\xe9.wav", b"/sad/\x82\xc6.wav"):
        os.link(root / "happy/a.wav", raw + name)
    os.mkdir(raw + b"/f\xfchlt")
    os.link(root / "happy/a.wav", raw + b"/f\xfchlt/c.wav")
    table, lost = manifest(root, tmp_path, settings)
    assert table["audio"].to_list() == ["happy/a.wav", "sad/b.wav"]
    assert reasons(lost) == {"happy/caf\\xe9.wav": "name", "sad/\\x82\\xc6.wav": "name", "f\\xfchlt": "name"}


def test_a_folder_that_cannot_be_listed(tmp_path, tone, settings, monkeypatch):
    root = tmp_path / "c"
    tone(root / "happy/a.wav")
    tone(root / "sad/b.wav", frequency=300)
    tone(root / "angry/c.wav", frequency=350)
    listed = os.scandir

    def refuse(path="."):
        if str(path).endswith("angry"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    table, lost = manifest(root, tmp_path, settings)
    assert table["audio"].to_list() == ["happy/a.wav", "sad/b.wav"]
    (row,) = lost.to_dicts()
    assert (row["media"], row["reason"]) == ("angry", "access") and "Permission denied" in row["detail"]


def test_files_of_other_kinds_are_named_or_counted(tmp_path, tone):
    root = tmp_path / "c"
    tone(root / "happy/a.wav")
    for name in ("readme.txt", "happy/a.txt", "happy/a.wavx", "happy/b.unknown", "happy/c", "happy/.DS_Store", "happy/._a.wav"):
        (root / name).write_bytes(b"x")
    for i in range(30):
        (root / f"happy/{i:02}.png").write_bytes(b"x")
    found = read(root)
    assert {row["reason"] for row in found.problems} == {"surplus"} <= BENIGN
    assert {row["media"]: row["detail"] for row in found.problems} == {
        "happy/c": "no suffix: not taken for a medium",
        "happy/00.png": ".png: not taken for a medium; 30 such files, of which this is the first",
        "happy/a.txt": ".txt: not taken for a medium; 2 such files, of which this is the first",
        "happy/b.unknown": ".unknown: not taken for a medium",
        "happy/a.wavx": ".wavx: not taken for a medium",
    }


def test_names_with_colons_and_dots(tmp_path, tone, settings):
    names = ["a:b.wav", "...x.wav", "wav/c: d.wav", "wav/..y.wav", "http:x.wav", "-z.wav", "wav/100%.wav", "pipe:1.wav"]
    for i, name in enumerate(names):
        tone(tmp_path / "c" / name, frequency=200 + 30 * i)
    paths = [*names[:-1], str(tmp_path / "c" / names[-1])]
    (tmp_path / "c/t.csv").write_text("id,media\n" + "".join(f"{i},{path}\n" for i, path in enumerate(paths)))
    table, lost = manifest(tmp_path / "c", tmp_path, settings, table="t.csv")
    assert table["audio"].to_list() == names and not lost.height
    assert np.allclose(table["duration"], 0.5)


def test_corpora_read_by_name_tell_second_takes_too(tmp_path, tone):
    tone(tmp_path / "c/AudioWAV/1001_IEO_ANG_HI.wav")
    sound(tmp_path / "c/AudioMP3/1001_IEO_ANG_HI.aac")
    tone(tmp_path / "c/copy/1001_IEO_ANG_HI.wav", frequency=300)
    (tmp_path / "c/AudioWAV/1002_IEO_ANG_HI.wav").symlink_to("nowhere")
    found = crema_d.CremaD(Corpus(name="crema_d", root=str(tmp_path / "c"))).read()
    assert [clip["audio"] for clip in found.clips] == ["AudioWAV/1001_IEO_ANG_HI.wav"]
    assert {row["media"]: row["reason"] for row in found.problems} == {
        "AudioMP3/1001_IEO_ANG_HI.aac": "surplus",
        "copy/1001_IEO_ANG_HI.wav": "surplus",
        "AudioWAV/1002_IEO_ANG_HI.wav": "missing",
    }
    tone(tmp_path / "r/Actor_01/03-01-03-01-01-01-01.wav")
    os.mkfifo(tmp_path / "r/Actor_01/03-01-04-01-01-01-01.wav")
    found = ravdess.Ravdess(Corpus(name="ravdess", root=str(tmp_path / "r"))).read()
    assert [row["reason"] for row in found.problems] == ["unreadable"]


def test_films_that_share_folder_and_name(tmp_path):
    for i, name in enumerate(("video/1.flv", "video/1.wmv", "other/video/1.flv", "other/1.flv")):
        film(tmp_path / name, i)
    problems: list[dict] = []
    found = films.find_films(tmp_path, "video", problems)
    assert found == {"other/1": "other/1.flv", "video/1": "other/video/1.flv"}
    assert [row["media"] for row in problems] == ["video/1.flv", "video/1.wmv"]


def test_the_suffixes_are_of_one_kind_each():
    kinds = (folder.AUDIO, folder.VIDEO, folder.IMAGE, folder.BESIDE)
    assert len({suffix for kind in kinds for suffix in kind}) == sum(map(len, kinds))
    assert all(suffix == suffix.lower() and suffix.startswith(".") for kind in kinds for suffix in kind)


@pytest.mark.parametrize("suffix", ["bmp", "webp", "png"])
def test_a_folder_of_any_pictures_has_an_identity(tmp_path, settings, suffix):
    from PIL import Image

    for clip in ("x", "y"):
        (tmp_path / "c" / clip).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (32, 32), (80 * i, ord(clip), 0)).save(tmp_path / f"c/{clip}/{i}.{suffix}")
    (tmp_path / "c/t.csv").write_text("id,video\n0,x\n1,y\n")
    table, lost = manifest(tmp_path / "c", tmp_path, settings, table="t.csv")
    assert table["video"].to_list() == ["x", "y"] and not lost.height and table["content"].n_unique() == 2


def tree(root, tone, names):
    for at, name in enumerate(names):
        tone(root / name, frequency=200 + 20 * at)
    return lambda **options: generic.Generic(Corpus(name="generic", root=str(root), options=options)).read()


@pytest.mark.parametrize(
    ("files", "options", "columns"),
    [
        (  # the class in the folder, the speaker in the name
            ("happy/S01_a.wav", "sad/S02_b.wav"),
            {"names": r"(?P<speaker>S\d+)_.*"},
            [("S01", "happy", None), ("S02", "sad", None)],
        ),
        (  # all in the name, no folder at all
            ("S01_happy_03.wav", "S02_sad_1.wav"),
            {"names": r"(?P<speaker>S\d+)_(?P<emotion>[a-z]+)_(?P<turn>\d+)"},
            [("S01", "happy", 3), ("S02", "sad", 1)],
        ),
        (  # letters that stand for classes, in folders of any depth
            ("x/DC_a01.wav", "y/z/KL_su15.wav"),
            {"names": r"(?P<speaker>[A-Z]+)_(?P<emotion>[a-z]+)\d+", "emotions": {"a": "anger", "su": "surprise"}},
            [("DC", "anger", None), ("KL", "surprise", None)],
        ),
        (  # the speaker's folder, given with the path
            ("Actor_07/hap/1.wav", "Actor_08/sad/1.wav"),
            {"names": r"Actor_(?P<speaker>\d+)/(?P<emotion>\w+)/\d+"},
            [("07", "hap", None), ("08", "sad", None)],
        ),
        (  # levels and names together: the name has the last word
            ("train/unknown/S1-joy.wav",),
            {"levels": ["split", "emotion"], "names": r"(?P<speaker>\w+)-(?P<emotion>\w+)"},
            [("S1", "joy", None)],
        ),
    ],
)
def test_names_of_files_tell_columns(tmp_path, tone, files, options, columns):
    found = tree(tmp_path, tone, files)(**options)
    assert [(clip["speaker"], clip["emotion"], clip["turn"]) for clip in found.clips] == columns and not found.problems


def test_a_name_of_another_kind_is_told(tmp_path, tone):
    read = tree(tmp_path, tone, ("S01_happy_1.wav", "S01_happy.wav", "take S02_sad_1.wav", "S03_glee_1.wav"))
    found = read(names=r"(?P<speaker>S\d+)_(?P<emotion>[a-z]+)_\d+", emotions={"happy": "joy"})
    assert [(clip["id"], clip["emotion"]) for clip in found.clips] == [("generic/S01_happy_1", "joy")]
    assert {row["media"]: row["reason"] for row in found.problems} == {
        "S01_happy.wav": "name",
        "take S02_sad_1.wav": "name",
        "S03_glee_1.wav": "label",
    }
    for pattern, said in (("(", "no regular expression"), ("S.*", "names no column"), ("(?P<actor>.*)", "'actor' is not one of")):
        with pytest.raises(ParamsError, match=said):
            read(names=pattern)


def test_speakers_in_the_name_keep_folds_apart(tmp_path, tone, settings):
    names = [f"{emotion}/S{who:02}_{take}.wav" for emotion in ("happy", "sad") for who in range(1, 7) for take in (1, 2)]
    tree(tmp_path / "t", tone, names)
    options = {"table": None, "names": "(?P<speaker>S[0-9]+)_.*"}
    build.build_manifest(settings("generic", tmp_path / "t", options, protocol={"kind": "kfold", "folds": 3}), tmp_path / "data")
    table, folds = (pl.read_parquet(tmp_path / f"data/{name}.parquet") for name in ("manifest", "folds"))
    assert table["speaker"].n_unique() == 6 and table.height == 24
    roles = folds.join(table.select("id", "speaker"), on="id").group_by("fold", "speaker").agg(pl.col("role").n_unique())
    assert roles["role"].to_list() == [1] * 18
