"""The report page, from made-up but realistic inputs; also what it says when inputs are absent."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path

import h5py
import polars as pl
import pytest

from pipeline.data import leakage
from pipeline.errors import StoreError
from pipeline.evaluation import report
from pipeline.evaluation.evaluate import evaluate
from pipeline.reasons import REASONS
from pipeline.storage.atomic import write_json
from pipeline.training.stage import train
from tests.fabricated_report import CLASSES, make_params, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def page(folder: Path, params=None) -> str:
    path = report.write_report(params or make_params(), folder / "data", folder / "reports", folder / "features")
    return path.read_text(encoding="utf-8")


class Outline(html.parser.HTMLParser):
    """Checks nesting and collects what accessibility asks for."""

    VOID = {"meta", "link", "br", "line", "rect", "circle", "path", "img"}

    def __init__(self):
        super().__init__()
        self.stack, self.ids, self.targets, self.tables, self.captions, self.svgs, self.bad = (
            [],
            set(),
            set(),
            0,
            0,
            [],
            [],
        )

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in self.VOID or (tag in ("rect", "circle")):
            self.stack.append(tag)
        if "id" in given:
            assert given["id"] not in self.ids
            self.ids.add(given["id"])
        if tag == "a" and given.get("href", "").startswith("#"):
            self.targets.add(given["href"][1:])
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag == "svg":
            self.svgs.append(given)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.bad.append((tag, self.getpos()))


FACES = {
    "detector": "mtcnn",
    "clips": 40,
    "frames": 400,
    "with_face": 373,
    "few": 3,
    "min_share": 0.25,
    "choice": "speaking",
    "heard": 12,
    "crops": [],
}


def test_the_share_of_frames_with_a_face_is_told(run):
    assert "Frames with a face" not in page(run)
    write_json(run / "data" / "faces.json", FACES)
    text = page(run)
    assert "<dt>Frames with a face</dt><dd>93.2 %</dd>" in text
    assert "Faces: 3 of 40 clips show theirs in less than 25 % of the frames." in text
    assert "Faces: in 12 of 40 clips chosen by the mouth that moves with the sound." in text
    assert "<img" not in text
    write_json(run / "data" / "faces.json", FACES | {"few": 0, "choice": "largest"})
    assert "Faces:" not in page(run)
    # No stream looks at faces.
    write_json(run / "data" / "faces.json", FACES | {"clips": 0, "frames": 0, "with_face": 0, "few": 0})
    assert "Frames with a face" not in page(run)


def test_crops_are_shown_when_they_were_asked_for(run):
    write_json(run / "data" / "faces.json", FACES | {"crops": ["/9j/AA==", "/9j/AQ=="]})
    text = page(run)
    assert re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="Face of a clip"', text) == ["/9j/AA==", "/9j/AQ=="]
    outline = Outline()
    outline.feed(text)
    assert not outline.bad and not outline.stack


def test_same_inputs_same_bytes(run):
    first = page(run)
    assert page(run) == first
    assert str(run) not in first


def test_page_is_well_formed_and_accessible(run):
    outline = Outline()
    outline.feed(page(run))
    assert not outline.bad and not outline.stack
    assert outline.targets <= outline.ids
    assert outline.tables == outline.captions > 5
    assert all(s.get("aria-hidden") or (s.get("role") == "img" and s.get("aria-label")) for s in outline.svgs)


def test_page_asks_nobody_for_anything(run):
    text = page(run)
    assert "<script" not in text and "@import" not in text
    assert not re.search(r'(?:src|href)="(?!#|data:|clips\.html)', text)
    assert not re.search(r"url\(", text)


def test_numbers_are_the_inputs_numbers(run):
    text = page(run)
    assert ">0.860<" in text and "95 % CI 0.840 – 0.880" in text
    assert "best alone: video" in text
    assert "&lt; 0.001" in text and "0.013" in text


def test_random_streams_are_named(run):
    # `text` has no store yet: its parameters say that it is random.
    assert "Random weights: text, video." in page(run)
    real = {n: s.model_dump() | {"weights": "local:w"} for n, s in make_params().streams.items()}
    (run / "features" / "video.h5").unlink()
    assert "Random weights" not in page(run, make_params(streams=real))


def test_quarantine_shows_every_stage_and_escapes_text(run):
    text = page(run)
    assert "5 entries" in text  # two of the manifest, one of the frames, one of each encoder
    assert "&lt;moov&gt; atom not found" in text and "<moov>" not in text
    assert "extract@audio" in text and "the encoder crashed" in text
    assert REASONS["failed"] in text, "each reason is explained"


def test_confusion_counts_equal_a_plain_count(run):
    lines = (run / "reports" / "plots" / "confusion.csv").read_text().split()[1:]
    found = re.findall(r"<small>(\d+)</small>", page(run))
    expected = [lines.count(f"{a},{p}") for a in CLASSES for p in CLASSES]
    assert [int(n) for n in found] == expected


def test_speakers_come_hardest_first(run):
    table = pl.read_parquet(run / "reports" / "per_speaker.parquet").filter(pl.col("variant") == "fused").sort("at_most")
    section = page(run).split('id="speakers"')[1].split("</section>")[0]
    assert re.findall(r'scope="row">(spk\d+)', section) == table["speaker"].to_list()


def test_traces_go_from_best_to_worst(run):
    section = page(run).split('id="traces"')[1].split("</section>")[0]
    errors = [float(e) for e in re.findall(r"mean absolute error ([\d.]+)\.", section)]
    assert len(errors) == 4 and errors == sorted(errors)
    assert "Closest to the truth" in section and "Farthest from the truth" in section


def test_leaks_are_said_at_the_top(run):
    path = run / "data" / "card.json"
    card = json.loads(path.read_text()) | {
        "leaks": [
            {
                "column": "speaker",
                "fold": 0,
                "splits": ["train", "test"],
                "values": 2,
                "clips": 9,
                "share": 0.1,
                "examples": ["spk01", "spk02"],
            }
        ]
    }
    write_json(path, card)
    text = page(run)
    said = "train and test share 2 values of speaker (spk01, spk02); 9 clips are affected (10.0% of test)"
    assert said in text.split("<main>")[0]
    assert "No overlap found" not in text


def test_sentences_in_common_are_a_note_and_no_alarm(run):
    path = run / "data" / "card.json"
    similar = leakage.Leak("text", 0, ("train", "test"), 2, 9, 0.45, ("kids are talking by the door",))
    write_json(path, json.loads(path.read_text()) | {"similar_text": [similar.plain() | {"said": similar.sentence()}]})
    head, body = page(run).split("<main>")
    assert "share what they should not" not in head
    assert "9 test clips (45.0%) say a sentence that train clips say too" in body and "No overlap found" in body


def test_no_leaks_is_only_said_when_looked_for(run):
    assert "No overlap found" in page(run)
    path = run / "data" / "card.json"
    write_json(path, {k: v for k, v in json.loads(path.read_text()).items() if k != "leaks"})
    assert "No overlap found" not in page(run) and "not on record" in page(run)


def test_run_parameters_do_not_change_the_page(run):
    assert page(run, make_params(run={"workers": 7})) == page(run)
    assert "workers" not in page(run)


def test_nothing_there_says_so(tmp_path):
    text = page(tmp_path)
    outline = Outline()
    outline.feed(text)
    assert not outline.bad
    assert text.count('class="none"') == 12
    assert "audio.h5 is not there" in text


@pytest.mark.parametrize(
    "name",
    [
        "traces.parquet",
        "per_speaker.parquet",
        "plots/confusion.csv",
        "plots/history.csv",
        "predictions.parquet",
        "metrics.json",
        "comparisons.json",
        "per_class.json",
        "baselines.json",
        "run.json",
        "plots/missing.csv",
        "plots/selective.csv",
        "plots/difficulty.csv",
        "trust.json",
        "probe.json",
    ],
)
def test_each_report_file_may_be_absent(run, name):
    (run / "reports" / name).unlink()
    assert "</html>" in page(run)


def test_dimensions_without_classes(run):
    reports = run / "reports"
    table = pl.read_parquet(reports / "predictions.parquet")
    table.drop("predicted", *(c for c in table.columns if c.startswith("p_"))).write_parquet(reports / "predictions.parquet")
    metrics = json.loads((reports / "metrics.json").read_text())
    write_json(reports / "metrics.json", {v: {m: i for m, i in values.items() if "ccc" in m} for v, values in metrics.items()})
    write_json(reports / "per_class.json", {})
    (reports / "plots" / "confusion.csv").write_text("actual,predicted\n")
    text = page(run, make_params(task={"emotion": False}))
    assert "CCC, mean · fused" in text and "predicts no emotion classes" in text


def test_folds_are_counted(run):
    path = run / "reports" / "predictions.parquet"
    table = pl.read_parquet(path)
    pl.concat([table, table.with_columns(pl.lit(1, table.schema["fold"]).alias("fold"))]).write_parquet(path)
    assert "2 folds" in page(run, make_params(protocol={"kind": "kfold", "folds": 2}))


def test_single_seed_without_interval(run):
    write_json(run / "reports" / "metrics.json", {"fused": {"uar": {"mean": 0.5, "low": None, "high": None}}})
    assert "no interval" in page(run)


def test_broken_json_is_one_line(run):
    (run / "reports" / "metrics.json").write_text("{")
    with pytest.raises(StoreError, match=r"metrics\.json is not valid JSON") as caught:
        page(run)
    assert "\n" not in str(caught.value)


def test_broken_store_is_said_not_fatal(run):
    with h5py.File(run / "features" / "audio.h5", "w") as file:
        file.attrs["complete"] = False
    assert "audio.h5 cannot be read" in page(run)


@pytest.mark.parametrize(
    "groups, folds, sections",
    [
        # Nothing was disturbed.
        ({"task": {"level": "frame"}, "training": {"seeds": 2, "epochs": 2, "unimodal": True}}, 1, 1),
        # One seed, no annotations over time in use, no other variant, no classes.
        (
            {"task": {"emotion": False}, "training": {"select": "ccc", "epochs": 2}, "protocol": {"kind": "kfold", "folds": 2}},
            2,
            6,
        ),
    ],
)
def test_page_of_a_real_evaluation(fabricate, groups, folds, sections):
    corpus = fabricate(clips=50, folds=folds)
    params = corpus.params(**groups)
    index = corpus.index(params)
    train(params, index, **corpus.files, out=corpus.path("models/runs"))
    result = evaluate(
        params,
        index,
        truth=corpus.path("data/truth.parquet"),
        manifest=corpus.files["manifest"],
        truth_annotations=corpus.path("data/truth_annotations.parquet"),
        folds=corpus.files["folds"],
        runs=corpus.path("models/runs"),
        out=corpus.path("reports"),
    )
    text = page(corpus.folder, params)
    assert f"{result['fused'][params.training.select]['mean']:.3f}" in text
    assert "Random weights: audio." in text
    assert text.count('class="none"') == sections + 1  # the quarantine is empty


def change(path: Path, **values) -> None:
    write_json(path, json.loads(path.read_text()) | values)


def section(text: str, name: str) -> str:
    return text.split(f'<section id="{name}"')[1].split("</section>")[0]


def test_intervals_say_what_they_are_made_of(run):
    record = run / "reports" / "run.json"
    assert "12 speakers and 3 seeds drawn anew" in page(run)
    change(record, seeds=[4], alone=1)
    text = page(run)
    assert "12 speakers and 1 clip of no known speaker drawn anew" in text and "There is one seed" in text
    change(record, unit="clip", groups=240, alone=0)
    assert "intervals are too narrow" in page(run)
    change(record, groups=4, unit="dialogue")
    assert "Only 4 dialogues tested: too few for an interval" in page(run)
    change(record, groups=1)
    assert "Only 1 dialogue tested" in page(run)


def test_a_range_is_no_interval(run):
    few = {"mean": 0.5, "low": None, "high": None, "least": 0.31, "most": 0.77}
    write_json(run / "reports" / "metrics.json", {"fused": {"uar": few}})
    text = page(run)
    assert "no interval; single ones from 0.310 to 0.770" in text and "from 0.310 to 0.770</span>" in text
    assert "95 % CI" not in text and "whisker main dash" in text


def test_chance_and_majority_are_in_drawings_and_tables(run):
    text = page(run)
    results = section(text, "results")
    assert "chance = majority 0.143" in results and "majority 0.050" in results
    assert '<th scope="col" class="n">chance</th><th scope="col" class="n">majority</th>' in results
    for name in ("missing", "learning", "calibration"):
        assert "chance" in section(text, name), name
    assert "Recall by chance: 0.143" in section(text, "classes") and "Majority: 0.170" in section(text, "speakers")
    (run / "reports" / "baselines.json").unlink()
    assert "chance" not in section(page(run), "missing")


def test_one_calibration_error_on_the_page(run):
    text = page(run)
    assert "<h3>ECE 0.070" in text and "ECE 0.070" in section(text, "calibration").split("aria-label")[1]
    assert len(set(re.findall(r"ECE (0\.\d+)", text))) == 1


@pytest.mark.parametrize(
    "low, high, p, says", [(0.1, 0.3, 0.01, "fused is better"), (-0.3, -0.1, 0.01, "audio is better"), (-0.1, 0.3, 0.01, "no")]
)
def test_a_difference_is_shown_when_interval_and_test_agree(run, low, high, p, says):
    one = {"metric": "uar", "difference": (low + high) / 2, "difference_low": low, "difference_high": high}
    write_json(
        run / "reports" / "comparisons.json", {"audio": one | {"p": p}, "text": one | {"p": 0.109}, "video": one | {"p": None}}
    )
    rows = re.findall(
        r"<tr><th scope=\"row\">(\w+)</th>.*?<td class=\"n\">([^<]*)</td><td>([^<]*)</td>", section(page(run), "results")
    )
    assert rows[:3] == [("audio", "0.010", says), ("text", "0.109", "no"), ("video", "–", "no")]


def test_where_the_figures_come_from(run):
    text = section(page(run), "parameters")
    for said in ("0123456789ab", "0, 1, 2", "3.11.9", "fusion.name", "concat", "gated", "0.810"):
        assert said in text
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6, "least": None, "most": None}
    apart = interval | {"mean": 0.042, "low": -0.011, "high": 0.087}
    figures = [{"metric": "uar", "before": interval, "after": interval, "difference": apart, "p": 0.0003}]
    before = {"summary": {"uar": 0.81}, "changed": [], "made": [["torch", "2.0.0", "2.1.0"]], "figures": figures}
    change(run / "reports" / "run.json", before=before)
    text = section(page(run), "parameters")
    for said in ("2.1.0", "0.042", "−0.011 – 0.087", "&lt; 0.001", "No parameter does"):
        assert said in text
    change(run / "reports" / "run.json", before=None, commit=None)
    text = section(page(run), "parameters")
    assert "No earlier run is on record" in text and "not in git" in text
    assert "seeds 0, 1, 2" in page(run)


def test_one_stream_is_called_by_its_name(run):
    reports = run / "reports"
    for path in (reports / "predictions.parquet", reports / "per_speaker.parquet"):
        pl.read_parquet(path).filter(pl.col("variant") == "fused").write_parquet(path)
    for name in ("metrics", "per_class"):
        write_json(reports / f"{name}.json", {"fused": json.loads((reports / f"{name}.json").read_text())["fused"]})
    history = [line for line in (reports / "plots" / "history.csv").read_text().split() if line.startswith(("variant", "fused"))]
    (reports / "plots" / "history.csv").write_text("\n".join(history) + "\n")
    write_json(reports / "comparisons.json", {})
    (reports / "plots" / "missing.csv").write_text("kept\n")
    text = page(run, make_params(streams={"audio": make_params().streams["audio"].model_dump()}))
    assert "demo: audio alone" in text and "UAR · audio" in text and "Per class, model of audio alone" in text
    assert "fuse" not in re.sub(r"<details.*?</details>|<style.*?</style>", "", text, flags=re.S).lower().replace("fused_", "")


def test_the_corpus_has_its_own_name(run):
    assert "Emotion recognition · Talking faces (generated)" in page(run)
    change(run / "data" / "card.json", corpus="generic", title="Any table or tree of folders")
    assert "Emotion recognition · demo<" in page(run), "what its clips are named after"
    path = run / "data" / "manifest.parquet"
    pl.read_parquet(path).with_columns(pl.lit("generic").alias("corpus")).write_parquet(path)
    text = page(run, make_params(corpus={"name": "generic", "root": "/data/interviews"}))
    assert "Emotion recognition · interviews<" in text and "<dt>Read as</dt><dd>Any table" in text


def test_recognised_texts_are_texts(run):
    path = run / "data" / "manifest.parquet"
    table = pl.read_parquet(path).with_columns(pl.lit(None, pl.String).alias("text"))
    table.write_parquet(path)
    assert "<dt>With text</dt><dd>0 %" in page(run)
    heard = table.select("id", pl.Series("text", ["Hello."] * 230 + [""] * 5 + [None] * 5))
    heard.write_parquet(run / "data" / "transcripts.parquet")
    text = page(run)
    assert "<dt>With recognised text</dt><dd>95.8 %" in text and "With text</dt>" not in text
    table.with_columns(pl.when(pl.arange(240) < 120).then(pl.lit("Hi.")).alias("text")).write_parquet(path)
    text = page(run)
    assert "<dt>With text</dt><dd>50.0 %" in text and "<dt>With recognised text</dt><dd>45.8 %" in text


def test_classes_are_counted_over_all_folds(run):
    change(run / "data" / "card.json", folds=5, emotions={"joy": 140, "fear": 100})
    text = section(page(run), "data")
    assert "all 5 folds" in text and "joy, all 5 folds: 140" in text and "surprise" not in text


def test_speakers_show_how_many_clips_first(run):
    header = section(page(run), "speakers").split("<thead>")[1].split("</thead>")[0]
    assert re.findall(r">([\w ]+)</th>", header)[:3] == ["speaker", "clips", "Accuracy"] and "at most" in header
