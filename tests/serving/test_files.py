"""Many files in one call: the answers of one call each, in order; what cannot be read is a row; what is done stays done."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline import cli
from pipeline.compose import text
from pipeline.errors import UserError
from pipeline.serving import looks
from pipeline.serving.ahead import Look, look_ahead
from pipeline.serving.files import keeping, predict_files
from pipeline.serving.medium import find_media
from pipeline.serving.predictor import Predictor


def with_run(params, **run):
    return params.model_copy(update={"run": params.run.model_copy(update=run)})


@pytest.fixture
def films(trained, tmp_path):
    """Four films, two levels deep, and what is none."""
    folder = tmp_path / "my films"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.mp4", "sub/a.mp4", "c d.mp4", "sub/é.mp4")):
        shutil.copy(trained.folder / f"corpus/clip{number}.mp4", folder / name)
    (folder / "broken.mp4").write_text("no film")
    (folder / "empty.wav").touch()
    (folder / "notes.txt").touch()
    os.symlink("nowhere.mp4", folder / "gone.mp4")
    return folder


def test_each_answer_is_that_of_the_file_alone_in_order(trained, films):
    media = find_media([str(films)])
    assert [one.name.removeprefix(f"{films}/") for one in media] == [
        *("a.mp4", "broken.mp4", "c d.mp4", "empty.wav", "gone.mp4", "sub/a.mp4", "sub/é.mp4"),
    ]
    predictor = Predictor.load(trained.params, trained.models, "cpu")
    answers = list(predict_files(predictor, media))
    assert [answer.medium for answer in answers] == media
    assert {answer.medium.path.name: answer.reason for answer in answers if answer.reason} == {
        "broken.mp4": "unreadable",
        "empty.wav": "empty",
        "gone.mp4": "missing",
    }
    alone = Predictor.load(trained.params, trained.models, "cpu")
    said = [answer.prediction for answer in answers if answer.prediction]
    assert len(said) == 4
    for found in said:
        wanted = alone.predict(found.path)
        assert found.emotions.keys() == wanted.emotions.keys() and found.duration == wanted.duration
        np.testing.assert_allclose(list(found.emotions.values()), list(wanted.emotions.values()), atol=1e-5)
        np.testing.assert_allclose(list(found.dimensions.values()), list(wanted.dimensions.values()), atol=1e-5)
        np.testing.assert_allclose(found.trace["valence"], wanted.trace["valence"], atol=1e-5)
        use, alike = ({n: (one.status, one.rows, one.reason) for n, one in x.streams.items()} for x in (found, wanted))
        assert use == alike
    assert said[0].emotions != said[2].emotions


def test_what_was_encoded_is_kept_until_its_bytes_change(trained, films):
    media = find_media([str(films / "*.mp4"), str(films / "sub")])
    with keeping(Predictor.load(trained.params, trained.models, "cpu")) as predictor:
        first = list(predict_files(predictor, media))
        assert predictor._forwards
    with keeping(Predictor.load(trained.params, trained.models, "cpu")) as predictor:
        again = list(predict_files(predictor, media))
        assert not predictor._forwards  # no network was loaded
        assert [one.prediction and one.prediction.emotions for one in again] == [
            one.prediction and one.prediction.emotions for one in first
        ]
        shutil.copy(trained.folder / "corpus/clip4.mp4", films / "a.mp4")
        changed = list(predict_files(predictor, find_media([str(films / "a.mp4")])))[0]
        assert predictor._forwards and changed.prediction.emotions != first[0].prediction.emotions


def test_processes_are_kept_and_one_that_crashes_costs_one_look(trained, films):
    params = with_run(trained.params, workers=1)
    predictor = Predictor.load(params, trained.models, "cpu")
    source = predictor.source(films / "a.mp4")
    pid = predictor.looks.one(params, _pid, "a", None).value
    assert predictor.looks.one(params, _pid, "b", None).value == pid != os.getpid()
    assert predictor.looks.one(params, os._exit, "c", 3).reason == "crash"
    assert predictor.looks.one(params, _pid, "d", None).value != pid
    ahead = list(look_ahead([source, predictor.source(films / "broken.mp4")], Look(("video", "audio")), params, predictor.looks))
    assert ahead[0].decoded.keys() == {"facts", "frames", "sound"} and not ahead[1].decoded["facts"].ok
    assert predictor.predict(films / "a.mp4").emotions == pytest.approx(
        Predictor.load(trained.params, trained.models, "cpu").predict(films / "a.mp4").emotions, abs=1e-6
    )
    predictor.looks.close()


def _pid(_):
    return os.getpid()


def test_a_look_in_another_process_takes_no_looks_along():
    import pickle

    assert pickle.loads(pickle.dumps(looks.Looks()))._pools == {}


@pytest.fixture
def workspace(trained, films, monkeypatch):
    """The folder that the trained models are in, as a command finds it."""
    monkeypatch.chdir(trained.folder)
    (trained.folder / "params.yaml").write_text(text(trained.params.model_dump(mode="json")))
    return trained.folder


def run(*words):
    return CliRunner().invoke(cli.app, ["predict", *map(str, words)])


def test_the_table_has_a_row_for_each_and_the_exit_code_says_so(workspace, films, tmp_path):
    done = run(films, "--csv", tmp_path / "out.csv", "--trace", tmp_path / "traces")
    assert done.exit_code == 3 and "3 of 7 files have no prediction" in done.stderr
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [os.path.basename(row["file"]) for row in rows] == [
        *("a.mp4", "broken.mp4", "c d.mp4", "empty.wav", "gone.mp4", "a.mp4", "é.mp4"),
    ]
    good, bad = rows[0], rows[1]
    assert float(good["p_joy"]) + float(good["p_sadness"]) == pytest.approx(1, abs=1e-5)
    assert good["emotion"] == max(("joy", "sadness"), key=lambda name: float(good[f"p_{name}"])) and not good["reason"]
    assert good["without"] == "text: no text was given" and -1 <= float(good["valence"]) <= 1 and good["seconds"] == "1.000"
    assert bad["reason"] == "unreadable" and bad["detail"] and not bad["emotion"]
    assert len(list((tmp_path / "traces").glob("*.csv"))) == 4
    done = run(films / "a.mp4", films / "c d.mp4", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and [line["path"] for line in lines] == [str(films / "a.mp4"), str(films / "c d.mp4")]
    assert lines[0]["emotions"]["joy"] == pytest.approx(float(good["p_joy"]), abs=1e-5)


@pytest.mark.parametrize(
    "words, said",
    [
        (("{}/empty",), "empty holds no film or sound"),
        (("{}/*.avi",), "avi meets no file"),
        (("{}", "--text", "Hello"), "--text is of one file"),
        (("{}/sub", "--csv", "{}/none/out.csv"), "none is no folder"),
        (("{}/sub", "--csv", "{}"), "it is a folder"),
        (("{}/sub", "--trace", "{}/trace.csv"), "of several files it is a folder"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_loaded(workspace, films, words, said):
    (films / "empty").mkdir()
    done = run(*(word.replace("{}", str(films)) for word in words))
    assert isinstance(done.exception, UserError) and said in str(done.exception) and "\n" not in str(done.exception)


def test_names_that_are_no_text_and_folders_of_frames(tmp_path, make_film):
    place = tmp_path / "frames"
    place.mkdir()
    for name in ("1.png", "2.png"):
        (place / name).touch()
    (only,) = find_media([str(place)])
    assert only.path == place and not only.reason
    bad = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    with open(bad, "wb"):
        pass
    for found in (
        find_media([os.fsdecode(bad)]),
        [one for one in find_media([str(make_film(tmp_path / "x.mp4").parent)]) if one.reason],
    ):
        assert [(one.reason, one.name.rpartition("/")[2]) for one in found] == [("name", "caf\\xe9.wav")]
    assert len(find_media([str(tmp_path / "x.mp4"), str(tmp_path), str(tmp_path / "*.mp4")])) == 2  # each once, and the bad name
