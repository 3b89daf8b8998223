"""Tables as openSMILE, OpenFace and pandas write them: the features alone, rows that count, and their times."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

OPENFACE = "frame, face_id, timestamp, confidence, success, AU01_r, AU02_r, AU45_c\n"


def build(path, **options):
    return registry.build(Stream(modality="video", source=str(path), encoder="import", weights=f"file:{path}", options=options))


def get(extractor, clip):
    ((values, times),) = Forward(extractor, device="cpu")([extractor.prepare(Clip(clip, duration=2.0))])
    return values, times


def test_openface_gives_its_action_units_and_no_counter(tmp_path):
    for clip, unit in (("a", 0.64), ("b", 0.1)):
        rows = [f"1, 0, 0.000, 0.98, 1, {unit}, 0.27, 0\n", f"2, 0, 0.040, 0.98, 1, {unit}, 0.02, 1\n"]
        (tmp_path / f"{clip}.csv").write_text(OPENFACE + "".join(rows))
    values, times = get(build(tmp_path), "a")
    np.testing.assert_allclose(values, [[0.64, 0.27, 0], [0.64, 0.02, 1]], rtol=1e-6)
    np.testing.assert_allclose(times[:, 0], [0, 0.04])
    values, _ = get(build(tmp_path, columns=["AU*_r"]), "b")
    np.testing.assert_allclose(values, [[0.1, 0.27], [0.1, 0.02]], rtol=1e-6)
    assert get(build(tmp_path, columns=["confidence"]), "a")[0][:, 0].tolist() == pytest.approx([0.98, 0.98])


def test_rows_without_success_are_missing(tmp_path):
    (tmp_path / "a.csv").write_text(OPENFACE + "1, 0, 0.0, 0.1, 0, 9, 9, 1\n2, 0, 0.04, 0.9, 1, 0.5, 0.25, 0\n")
    (tmp_path / "b.csv").write_text(OPENFACE + "1, 0, 0.0, 0.1, 0, 9, 9, 1\n")
    extractor = build(tmp_path)
    values, times = get(extractor, "a")
    assert values.tolist() == [[0.5, 0.25, 0]] and times[0, 0] == pytest.approx(0.04)
    with pytest.raises(Missing, match="no number"):
        extractor.prepare(Clip("b"))


def test_of_several_faces_the_one_seen_longest(tmp_path):
    rows = ["1, 0, 0.0, 0.9, 1, 7, 7, 1\n", "1, 1, 0.0, 0.9, 1, 1, 2, 0\n", "2, 0, 0.04, 0.2, 0, 7, 7, 1\n"]
    (tmp_path / "a.csv").write_text(OPENFACE + "".join(rows) + "2, 1, 0.04, 0.9, 1, 3, 4, 0\n")
    assert get(build(tmp_path), "a")[0].tolist() == [[1, 2, 0], [3, 4, 0]]


def test_openface_of_many_clips_in_one_table(tmp_path):
    head = "clip," + OPENFACE.replace(" ", "")
    (tmp_path / "f.csv").write_text(head + "a,1,0,0.0,0.9,1,1,2,0\na,2,0,0.04,0.9,0,9,9,9\nb,1,0,0.0,0.9,1,3,4,0\n")
    extractor = build(tmp_path / "f.csv")
    assert get(extractor, "a")[0].tolist() == [[1, 2, 0]] and get(extractor, "b")[0].tolist() == [[3, 4, 0]]
    assert extractor.notes["imported columns"] == ["AU01_r", "AU02_r", "AU45_c"]


def test_opensmile_with_semicolons(tmp_path, caplog):
    (tmp_path / "f.csv").write_text("name;frameTime;F0;jitter;class\n'a.wav';0.0;100;0.5;angry\n'b.wav';0.0;101;0.25;sad\n")
    with caplog.at_level(logging.INFO):
        extractor = build(tmp_path / "f.csv", file_id="stem")
    values, times = get(extractor, "b")
    assert values.tolist() == [[101, 0.25]] and times.tolist() == [[0, 2]]
    assert "left out, as they are no features: class, frameTime" in caplog.text


def test_opensmile_over_time(tmp_path):
    (tmp_path / "f.csv").write_text("name;frameIndex;frameTime;F0\n'a';1;0.5;7\n'a';0;0.0;6\n'b';0;0.0;5\n")
    values, times = get(build(tmp_path / "f.csv"), "a")
    assert values[:, 0].tolist() == [6, 7] and times[:, 0].tolist() == [0, 0.5]


def test_opensmile_arff(tmp_path):
    head = "@relation openSMILE\n\n@attribute name string\n@attribute frameTime numeric\n@attribute F0 numeric\n"
    head += "@attribute 'mfcc 1' numeric\n@attribute class {angry,sad}\n\n@data\n\n"
    (tmp_path / "f.arff").write_text(head + "'a, b.wav',0.0,100,1.5,angry\n% a note\n'c.wav',0.0,101,?,sad\n")
    extractor = build(tmp_path / "f.arff", file_id="stem")
    assert get(extractor, "a, b")[0].tolist() == [[100, 1.5]]
    assert extractor.notes["imported columns"] == ["F0", "mfcc 1"]
    with pytest.raises(Missing):
        extractor.prepare(Clip("c"))
    (tmp_path / "g.arff").write_text(head + "'a.wav',0.0,100\n")
    with pytest.raises(WeightsError, match=r"5 attributes and a row of 3 values \(a.wav\)"):
        build(tmp_path / "g.arff")


def test_opensmile_for_python(tmp_path):
    rows = "/data/a.wav,0 days 00:00:00,0 days 00:00:01.500000,1\n/data/a.wav,0 days 00:00:01.5,0 days 00:00:02,2\n"
    (tmp_path / "f.csv").write_text("file,start,end,F0\n" + rows)
    values, times = get(build(tmp_path / "f.csv", file_id="stem"), "a")
    assert values[:, 0].tolist() == [1, 2] and times.tolist() == [[0, 1.5], [1.5, 2]]


def test_the_published_action_unit_table(tmp_path):
    """Semicolons, decimal points or commas, the id under `name`, a label beside the features."""
    for point in ".,":
        (tmp_path / "f.csv").write_text(f"name;AU01_r;AU45_c;emotion\n03-a;0{point}5;1{point}25;4\n03-b;1;2;5\n")
        extractor = build(tmp_path / "f.csv", file_id=r"^\d\d-(.*)$")
        assert get(extractor, "a")[0].tolist() == [[0.5, 1.25]] and get(extractor, "b")[0].tolist() == [[1, 2]]


def test_the_index_of_pandas_is_no_feature(tmp_path):
    (tmp_path / "f.csv").write_text(",clip,x\n0,a,5\n1,b,6\n")
    assert get(build(tmp_path / "f.csv"), "b")[0].tolist() == [[6]]
    (tmp_path / "g.csv").write_text(",x\na,5\nb,6\n")
    assert get(build(tmp_path / "g.csv"), "b")[0].tolist() == [[6]]


@pytest.mark.parametrize("none", ["NA", "nan", "None", "-", "n/a", "?", ""])
def test_a_column_with_gaps_is_a_column_of_numbers(tmp_path, none):
    (tmp_path / "f.csv").write_text(f"clip,x,y\na,1,2\nb,{none},3\n")
    extractor = build(tmp_path / "f.csv")
    assert extractor.notes["imported columns"] == ["x", "y"] and get(extractor, "a")[0].tolist() == [[1, 2]]
    with pytest.raises(Missing):
        extractor.prepare(Clip("b"))


def test_an_unknown_pattern_is_one_line(tmp_path):
    (tmp_path / "f.csv").write_text("clip,AU01_r\na,1\n")
    with pytest.raises(ParamsError, match=r"column of f.csv 'BU\*'. Known: AU01_r"):
        build(tmp_path / "f.csv", columns=["BU*"])
    (tmp_path / "t.csv").write_text("file,start,end,x\na,soon,later,1\na,soon,later,1\n")
    with pytest.raises(WeightsError, match="'start' does not hold seconds"):
        build(tmp_path / "t.csv")
