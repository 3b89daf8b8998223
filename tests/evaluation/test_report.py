"""The report page, from made-up but realistic inputs; also what it says when inputs are absent."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

from pipeline import params as parameters
from pipeline.atomic import write_json
from pipeline.data import manifest
from pipeline.errors import StoreError
from pipeline.evaluation import report
from pipeline.features import store

CLASSES = ["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"]
ACCURACY = {"fused": 0.86, "audio": 0.62, "text": 0.5, "video": 0.7}


def make_params(**changes):
    stream = {"modality": "video", "source": "data/frames.h5", "encoder": "clip", "weights": "random:0",
              "architecture": {"width": 64}}
    values = {
        "recipe": "demo", "corpus": {"name": "demo", "root": "data/corpus"}, "fusion": {"name": "gated"},
        "streams": {"video": stream,
                    "audio": stream | {"modality": "audio", "encoder": "hubert", "weights": "local:weights/hubert"},
                    "text": stream | {"modality": "text", "encoder": "text", "source": "data/manifest.parquet"}},
    }
    return parameters.parse(values | changes)


def make_data(folder: Path, rng) -> list[str]:
    folder.mkdir(parents=True)
    ids = [f"demo/s{i % 4}/dia{i // 14:02d}_utt{i % 14:02d}" for i in range(240)]
    clips = [{"id": c, "corpus": "demo", "video": f"{i}.mp4", "audio": f"{i}.mp4", "text": "Well, hello.",
              "duration": 2 + i % 3, "speaker": f"spk{i % 12:02d}", "session": f"s{i % 6}", "dialogue": c[:13],
              "language": "en", "emotion": None if i % 5 == 0 else CLASSES[i % 7]} for i, c in enumerate(ids)]
    manifest.write(manifest.frame(clips), folder / "manifest.parquet")
    roles = ["test" if i % 5 == 0 else "val" if i % 5 == 1 else "train" for i in range(240)]
    manifest.write(pl.DataFrame({"fold": [0] * 240, "id": ids, "role": roles}), folder / "folds.parquet", sort=("fold", "id"))
    histogram = {s: {c: int(rng.integers(4, 30)) for c in CLASSES} for s in ("test", "train", "val")}
    write_json(folder / "card.json", {"corpus": "demo", "title": "Talking faces (generated)", "licence": "CC0", "homepage": "",
                                      "roles": {role: {"emotions": counts} for role, counts in histogram.items()},
                                      "leaks": [], "notes": {"generator": "version 1, seed 0"}})
    manifest.write(manifest.frame([{"id": "demo/s1/dia03_utt07", "media": "41.mp4", "stage": "manifest",
                                    "reason": "unreadable", "detail": "<moov> atom not found"},
                                   {"id": "demo/s2/dia05_utt00", "media": "70.mp4", "stage": "manifest", "reason": "silent",
                                    "detail": "audio: peak -91 dBFS; the clip stays without it"}], manifest.QUARANTINE),
                   folder / "quarantine.parquet")
    manifest.write(manifest.frame([{"id": "demo/s0/dia01_utt02", "media": "16.mp4", "stage": "frames", "reason": "timeout",
                                    "detail": "decoding took longer than 60 s"}], manifest.QUARANTINE),
                   folder / "frames.quarantine.parquet")
    return ids


def make_features(folder: Path, ids: list[str], rng) -> None:
    for name, weights in (("video", {"source": "random:0", "random": True}),
                          ("audio", {"source": "local:weights/hubert", "sha256": "0f3a" * 16})):
        entries = [store.Entry(rng.normal(size=(4, 32)), np.tile(np.float32([0, 1]), (4, 1))) for _ in sorted(ids)]
        entries[3] = store.Entry(np.zeros((0, 32)), np.zeros((0, 2), np.float32), store.Status.MISSING, "no sound")
        entries[5] = store.Entry(np.zeros((0, 32)), np.zeros((0, 2), np.float32), store.Status.FAILED, "crashed")
        failures = {sorted(ids)[5]: "the encoder crashed"}
        store.write(folder / f"{name}.h5", sorted(ids), entries, rows=[len(e.values) for e in entries], shape=(32,),
                    attributes={"stream": name, "modality": name, "identity": {"weights": weights}, "failures": failures})


def make_reports(folder: Path, ids: list[str], rng) -> None:
    (folder / "plots").mkdir(parents=True)
    test = ids[::5]
    rows, history, confusion = [], ["variant,fold,seed,epoch,train_loss,val_loss,val_uar"], ["actual,predicted"]
    for variant, right in ACCURACY.items():
        for seed in range(3):
            for i, clip in enumerate(test):
                truth, found = CLASSES[i % 7], CLASSES[i % 7] if rng.random() < right else CLASSES[rng.integers(7)]
                chances = rng.dirichlet(np.ones(7)) * 0.5
                chances[CLASSES.index(found)] += 0.5
                valence, arousal = np.sin(i), np.cos(i * 1.7)
                rows.append({"variant": variant, "fold": 0, "seed": seed, "id": clip, "speaker": f"spk{i % 12:02d}", "truth": truth,
                             "predicted": CLASSES[int(chances.argmax())], **dict(zip((f"p_{c}" for c in CLASSES), chances, strict=True)),
                             "valence": valence * 0.8 + rng.normal() * 0.12, "arousal": arousal * 0.7 + rng.normal() * 0.15,
                             "truth_valence": valence, "truth_arousal": arousal})
                if variant == "fused":
                    confusion.append(f"{truth},{rows[-1]['predicted']}")
            for epoch in range(1, 18 + 3 * seed):
                fall, level = np.exp(-epoch / 6), 0.05 * rng.normal()
                history.append(f"{variant},0,{seed},{epoch},{1.9 * fall + .1:.4f},{1.7 * fall + .4 + level * .5:.4f},"
                               f"{right * (1 - fall) + level * .4:.4f}")
    pl.DataFrame(rows).write_parquet(folder / "predictions.parquet")

    def interval(mean, half=0.03):
        return {"mean": mean, "low": mean - half, "high": mean + half}

    write_json(folder / "metrics.json", {v: {
        "accuracy": interval(a + 0.01), "uar": interval(a, 0.02), "weighted_f1": interval(a - 0.005), "ece": interval(0.07, 0.01),
        "valence_ccc": interval(a - 0.02), "arousal_ccc": interval(a - 0.08), "valence_rmse": interval(0.3 - a / 5), "ccc": interval(a - 0.05),
        "uar_strict": {"mean": a, "low": None, "high": None}} for v, a in ACCURACY.items()})
    write_json(folder / "per_class.json", {v: {c: {"precision": interval(a - k / 50), "recall": interval(a - k / 70), "support": 7,
               "f1": interval(a - k / 60)} for k, c in enumerate(CLASSES)} for v, a in ACCURACY.items()})
    pl.DataFrame([{"variant": v, "speaker": f"spk{k:02d}", "clips": 4, "accuracy": a - 0.3 * rng.random(), "uar": a - 0.3 * rng.random(),
                   "valence_ccc": a - k / 40} for v, a in ACCURACY.items() for k in range(12)]).write_parquet(folder / "per_speaker.parquet")
    write_json(folder / "comparisons.json", {v: {"metric": "uar", "fused": interval(.86), "other": interval(a), "intervals_apart": True,
               "score": "accuracy", "difference": .86 - a, "p": 0.0002 if a < .6 else .0132} for v, a in ACCURACY.items() if v != "fused"})
    time = np.arange(0, 4, 0.25)
    pl.DataFrame([{"id": clip, "time": t, "truth_valence": np.sin(t + k) * .7, "pred_valence": np.sin(t + k) * .6 + rng.normal() * .02 * k,
                   "truth_arousal": np.cos(t * 1.3 + k) * .6, "pred_arousal": np.cos(t * 1.3 + k) * .5 + rng.normal() * .02 * k}
                  for k, clip in enumerate(test[:12]) for t in time]).write_parquet(folder / "traces.parquet")
    (folder / "plots" / "history.csv").write_text("\n".join(history) + "\n")
    (folder / "plots" / "confusion.csv").write_text("\n".join(confusion) + "\n")
    missing = ["kept,streams,metric,mean,low,high", "audio+text+video,3,uar,0.86,0.84,0.88", "audio+video,2,uar,0.8,0.77,0.83",
               "audio+text,2,uar,0.68,0.6,0.76", "text+video,2,uar,0.74,0.7,0.78", "audio,1,uar,0.55,0.5,0.6",
               "text,1,uar,0.4,0.35,0.45", "video,1,uar,0.66,0.6,0.72"]
    (folder / "plots" / "missing.csv").write_text("\n".join(missing) + "\n")


def make_run(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    ids = make_data(folder / "data", rng)
    make_features(folder / "features", ids, rng)
    make_reports(folder / "reports", ids, rng)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def page(folder: Path, params=None) -> str:
    path = report.render(params or make_params(), folder / "data", folder / "reports", folder / "features")
    return path.read_text(encoding="utf-8")


class Outline(html.parser.HTMLParser):
    """Checks nesting and collects what accessibility asks for."""

    VOID = {"meta", "link", "br", "line", "rect", "circle", "path"}

    def __init__(self):
        super().__init__()
        self.stack, self.ids, self.targets, self.tables, self.captions, self.svgs, self.bad = [], set(), set(), 0, 0, [], []

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


def test_confusion_counts_equal_a_plain_count(run):
    lines = (run / "reports" / "plots" / "confusion.csv").read_text().split()[1:]
    found = re.findall(r"<small>(\d+)</small>", page(run))
    expected = [lines.count(f"{a},{p}") for a in CLASSES for p in CLASSES]
    assert [int(n) for n in found] == expected


def test_speakers_come_hardest_first(run):
    table = pl.read_parquet(run / "reports" / "per_speaker.parquet").filter(pl.col("variant") == "fused").sort("accuracy")
    section = page(run).split('id="speakers"')[1].split("</section>")[0]
    assert re.findall(r'scope="row">(spk\d+)', section) == table["speaker"].to_list()


def test_traces_go_from_best_to_worst(run):
    section = page(run).split('id="traces"')[1].split("</section>")[0]
    errors = [float(e) for e in re.findall(r"mean absolute error ([\d.]+)\.", section)]
    assert len(errors) == 4 and errors == sorted(errors)
    assert "Closest to the truth" in section and "Farthest from the truth" in section


def test_leaks_are_said_at_the_top(run):
    path = run / "data" / "card.json"
    card = json.loads(path.read_text()) | {"leaks": [{"column": "speaker", "fold": 0, "splits": ["train", "test"], "values": 2,
                                                      "clips": 9, "share": 0.1, "examples": ["spk01", "spk02"]}]}
    write_json(path, card)
    text = page(run)
    assert "train and test share 2 values of speaker (spk01, spk02); 9 clips are affected" in text.split("<main>")[0]
    assert "No overlap found" not in text


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


@pytest.mark.parametrize("name", ["traces.parquet", "per_speaker.parquet", "plots/confusion.csv", "plots/history.csv",
                                  "predictions.parquet", "metrics.json", "comparisons.json", "per_class.json", "plots/missing.csv"])
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
