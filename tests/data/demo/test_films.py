"""The generated corpus in AFEW-VA's layout: its bytes, its truth, and that the genuine reader reads it."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline import params
from pipeline.cli import app
from pipeline.data.corpora import afew_va, open_corpus
from pipeline.data.demo import films
from pipeline.data.faces import landmarks
from pipeline.data.prepare import generate_corpus
from pipeline.errors import CorpusError, ParamsError

FEW = films.Options(actors=4, films=2, least=6, most=9, size=64)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("films")
    films.write_films(FEW, out)
    return out


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_options_give_the_same_bytes_over_an_earlier_corpus(made, tmp_path):
    films.write_films(FEW.model_copy(update={"seed": 1, "films": 3}), tmp_path)
    assert digest(tmp_path) != digest(made)
    films.write_films(FEW, tmp_path)
    assert digest(tmp_path) == digest(made), "films of other options are gone"


def test_the_reader_of_the_genuine_layout_finds_every_frame_with_its_truth(made):
    corpus = open_corpus(params.Corpus(name="afew_va", root=str(made), options={}))
    assert type(corpus) is afew_va.AfewVa
    tables = corpus.read()
    planned = {f"afew_va/{film.number:03}": film for film in films.plan_films(FEW)}
    assert {clip["id"]: clip["speaker"] for clip in tables.clips} == {i: film.actor.name for i, film in planned.items()}
    assert len({film.actor.name for film in planned.values()}) == 4 and not tables.problems
    for name, film in planned.items():
        rows = [row for row in tables.annotations if row["id"] == name]
        assert [row["frame"] for row in rows] == [f"{n:05}" for n in range(len(film.course))]
        labels = np.array([[row["valence"], row["arousal"]] for row in rows])
        np.testing.assert_allclose(labels, film.course, atol=0.05 + 1e-9)  # whole numbers of [-10, 10]
        value = json.loads((made / name[-3:] / f"{name[-3:]}.json").read_text())
        assert all(type(entry[d]) is int for entry in value["frames"].values() for d in ("valence", "arousal"))


def test_landmarks_lie_on_the_face(made):
    for points in landmarks.read(made / "001").values():
        face = landmarks.of_points(points)
        left, top, right, bottom = face.box
        assert 0 < left < right < FEW.size and 0 < top < bottom < FEW.size
        (x, y), (other, level) = face.eyes
        assert x < other and y == pytest.approx(level, abs=0.1) and top < y < (top + bottom) / 2


def test_the_face_follows_valence_and_arousal():
    plane = [[films.express(v, a) for v in (-0.8, 0.0, 0.8)] for a in (-0.7, 0.0, 0.7)]
    for row in plane:
        assert row[0].smile < row[1].smile < row[2].smile
    for low, _, high in zip(*plane, strict=True):
        assert low.eye < high.eye and low.open < high.open
    near, far = films.express(0.5, 0.3), films.express(0.501, 0.3)
    assert abs(near.smile - far.smile) < 0.01, "small steps change little"


def test_one_command_writes_it(tmp_path):
    done = CliRunner().invoke(
        app, ["corpus", "generate", "demo_afew_va", str(tmp_path / "x"), "actors=2", "films=1", "least=5", "most=5", "size=48"]
    )
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["001", "002", "README.md"]
    with Image.open(tmp_path / "x/002/00004.png") as picture:
        assert picture.size == (48, 48)


@pytest.mark.parametrize(
    ("name", "options", "said", "kind"),
    [
        ("ravdess", (), "Unknown generated corpus 'ravdess'.*demo_afew_va", CorpusError),
        ("demo_afew_va", ("actors",), "'actors' is no option; write KEY=VALUE", CorpusError),
        ("demo_afew_va", ("actor=3",), "actor.*actors", ParamsError),
        ("demo_afew_va", ("least=9", "most=8"), "most 8 is below least 9", ParamsError),
        ("demo_afew_va", ("actors=99", "films=99"), "999", ParamsError),
    ],
)
def test_mistakes_are_one_line(tmp_path, name, options, said, kind):
    with pytest.raises(kind, match=said) as caught:
        generate_corpus(name, tmp_path, options)
    assert "\n" not in str(caught.value)


def test_a_corpus_of_somebody_is_not_overwritten(tmp_path):
    (tmp_path / "001").mkdir()
    (tmp_path / "001/00000.png").write_bytes(b"mine")
    with pytest.raises(CorpusError, match="holds other files"):
        films.write_films(FEW, tmp_path)
    assert (tmp_path / "001/00000.png").read_bytes() == b"mine"
