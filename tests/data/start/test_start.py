"""A folder nobody described: what is recognised, what is proposed, what is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from openpyxl import Workbook
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline import cli
from pipeline import params as parameters
from pipeline.compose import compose
from pipeline.data.corpora import open_corpus
from pipeline.data.start.recognise import recognise
from pipeline.data.start.sheet import read_sheet
from pipeline.data.start.tree import read_tree
from pipeline.errors import CorpusError, UserError

ROOT = Path(__file__).resolve().parents[3]


def sound(path: Path, seed: int = 0, seconds: float = 0.5) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * (200 + 7 * seed) * np.arange(int(8000 * seconds)) / 8000)
    soundfile.write(path, wave.astype(np.float32), 8000)
    return path.name


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    """The same rows in any of the kinds of table."""
    names = list(rows[0])
    if path.suffix == ".xlsx":
        book = Workbook()
        book.active.append(names)
        for row in rows:
            book.active.append(list(row.values()))
        book.save(path)
    elif path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(mark.join(map(str, line)) + "\n" for line in (names, *(row.values() for row in rows))))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".parquet"])
def test_columns_of_any_table_are_found_by_name_and_by_what_they_hold(tmp_path, suffix):
    """Bare names of files in a folder beside, labels under a name nobody knows, a scale of 1 to 5, words."""
    moods = ("happy", "sad", "angry")
    for i in range(6):
        sound(tmp_path / "sounds" / f"take {i}.wav", i)
    rows = [
        {
            "nr": i,
            "which": f"take {i}",
            "Actor": f"A{i % 3}",
            "mood": moods[i % 3],
            "Valence": 1 + i % 5,
            "said": f"I saw {i} of them",
        }
        for i in range(6)
    ]
    path = table(tmp_path / f"list{suffix}", rows)
    found = recognise(path, "mine")
    assert found.corpus.name == "generic" and found.corpus.options == {
        "name": "mine",
        "table": path.name,
        "media": "sounds/{}.wav",
        "columns": {"emotion": "mood", "id": "which", "media": "which", "speaker": "Actor", "text": "said", "valence": "Valence"},
        "scales": {"valence": [1, 5]},
    }
    clips = open_corpus(found.corpus).read().clips
    assert [clip["audio"] for clip in clips] == [f"sounds/take {i}.wav" for i in range(6)]
    assert [clip["emotion"] for clip in clips] == [moods[i % 3] for i in range(6)] and clips[0]["id"] == "mine/take 0"
    assert [clip["valence"] for clip in clips] == [-1.0, -0.5, 0.0, 0.5, 1.0, -1.0] and clips[4]["text"] == "I saw 4 of them"
    assert recognise(tmp_path, "mine").corpus == found.corpus  # the folder finds its table


@pytest.mark.parametrize(
    "files, levels, names",
    [
        (["happy/a.wav", "sad/b.wav"], ["emotion"], {}),
        (["train/joy/S01_1.wav", "train/fear/S01_2.wav", "test/fear/S02_1.wav"], ["split", "emotion"], {"speaker": "S01"}),
        (["Actor_01/happy/1.wav", "Actor_02/sad/2.wav"], ["speaker", "emotion"], {}),
        (["s1_happy_01.wav", "s2_sad_02.wav", "s1_sad_03.wav"], [], {"speaker": "s1", "emotion": "happy"}),
        (["OAF_back_angry.wav", "OAF_bar_happy.wav"], [], {"emotion": "angry"}),
        (["A/1.wav", "A/2.wav", "B/3.wav", "B/4.wav"], ["emotion"], {}),  # the only folders, of several clips each
        (["day1/a.wav", "day2/b.wav"], ["_"], {}),  # a clip each is no class
        (["a.wav", "b.wav", "c.wav"], [], {}),
        (["one/happy/x.wav", "two/sad/y.wav"], ["_", "emotion"], {}),
    ],
)
def test_what_folders_and_names_mean(files, levels, names):
    options, odd = read_tree(files)
    assert options["levels"] == levels and not odd
    if names:
        import re

        assert re.fullmatch(options["names"], Path(files[0]).stem).groupdict() == names
    else:
        assert "names" not in options


def test_files_above_the_folders_are_odd_and_the_rest_is_read(tmp_path):
    for name in ("happy/a.wav", "happy/b.wav", "sad/c.wav", "stray.wav"):
        sound(tmp_path / name, len(name))
    found = recognise(tmp_path, "mine")
    assert found.odd == ["1 files lie above the others' folders, e.g. stray.wav"]
    assert {clip["id"]: clip["emotion"] for clip in open_corpus(found.corpus).read().clips} == {
        "mine/happy/a": "happy",
        "mine/happy/b": "happy",
        "mine/sad/c": "sad",
    }


@pytest.mark.parametrize(
    "name, rows, said",
    [
        ("t.csv", "", "t.csv"),
        ("t.csv", "file,label\n", "holds no rows"),
        ("t.csv", "file,label\nx.wav,happy\ny.wav,sad\n", "no column names media that are in .*'file' says 'x.wav'"),
        ("t.pdf", "x", "is no folder and no table"),
    ],
)
def test_tables_that_cannot_be_used_are_one_line(tmp_path, name, rows, said):
    sound(tmp_path / "a.wav")
    (tmp_path / name).write_text(rows)
    with pytest.raises(CorpusError, match=said) as caught:
        recognise(tmp_path / name, "mine")
    assert "\n" not in str(caught.value)


def test_folders_that_hold_nothing_are_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CorpusError, match=r"holds no film or sound \(1 other files\)"):
        recognise(tmp_path, "mine")
    with pytest.raises(CorpusError, match="none is not there"):
        recognise(tmp_path / "none", "mine")


def test_a_known_layout_is_told(tmp_path):
    for actor in range(1, 4):
        for emotion in range(1, 5):
            sound(tmp_path / f"Actor_0{actor}" / f"03-01-0{emotion}-01-01-01-0{actor}.wav", 10 * actor + emotion)
    found = recognise(tmp_path, "mine")
    assert found.corpus.name == "ravdess" and "conf/recipe/ravdess.yaml is made for it" in found.told[0]


def test_ranges_and_parts_that_are_none(tmp_path):
    for i in range(4):
        sound(tmp_path / f"{i}.wav", i)
    rows = [{"file": f"{i}.wav", "valence": 0.1 * i, "arousal": f"high {i}", "split": f"part {i}", "turn": "a"} for i in range(4)]
    found = read_sheet(tmp_path, table(tmp_path / "t.csv", rows).name, [f"{i}.wav" for i in range(4)])
    assert found.options["scales"] == {"valence": [0, 1]} and "arousal" not in found.options["columns"]
    assert "split" not in found.options["columns"] and len(found.odd) == 4 and found.found == 4


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout's `conf/`, and a folder of sounds of six speakers and two classes."""
    shutil.copytree(ROOT / "conf", tmp_path / "checkout/conf")
    monkeypatch.chdir(tmp_path / "checkout")
    folder = tmp_path / "My corpus"
    for i in range(24):
        sound(folder / ("happy", "sad")[i // 2 % 2] / f"S{i // 4}_{i}.wav", i)
    return folder


def start(*words):
    return CliRunner().invoke(cli.app, ["start", *map(str, words)])


def read(path: str):
    return YAML(typ="safe").load(Path(path).read_text())


def test_from_a_folder_to_a_recipe_that_composes_and_is_checked(project):
    done = start(project, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["found"]["classes"] == {"happy": 12, "sad": 12} and said["found"]["speakers"] == {f"S{i}": 4 for i in range(6)}
    assert said["found"]["modalities"] == {"video": 0, "audio": 24, "text": 0} and said["found"]["lengths"][0] == 0.5
    assert said["next"] == "python -m pipeline use recipe=my_corpus && dvc repro" and said["ok"]
    params = parameters.parse(compose(["recipe=my_corpus"]), "conf")
    assert list(params.streams) == ["audio"] and params.corpus.root == str(project)
    assert (params.protocol.kind, params.protocol.group, params.task.emotion) == ("kfold", "speaker", True)
    written = {path: Path(path).read_bytes() for path in said["files"]}
    done = start(project)
    assert (
        done.exit_code == 0 and "six" not in done.stdout and "Next:      python -m pipeline use recipe=my_corpus" in done.stdout
    )
    assert written == {path: Path(path).read_bytes() for path in said["files"]}


def test_what_somebody_wrote_is_not_written_over(project):
    assert start(project).exit_code == 0
    path = Path("conf/recipe/my_corpus.yaml")
    path.write_text(path.read_text() + "temporal: {width: 32}\n")
    refused = start(project)
    assert isinstance(refused.exception, UserError) and "my_corpus.yaml is there already" in str(refused.exception)
    assert start(project, "--force").exit_code == 0 and "width" not in path.read_text()
    for words, said in (
        (("--name", "ravdess", "--force"), "is not of an earlier start"),
        (("--name", "My-Corpus"), "small letters"),
    ):
        assert said in str(start(project, *words).exception)
    assert read("conf/corpus/ravdess.yaml") == read(str(ROOT / "conf/corpus/ravdess.yaml"))


def test_odd_clips_are_told_and_too_many_do_not_run(project):
    (project / "happy/S0_x.wav").touch()
    shutil.copy(project / "sad/S0_2.wav", project / "sad/S0_2copy.wav")
    (project / "sad/S1_bad.wav").write_text("junk")
    with open(os.fsencode(project) + b"/sad/caf\xe9.wav", "wb"):
        pass
    sound(project / "calm/S1_99.wav", 99)
    done = start(project, "--json")
    said = json.loads(done.stdout)
    told = " ".join(said["odd"])
    assert done.exit_code == 3 and not said["ok"] and "quarantine.max_rate" in said["wrong"][0]
    for part in ("1 × duplicate", "1 × empty", "1 × unreadable", "1 × name", "classes of fewer than 5 clips: calm (1)"):
        assert part in told


def test_clips_without_labels_are_a_corpus_of_features(project, tmp_path):
    plain = tmp_path / "plain"
    for i in range(3):
        sound(plain / f"rec {i}.wav", i)
    said = json.loads(start(plain, "--json").stdout)
    assert said["ok"] and said["proposal"]["protocol"] == "none" and said["found"]["classes"] == {}
    assert parameters.parse(compose(["recipe=plain"]), "conf").protocol.kind == "none"


def test_a_script_is_no_stream_of_words(project, tmp_path):
    rows = []
    for i in range(24):
        rows.append(
            {"file": sound(tmp_path / "acted" / f"{i}.wav", i), "label": ("joy", "fear")[i % 2], "text": f"Kids {i % 2}."}
        )
    table(tmp_path / "acted/t.csv", rows)
    said = json.loads(start(tmp_path / "acted", "--json").stdout)
    assert list(said["proposal"]["streams"]) == ["audio"] and "2 sentences are said again" in " ".join(said["proposal"]["told"])
    for i, row in enumerate(rows):
        row["text"] = f"Sentence number {i}."
    table(tmp_path / "acted/t.csv", rows)
    said = json.loads(start(tmp_path / "acted", "--json", "--force").stdout)
    assert list(said["proposal"]["streams"]) == ["audio", "text"]


def test_few_people_are_not_held_out_and_one_class_teaches_nothing(project, tmp_path):
    said = {}
    for people in (2, 4):
        folder = tmp_path / f"people{people}"
        for i in range(16):
            sound(folder / ("joy", "fear")[i // 2 % 2] / f"spk{i % people}_{i}.wav", i)
        said[people] = json.loads(start(folder, "--json").stdout)
    assert said[2]["proposal"]["protocol"] == "kfold_clip" and "the same people" in " ".join(said[2]["proposal"]["told"])
    assert said[4]["proposal"]["protocol"] == "lospo"
    one = tmp_path / "one"
    for i in range(4):
        sound(one / "happy" / f"{i}.wav", i)
    told = json.loads(start(one, "--json").stdout)
    assert told["proposal"]["protocol"] == "none"


def test_people_who_meet_in_dialogues_are_kept_together_as_far_as_can_be(project, tmp_path):
    """Everybody talks to everybody: no way is free of leaks, and clip by clip would be the worst."""
    files = [sound(tmp_path / "talk" / f"{i}.wav", i) for i in range(30)]
    rows = [
        {"file": file, "label": ("joy", "fear")[i % 2], "speaker": f"P{i % 6}", "dialogue": f"d{i // 5}"}
        for i, file in enumerate(files)
    ]
    table(tmp_path / "talk/t.csv", rows)
    said = json.loads(start(tmp_path / "talk", "--json").stdout)["proposal"]
    assert said["protocol"] == "kfold_speaker" and said["values"]["protocol"] == {"on_leak": "report"}
