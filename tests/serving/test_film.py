"""Films of any length: pieces at the full rate, a trace as CSV, a drawing as SVG and PNG."""

import csv
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.errors import UserError
from pipeline.evaluation.drawing import check_drawing, draw_trace, paint, write_drawing
from pipeline.runs.folders import list_runs
from pipeline.runs.run import load_run
from pipeline.serving.film import divide
from pipeline.serving.prediction import Prediction
from pipeline.serving.predictor import Predictor
from pipeline.serving.trace import write_trace


@pytest.fixture(scope="module")
def film(tmp_path_factory, make_film):
    return make_film(tmp_path_factory.mktemp("film") / "long.mp4", seconds=9.6, seed=3)


def predictor(trained, most):
    video = trained.params.decode.video.model_copy(update={"max_frames": most})
    decode = trained.params.decode.model_copy(update={"video": video})
    return Predictor.load(trained.params.model_copy(update={"decode": decode}), trained.models, "cpu")


def test_a_film_is_sampled_at_its_full_rate_however_few_frames_are_read_at_a_time(trained, film):
    """In pieces of 7 frames (and one of three) as in one: every frame of the grid once, the same pictures."""
    pieces, whole = predictor(trained, 7), predictor(trained, 1000)
    source = pieces.source(film)
    cuts = [(piece.start, piece.end) for piece in divide(source)]
    assert len(cuts) == 6 and cuts[0] == (0.0, 1.75) and cuts[-1] == (8.75, None)
    assert all(before[1] == after[0] for before, after in zip(cuts, cuts[1:], strict=False))
    assert source.is_long and not whole.source(film).is_long
    found, expected = pieces.predict(film, "I saw it."), whole.predict(film, "I saw it.")
    assert len(found.times) == len(expected.times) == 38 and found.streams["video"].rows == 38
    np.testing.assert_allclose(found.times, expected.times, atol=1e-3)
    for name, values in expected.trace.items():  # sound is heard in pieces, so that rows at their edges differ a little
        np.testing.assert_allclose(found.trace[name], values, atol=0.1)
    assert found.streams["text"].rows == expected.streams["text"].rows


def test_a_film_of_pictures_alone_is_predicted_to_the_digits_of_the_whole(trained, make_film, tmp_path):
    silent = make_film(tmp_path / "silent.mp4", seconds=6.0, audio=False)
    found, expected = (predictor(trained, most).predict(silent) for most in (5, 1000))
    for name, values in expected.trace.items():
        np.testing.assert_allclose(found.trace[name], values, atol=1e-4)


def test_a_cut_of_a_film_begins_at_its_own_zero(trained, film):
    found = predictor(trained, 7).predict(film, start=2.0, end=6.0)
    assert len(found.times) == 16 and found.times[0, 0] == 0 and found.times[-1, 1] == pytest.approx(4.0)


def test_attention_over_a_film_is_one_line(trained, film, tmp_path):
    with pytest.raises(UserError, match="too long for one look"):
        predictor(trained, 7).predict(film, attention=tmp_path / "a.npz")


def prediction(times, **changes):
    fields = {
        "path": "a.mp4",
        "duration": 4.0,
        "emotions": {},
        "dimensions": {},
        "times": times,
        "trace": {"valence": np.array([0.5, -0.25]), "arousal": np.array([0.0, 1.0])},
        "streams": {},
        "random": (),
        "models": 1,
        "spread": {"valence": np.array([0.1, 0.2]), "arousal": np.array([0.3, 0.4])},
    }
    return Prediction(**{**fields, **changes})


def test_the_trace_is_a_table_of_seconds_and_label_units(tmp_path):
    write_trace(tmp_path / "t.csv", prediction(np.array([[0.0, 0.5], [0.5, 1.0]])))
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    assert rows == [
        ["time", "valence", "arousal", "sd_valence", "sd_arousal"],
        ["0.250", "0.500000", "0.000000", "0.100000", "0.300000"],
        ["0.750", "-0.250000", "1.000000", "0.200000", "0.400000"],
    ]
    with pytest.raises(UserError, match="no course over time"):
        write_trace(tmp_path / "t.csv", prediction(np.empty((0, 2)), trace={}, spread={}))


def test_the_drawing_and_its_picture_show_the_curve_where_it_is(tmp_path):
    times, trace = [0.0, 50.0, 100.0], {"valence": np.array([0.9, 0.9, 0.9]), "arousal": np.array([-0.9, -0.9, -0.9])}
    drawing = draw_trace("a < b", times, trace, {"valence": np.full(3, 0.05)})
    assert drawing.count('class="curve s0"') == 2 and drawing.count('class="band"') == 1 and "a &lt; b" in drawing
    pixels = np.asarray(paint(drawing)).astype(int)
    blue = (np.abs(pixels - [0x25, 0x58, 0xC4]).sum(2) < 30).any(1).nonzero()[0] / 2
    ends = [float(y) for _, y in re.findall(r'd="M([\d.]+) ([\d.]+)L[^Z"]*" class="curve', drawing)]
    assert abs(blue.min() - (34 + ends[0])) < 3 and abs(blue.max() - (34 + 230 + ends[1])) < 3
    write_drawing(tmp_path / "t.png", "a", times, trace, {})
    write_drawing(tmp_path / "t.svg", "a", times, trace, {})
    with Image.open(tmp_path / "t.png") as picture:
        assert picture.size == (1800, 2 * (34 + 460))
    assert (tmp_path / "t.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    with pytest.raises(UserError, match=r"neither \.png nor \.svg"):
        check_drawing(tmp_path / "t.jpg")


def test_the_runs_of_a_frame_level_task_read_in_windows(trained):
    spec = load_run(next(iter(list_runs(trained.models).values()))).model.spec
    assert spec.window is not None and (spec.window.tokens, spec.window.stride) == (256, 128)


def test_predict_offers_trace_and_plot():
    from pipeline.cli import app

    said = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).output
    assert "--trace" in said and "--plot" in said
