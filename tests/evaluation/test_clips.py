"""The page of clips: what it says of each, in which order, where their media are, and what it gives away."""

import base64
import json
import math
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.evaluation import clip_media, clips
from pipeline.evaluation.clip_media import COLUMNS, HEIGHT, WIDTH
from pipeline.storage import media_store
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.jpeg import encode
from tests.fabricated_report import ACCURACY, CLASSES, make_params, make_run

HOSTILE = '</script><script>document.title = "taken"</script><img src=x onerror="document.title = 1">'


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def write(run, params=None, **options):
    page = clips.write_clips(params or make_params(), run / "data", run / "reports", **options)
    return page.read_text(encoding="utf-8")


def read(text):
    """What the page's script reads."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


def change(run, **columns):
    path = run / "data" / "manifest.parquet"
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)


def test_the_surest_mistake_comes_first(run):
    table = pl.read_parquet(run / "reports" / "predictions.parquet").filter(pl.col("variant") == "fused")
    expected = []
    for clip in table["id"].unique():
        mine = table.filter(pl.col("id") == clip)
        chances = {name: sum(mine[f"p_{name}"]) / 3 for name in CLASSES}
        guess = max(chances, key=chances.get)
        expected.append((guess != mine["truth"][0], chances[guess], guess, clip, mine["truth"][0]))
    wrong = sorted([one for one in expected if one[0]], key=lambda one: -one[1])
    right = sorted([one for one in expected if not one[0]], key=lambda one: one[1])
    found = read(write(run))
    assert found["variants"] == ["fused", "audio", "text", "video"] and found["classes"] == CLASSES
    assert [clip["id"] for clip in found["clips"]] == [one[3] for one in wrong + right]
    for clip, one in zip(found["clips"], wrong + right, strict=True):
        chances = clip["chances"][0]
        assert CLASSES[int(np.argmax(chances))] == one[2] and max(chances) == round(1000 * one[1])
        assert CLASSES[clip["truth"]] == one[4]
        assert all(len(chances) == 7 for chances in clip["chances"]) and len(clip["chances"]) == len(ACCURACY)


def test_dimensions_alone_come_by_their_error(run):
    path = run / "reports" / "predictions.parquet"
    table = pl.read_parquet(path)
    table.drop("predicted", *(name for name in table.columns if name.startswith("p_"))).write_parquet(path)
    found = read(write(run))
    errors = [np.mean([abs(a - b) for a, b in zip(clip["wanted"], clip["values"][0], strict=True)]) for clip in found["clips"]]
    assert found["classes"] == [] and errors == sorted(errors, reverse=True) and errors[0] > 0.1


def test_what_is_not_known_is_left_out(run):
    path = run / "reports" / "predictions.parquet"
    first = pl.col("id") == pl.read_parquet(path)["id"][0]
    pl.read_parquet(path).with_columns(
        truth=pl.when(first).then(pl.lit("boredom")).otherwise("truth"),
        valence=pl.when(first).then(None).otherwise("valence"),
        truth_valence=pl.when(first).then(float("nan")).otherwise("truth_valence"),
    ).filter(~((pl.col("variant") == "text") & first)).write_parquet(path)
    last = read(write(run))["clips"][-1]
    assert "truth" not in last and last["other"] == "boredom", "a class nobody predicts is no mistake, and stands last"
    assert last["wanted"][0] is None and last["values"][0][0] is None and last["chances"][2] is None


def test_words_are_those_written_down_before_those_heard(run):
    ids = pl.read_parquet(run / "reports" / "predictions.parquet")["id"].unique().sort()
    change(run, text=pl.when(pl.col("id") == ids[0]).then(None).otherwise("text"))
    pl.DataFrame({"id": ids[:2], "text": ["as  heard", "as heard"], "weights": "w"}).write_parquet(
        run / "data" / "transcripts.parquet"
    )
    found = {clip["id"]: clip for clip in read(write(run))["clips"]}
    assert (found[ids[0]]["said"], found[ids[0]]["heard"]) == ("as heard", True)
    assert (found[ids[1]]["said"], found[ids[1]]["heard"]) == ("Well, hello.", False)


def test_shares_of_the_fusion(run):
    path = run / "reports" / "predictions.parquet"
    pl.read_parquet(path).with_columns(share_audio=pl.lit(0.75), share_text=pl.lit(0.25)).write_parquet(path)
    found = read(write(run))
    assert found["streams"] == ["audio", "text"] and {tuple(clip["shares"]) for clip in found["clips"]} == {(75, 25)}


def test_a_hostile_transcript_is_text(run):
    change(run, text=pl.lit(HOSTILE), speaker=pl.lit("<b>"))
    path = run / "reports" / "predictions.parquet"
    pl.read_parquet(path).with_columns(speaker=pl.lit("<b>")).write_parquet(path)
    text = write(run)
    assert text.count("<script") == text.count("</script>") == 3 and "<img" not in text and "<b>" not in text
    assert {clip["said"] for clip in read(text)["clips"]} == {HOSTILE}


def test_the_page_asks_no_network_and_nothing_is_in_it_unless_asked(run):
    text = write(run)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'") and "http" not in policy and "unsafe-inline'; script" not in policy
    assert not re.search(r'(?:src|href)="(?!#|data:,|index\.html")', text)
    assert "data:image" not in text and "data:video" not in text and str(run) not in text
    assert write(run) == text


@pytest.mark.parametrize(
    ("root", "name", "expected"),
    [
        ("run/data/corpus", "a.mp4", "../data/corpus/a.mp4"),
        ("elsewhere/films", "1/a b#c?é%.mp4", "../../elsewhere/films/1/a%20b%23c%3F%C3%A9%25.mp4"),
        ("run/reports", "a.mp4", "a.mp4"),
    ],
)
def test_media_are_linked_from_where_the_page_lies(run, root, name, expected):
    change(run, video=pl.lit(name), audio=pl.lit(name))
    params = make_params(corpus={"name": "demo", "root": str(run.parent / root)})
    assert {clip["video"] for clip in read(write(run, params))["clips"]} == {expected}


def test_a_relative_root_is_of_the_folder_one_works_in(run, monkeypatch):
    monkeypatch.chdir(run)
    page = clips.write_clips(make_params())
    assert read(page.read_text())["clips"][0]["video"].startswith("../data/corpus/")


def test_a_part_of_a_film_and_its_side(run):
    change(run, start=pl.lit(61.5), end=pl.lit(66.25), audio=pl.lit("sound.wav"), half=pl.lit("left"), channel=pl.lit("right"))
    clip = read(write(run))["clips"][0]
    assert clip["video"].endswith(".mp4#t=61.5,66.25") and clip["sound"] == "../data/corpus/sound.wav#t=61.5,66.25".replace(
        "../data/corpus", clip["video"].rsplit("/", 1)[0]
    )
    assert clip["begin"] == 61.5 and clip["side"] == "left half, right channel"
    assert clip_media.tell_span(12345.678, 12346.789) == "#t=12345.678,12346.789"


def make_store(run, modality, colours):
    """A media store of the held-out clips; of each clip three pictures, the middle one of its colour."""
    rows, entries = [], {}
    for place, (clip, colour) in enumerate(colours.items()):
        content = f"{place:064x}"
        rows.append({"id": clip, "content": content, modality: "x"})
        if modality == "frames":
            picture = [np.full((30, 20, 3), 0 if k != 1 else colour, np.uint8) for k in range(3)]
            files = [encode(Image.fromarray(one), 95) for one in picture]
        else:
            files = [f"sound of {clip}".encode()]
        entries[content] = media_store.join_files(files, np.zeros((len(files), 2), np.float32))
    with ClipCache("test", {}) as cache:
        cache.put(entries)
        media_store.pack(run / "data" / f"{modality}.h5", rows, modality, cache, {}, {})


def test_each_clip_has_its_own_picture(run):
    ids = pl.read_parquet(run / "reports" / "predictions.parquet")["id"].unique().sort().to_list()
    colours = {clip: (40 + 4 * k, 250 - 4 * k, 128) for k, clip in enumerate(ids[1:])}
    make_store(run, "frames", colours)
    found = read(write(run))["clips"]
    sheets = {path.name: Image.open(path).convert("RGB") for path in sorted((run / "reports" / "clips").iterdir())}
    assert list(sheets) == ["000.jpg"] and len(colours) == 47
    for clip in found:
        if clip["id"] == ids[0]:
            assert "place" not in clip
            continue
        number, place = clip["place"]
        x, y = place % COLUMNS * WIDTH + WIDTH // 2, place // COLUMNS * HEIGHT + HEIGHT // 2
        assert np.abs(np.array(sheets[f"{number:03d}.jpg"].getpixel((x, y))) - colours[clip["id"]]).max() < 12


def test_sheets_go_on_and_old_ones_go(run, monkeypatch):
    ids = pl.read_parquet(run / "reports" / "predictions.parquet")["id"].unique().sort().to_list()
    make_store(run, "frames", dict.fromkeys(ids, (1, 2, 3)))
    monkeypatch.setattr(clip_media, "ROWS", 1)
    write(run)
    assert len(list((run / "reports" / "clips").iterdir())) == math.ceil(48 / COLUMNS)
    monkeypatch.undo()
    places = [tuple(clip["place"]) for clip in read(write(run))["clips"]]
    assert places == [(0, k) for k in range(48)] and len(list((run / "reports" / "clips").iterdir())) == 1


def test_a_store_that_cannot_be_read_costs_the_pictures_only(run, caplog):
    (run / "data" / "frames.h5").write_bytes(b"no store")
    assert "place" not in read(write(run))["clips"][0]
    assert "without pictures" in caplog.text


def decode(address):
    return base64.b64decode(address.split(",", 1)[1])


def test_media_of_the_worst_go_into_the_page_when_asked(run):
    params = make_params(corpus={"name": "demo", "root": str(run / "films")})
    worst, second, third = (clip["id"] for clip in read(write(run, params))["clips"][:3])
    films = dict(pl.read_parquet(run / "data" / "manifest.parquet").select("id", "video").iter_rows())
    (run / "films").mkdir()
    (run / "films" / films[worst]).write_bytes(b"film of the worst")
    change(run, start=pl.when(pl.col("id") == second).then(3.0), end=pl.when(pl.col("id") == second).then(4.0))
    for modality in ("frames", "audio"):
        make_store(run, modality, {clip: (200, 10, 10) for clip in (worst, second)})
    text = write(run, params, embed=3)
    first, other, last, *rest = read(text)["clips"]
    assert [first["id"], other["id"], last["id"]] == [worst, second, third]
    assert first["video"].startswith("data:video/mp4;base64,") and decode(first["video"]) == b"film of the worst"
    assert other["video"] is None and decode(other["sound"]).decode() == f"sound of {second}", "a part of a film: its sound"
    assert first["picture"].startswith("data:image/jpeg;base64,") and last["embedded"] and "sound" not in last
    assert not any("embedded" in clip for clip in rest) and "media of 3 clips" in text
    assert "media of" not in write(run, params)


def test_a_trace_is_packed_and_thinned(run):
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.01, 0.09, 200)).round(3)
    values = rng.uniform(-1.2, 1.2, 200)
    first = pl.read_parquet(run / "reports" / "predictions.parquet")["id"][0]
    pl.DataFrame(
        {"id": first, "time": times, "truth_valence": values, "pred_valence": np.where(times > 4, np.nan, values)}
    ).write_parquet(run / "reports" / "traces.parquet")
    found = next(clip["trace"] for clip in read(write(run))["clips"] if clip["id"] == first)
    kept = np.unique(np.linspace(0, 199, clips.INSTANTS).astype(int))
    shares = np.frombuffer(base64.b64decode(found["time"]), "<u2") / 65535
    low, high = found["ends"]
    assert low + shares * (high - low) == pytest.approx(times[kept], abs=0.001)
    truth, predicted = (np.frombuffer(base64.b64decode(line), np.int8) for line in found["lines"]["valence"])
    assert truth / 100 == pytest.approx(np.clip(values[kept], -1, 1), abs=0.0051)
    assert (predicted == -128).tolist() == (times[kept] > 4).tolist()


def test_nothing_evaluated_is_said(tmp_path):
    text = clips.write_clips(make_params(), tmp_path / "data", tmp_path / "reports").read_text()
    assert "Nothing was evaluated" in text and "<script" not in text
