"""Stage `adapt`: an encoder that learned from the training clips, and the stream that is extracted with it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline import metrics
from pipeline import params as parameters
from pipeline.adaptation import run as running
from pipeline.adaptation.stage import adapt
from pipeline.errors import ParamsError, StoreError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.extract import extract
from pipeline.features.index import build
from pipeline.runs.run import TrainedModel
from pipeline.serving.adapted import check_adapter
from pipeline.storage import media_store, tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Store
from pipeline.storage.index import Index
from pipeline.weights import adapters

torch = pytest.importorskip("torch")

#: Words of each emotion, of which a clip has one among words that tell nothing.
WORDS = {name: [f"{name}{i}" for i in range(6)] for name in ("anger", "joy", "sadness")}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
CLIPS = 120
ROOT = Path(__file__).resolve().parents[2]


def picture(value: float, rng: np.random.Generator) -> bytes:
    """The brighter the left half beside the right one, the higher the value; both are lit by chance."""
    pixels = rng.integers(0, 30, (32, 32, 3)) + 110.0 * rng.random()
    pixels[:, :16] += 55 * (1 + value)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Manifest, folds, annotations and frames of sixty clips: words tell the emotion, light tells valence over time."""
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    rows, roles, frames, entries = [], [], [], {}
    for i in range(CLIPS):
        name, emotion = f"c{i:03}", list(WORDS)[i % 3]
        role = ("train", "train", "train", "val", "test")[i // 3 % 5]
        said = " ".join(rng.permutation([rng.choice(WORDS[emotion]), *(f"word{n}" for n in rng.integers(0, 60, 4))]))
        held = role == "test"
        rows.append(
            {
                "id": name,
                "corpus": "c",
                "content": f"{i:032x}",
                "speaker": f"s{i // 3 % 5}",
                "text": said,
                "video": f"{name}.mp4",
                "duration": 2.0,
                "emotion": None if held else emotion,
                "valence": None,
                "arousal": None,
            }
        )
        roles.append({"id": name, "fold": 0, "role": role})
        times = np.arange(9, dtype=np.float32) / 4
        trace = np.sin(times[:-1] * 2 + i)
        if not held:
            known = zip(times[:-1] + 0.125, trace, strict=True)
            frames += [{"id": name, "time": float(t), "valence": float(v), "arousal": 0.0} for t, v in known]
        entries[name] = media_store.join_files([picture(v, rng) for v in trace], np.stack([times[:-1], times[1:]], 1))
    tables.write(tables.frame(rows), folder / "data/manifest.parquet")
    tables.write(pl.DataFrame(roles), folder / "data/folds.parquet", sort=("fold", "id"))
    tables.write(tables.frame(frames, tables.ANNOTATIONS), folder / "data/annotations.parquet", sort=("id", "time"))
    with ClipCache("frames", {"of": "tests"}, base=folder / "frames") as cache:
        cache.put({row["content"]: entries[row["id"]] for row in rows})
        media_store.pack(folder / "data/frames.h5", rows, "video", cache, {"of": "tests"}, {})
    return folder


@pytest.fixture
def workspace(corpus, tmp_path, monkeypatch):
    """A working folder with the corpus' data and an empty cache."""
    shutil.copytree(corpus / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "cache"))
    return tmp_path


def params(text: dict | None = None, video: dict | None = None, **more) -> parameters.Params:
    """Two streams; `text` and `video` are their `adapt`."""
    architecture = SMALL | {"patch_size": 16, "image_size": 32, "projection_dim": 16}
    streams = {
        "text": {
            "modality": "text",
            "source": "data/manifest.parquet",
            "encoder": "text",
            "weights": "random:0",
            "pooling": "mean",
            "architecture": SMALL | {"vocab_size": 512, "max_position_embeddings": 64},
            "adapt": text,
        },
        "video": {
            "modality": "video",
            "source": "data/frames.h5",
            "encoder": "clip",
            "weights": "random:0",
            "architecture": architecture,
            "store": {"dtype": "float32"},
            "adapt": video,
        },
    }
    task = {"dimensions": ["valence"]}
    given = {"recipe": "t", "corpus": {"name": "c", "root": "c"}, "streams": streams, "task": task, "fusion": {"name": "gated"}}
    return parameters.parse(given | {"run": {"workers": 0, "device": "cpu"}} | more)


FAST = {"lr": 5e-3, "head_lr": 2e-2, "batch": 12, "epochs": 8, "warmup": 0.0, "dropout": 0.0}


def record(name: str) -> dict:
    return json.loads(Path("models/adapters", name, adapters.RECORD).read_text())


def test_without_adapt_a_note_is_written_and_no_library_loaded(workspace):
    """What the stage costs where nothing is asked of it: a start of the interpreter."""
    (workspace / "params.yaml").write_text(json.dumps(params().model_dump(mode="json")))
    code = (
        "import sys; from pipeline import params; from pipeline.adaptation.stage import adapt; adapt(params.read(), 'text'); "
        "sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
    assert record("text") == {"method": None} and not Path("cache", "adapters").exists()


def test_the_gate_ends_it_and_held_out_features_tell_more(workspace):
    plain = extract(params(), "text")
    before = Store(plain).attributes["identity"], score(Store(plain))
    asked = params(text=FAST | {"lr": 1e-2, "batch": 4, "epochs": 12, "gate": 0.62, "patience": None})
    with pytest.raises(WeightsError, match="run `dvc repro adapt@text`"):
        extract(asked, "text")
    adapt(asked, "text")
    found = record("text")
    history = [row["val_macro_f1"] for row in found["history"]]
    assert found["reached"] and found["epochs"] == found["gate_epoch"] == found["best_epoch"] == len(history) < 12
    assert history[-1] > 0.62 >= max(history[:-1])
    assert {"train_macro_f1", "val_macro_f1", "val_macro_f1_zero"} <= set(found["history"][0])
    assert found["base"] == {"source": "random:0", "architecture": asked.stream("text").architecture}
    assert found["clips"] == {"train": 72, "val": 24}
    after = Store(extract(asked, "text"))
    identity = after.attributes["identity"]
    assert {key for key in identity if identity[key] != before[0].get(key)} == {"adapter"}
    assert score(after) > before[1] + 0.1
    # Only the adapted stream is another one; what has been adapted once is not adapted again.
    assert Store(extract(asked, "video")).attributes["identity"] == Store(extract(params(), "video")).attributes["identity"]
    bytes_ = Path("models/adapters/text", adapters.WEIGHTS).read_bytes()
    shutil.rmtree("models")
    adapt(asked, "text")
    assert Path("models/adapters/text", adapters.WEIGHTS).read_bytes() == bytes_ and len(os.listdir("cache/adapters")) == 1


def score(store: Store) -> float:
    """Macro-F1 on the held-out clips, by a linear model on the training clips."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    roles = tables.read("data/folds.parquet")
    role, places = dict(zip(roles["id"], roles["role"], strict=True)), {c: int(c[1:]) % 3 for c in store.ids}
    rows = {clip: np.asarray(store[clip].values, np.float64).mean(0) for clip in store.ids}
    train, test = ([c for c in rows if role[c] == part] for part in ("train", "test"))
    scale = StandardScaler().fit([rows[c] for c in train])
    model = LogisticRegression(C=0.1).fit(scale.transform([rows[c] for c in train]), [places[c] for c in train])
    found = model.predict(scale.transform([rows[c] for c in test]))
    return float(metrics.classification([places[c] for c in test], found, len(WORDS))["macro_f1"])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_one_that_was_stopped_goes_on_to_the_same_bits(workspace, monkeypatch, method):
    asked = params(text=FAST | {"method": method, "epochs": 4, "gate": None, "dropout": 0.2 if method == "lora" else 0.0})
    adapt(asked, "text")
    whole = {path.name: path.read_bytes() for path in Path("models/adapters/text").iterdir()}
    shutil.rmtree("models")
    shutil.rmtree("cache")
    run, ended = running.run, []

    def stopped(plan, params, folder):
        def stop(progress):
            ended.append(progress.epoch)
            if progress.epoch == 2:
                raise KeyboardInterrupt

        return run(plan, params, folder, on_epoch=stop)

    monkeypatch.setattr(running, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        adapt(asked, "text")
    assert not Path("models").exists()
    monkeypatch.setattr(running, "run", run)
    adapt(asked, "text")
    assert ended == [1, 2] and {path.name: path.read_bytes() for path in Path("models/adapters/text").iterdir()} == whole
    assert not list(Path("cache/adapters").glob("*/state.pt"))


def test_frames_that_are_alike_in_valence_come_to_lie_together(workspace):
    """Contrast weighted by the distance of frames in valence, which light tells here."""
    asked = params(video=FAST | {"objective": "dimensions", "r": 16, "epochs": 5, "frames": 4, "patience": None})
    adapt(asked, "video")
    found = record("video")
    assert found["level"] == "frame" and found["gate"] is None and found["reached"] is None
    losses = [row["val_loss"] for row in found["history"]]
    assert min(losses) == losses[found["best_epoch"] - 1] < losses[0]
    assert ordered(Store(extract(asked, "video"))) > ordered(Store(extract(params(), "video", out="plain.h5"))) + 0.05


def ordered(store: Store) -> float:
    """Rank correlation of distance in features and in valence, over the frames of a validation clip and another."""
    from scipy.stats import spearmanr

    truth = tables.read("data/annotations.parquet")
    kept = [c for c in store.ids if int(c[1:]) // 3 % 5 == 3]
    rows = np.concatenate([np.asarray(store[c].values, np.float64) for c in kept])
    values = np.concatenate([truth.filter(pl.col("id") == c).sort("time")["valence"].to_numpy() for c in kept])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), 1)
    return float(spearmanr(-(rows[first] * rows[second]).sum(1), np.abs(values[first] - values[second])).statistic)


def test_a_model_is_served_with_the_adapter_it_learned_from_or_not_at_all(workspace):
    asked = params(text=FAST | {"epochs": 1, "gate": None})
    adapt(asked, "text")
    for name in asked.streams:
        extract(asked, name)
    build(asked)
    facts = {name: Index("data/index.h5").stream(name).facts for name in asked.streams}
    stream = asked.stream("text")
    assert facts["text"]["adapter"] == registry.build(stream).identity["adapter"]["sha256"] and "adapter" not in facts["video"]
    run = TrainedModel({"streams": facts}, None, {})
    check_adapter("text", stream, registry.build(stream), [run])
    check_adapter("video", asked.stream("video"), registry.build(asked.stream("video")), [run])
    adapt(params(text=FAST | {"epochs": 2, "gate": None}), "text")
    with pytest.raises(StoreError, match="stream text: the model was trained on features of another adapter"):
        check_adapter("text", stream, registry.build(stream), [run])


def test_held_out_labels_do_not_enter(workspace):
    """Whatever the manifest says of test clips, the same is learned."""
    asked = params(text=FAST | {"epochs": 1, "gate": None})
    adapt(asked, "text")
    one = Path("models/adapters/text", adapters.WEIGHTS).read_bytes()
    table = tables.read("data/manifest.parquet").with_columns(pl.col("emotion").fill_null("joy"))
    tables.write(table, Path("data/manifest.parquet"))
    shutil.rmtree("cache")
    adapt(asked, "text")
    assert Path("models/adapters/text", adapters.WEIGHTS).read_bytes() == one


def test_what_cannot_be_is_one_line(workspace):
    folds = tables.read("data/folds.parquet")
    more = pl.concat([folds, folds.with_columns(pl.lit(1, pl.Int64).alias("fold").cast(folds["fold"].dtype))])
    tables.write(more, Path("data/folds.parquet"), sort=("fold", "id"))
    with pytest.raises(ParamsError, match="protocol split has 2 folds, each of which tests on what another trains on"):
        adapt(params(text=FAST), "text")
    tables.write(folds, Path("data/folds.parquet"), sort=("fold", "id"))
    with pytest.raises(ParamsError, match="training.rotate"):
        adapt(params(text=FAST, training={"rotate": True}), "text")
    with pytest.raises(ParamsError, match="no train clip has valence"):
        shutil.move("data/annotations.parquet", "a.parquet")
        adapt(params(video=FAST | {"objective": "dimensions"}), "video")
    with pytest.raises(ParamsError, match="streams.text.adapt.loss.projection: there is no output 'projektion' here"):
        adapt(params(text=FAST | {"loss": {"projection": {"name": "triplet", "on": "projektion"}}}), "text")
    with pytest.raises(ParamsError, match="cross_entropy reads emotion"):
        adapt(params(text=FAST | {"loss": {"a": {"name": "cross_entropy", "on": "projection"}}}), "text")
    with pytest.raises(ParamsError, match="streams.text has an adapter and is to be adapted"):
        values = params(text=FAST).model_dump(mode="json")
        values["streams"]["text"]["adapter"] = "elsewhere"
        parameters.parse(values)
    with pytest.raises(ParamsError, match="targets are of lora"):
        params(text={"method": "full", "targets": ["query"]})
    computed = params().model_dump(mode="json")
    computed["streams"]["text"] |= {"modality": "audio", "encoder": "logmel", "weights": "none", "adapt": {}, "architecture": {}}
    computed["streams"] = {"sound": computed["streams"]["text"]}
    with pytest.raises(ParamsError, match="streams.sound.adapt: encoder logmel computes its features and learns nothing"):
        adapt(parameters.parse(computed), "sound")
