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

    VOID = {"meta", "link", "br", "line", "rect", "circle", "path"}

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
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
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
    assert text.count('class="none"') == 9
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
        "plots/missing.csv",
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
        ({"task": {"level": "frame"}, "training": {"seeds": 2, "epochs": 2, "unimodal": True}}, 1, 0),
        # One seed, no annotations over time in use, no other variant: only the traces are absent.
        (
            {"task": {"emotion": False}, "training": {"select": "ccc", "epochs": 2}, "protocol": {"kind": "kfold", "folds": 2}},
            2,
            3,
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
