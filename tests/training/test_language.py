"""Training with a language model: the trunk's states as they are, runs that end where they would have, faults in one line."""

import json

import numpy as np
import pytest
import torch

from pipeline import params as parameters
from pipeline import weights
from pipeline.errors import ParamsError, StoreError, WeightsError
from pipeline.models.language import LanguageModel
from pipeline.runs.answers import read_answers
from pipeline.runs.language import build
from pipeline.runs.predict import predict_clip
from pipeline.runs.pretrained.model import AffectoryModel
from pipeline.runs.run import load_run
from pipeline.storage import feature_store
from pipeline.storage.feature_store import Entry, Status, Store
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.views import predict_views
from pipeline.training.loop import fit
from pipeline.training.stage import train
from pipeline.training.variants import list_variants, specify_model
from pipeline.weights import layers

SHAPE = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
TRUNK = {"modality": "text", "source": "x", "encoder": "trunk", "weights": "random:5", "architecture": SHAPE}
BASE = layers.name_base(weights.identity("random:5", architecture=SHAPE))
LLAMA = {"name": "llama", "options": {"lora": {"r": 2}}}


def add_trunk(corpus, depth=1, base=BASE, name="lm", width=16):
    """A first token that is large and always the same, words that tell the class, a question; every ninth clip is silent."""
    rng, entries = np.random.default_rng(1), []
    for i, kind in enumerate(corpus.classes):
        if i % 9 == 2:
            entries.append(Entry(np.zeros((0, width), np.float32), np.zeros((0, 2), np.float32), Status.MISSING))
            continue
        count = int(rng.integers(1, 5))
        values = rng.normal(size=(count + 2, width))
        values[1:-1, 0] += kind
        values[0] = 300.0
        edges = np.linspace(0, 4, count + 1)
        times = np.array([[0, 0], *zip(edges[:-1], edges[1:], strict=True), [4, 4]])
        entries.append(Entry(values.astype(np.float32), times.astype(np.float32), Status.OK))
    feature_store.write(
        corpus.path(f"features/{name}.h5"),
        corpus.ids,
        entries,
        rows=[len(one.values) for one in entries],
        shape=(width,),
        attributes={
            "stream": name,
            "modality": "text",
            "identity": {"weights": {"source": "random:5"}, "trunk": {"depth": depth, "base": base}},
        },
    )


def params_of(corpus, fusion=LLAMA, names=("audio", "lm"), trunk=TRUNK, **groups):
    base = corpus.params(fusion=fusion, **groups).model_dump(mode="json")
    streams = base["streams"] | dict.fromkeys(("lm", "other"), trunk)
    return parameters.parse(base | {"streams": {name: streams[name] for name in names}})


def load(corpus, params):
    return Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)


def test_states_reach_the_model_as_they_were_stored_and_other_readers_get_the_words(fabricate):
    corpus = fabricate(clips=30)
    add_trunk(corpus)
    params = params_of(corpus, training={"unimodal": True, "linear": {}}, temporal={"max_tokens": 2})
    data = load(corpus, params)
    by_name = {variant.name: variant for variant in list_variants(params)}
    spec = specify_model(params, by_name["fused"], data)
    assert spec.language.stream == "lm" and (spec.language.below, spec.language.layers) == (1, 3)
    store = Store(corpus.path("features/lm.h5"))
    rows = torch.tensor([0, 5])
    tokens = data.read(spec.streams).batch(rows, ["lm"]).streams["lm"]
    for n, row in enumerate(rows.tolist()):
        low, high = store.offsets[row], store.offsets[row + 1]
        np.testing.assert_array_equal(tokens.values[n][tokens.mask[n]], np.asarray(store.values[low:high], np.float32))
    words = {name: data.read(specify_model(params, by_name[name], data).streams).streams["lm"] for name in ("lm", "linear")}
    each = words["lm"]
    assert ((each.times[:, 1] > each.times[:, 0]).all()) and len(each.values) < len(store.values)
    assert each.values[:].abs().max() < 6  # no first token, and normalised by what has none either
    training = torch.isin(torch.arange(30), data.rows("train")) & each.present
    mean = torch.cat([each.values[each.offsets[i] : each.offsets[i + 1]] for i in training.nonzero()[:, 0].tolist()]).mean(0)
    torch.testing.assert_close(mean, torch.zeros(16), atol=1e-4, rtol=0)
    assert words["linear"].values.shape[1] == 32 and (words["linear"].present == each.present).all()


def test_a_run_is_saved_without_its_language_model_and_predicts_one_clip_as_it_does_all(fabricate, monkeypatch):
    corpus = fabricate(clips=40)
    add_trunk(corpus)
    params = params_of(corpus, training={"epochs": 2})
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    folder = corpus.path("models/runs/fused/fold0/seed0")
    size = (folder / "model.safetensors").stat().st_size
    run, data = load_run(folder), load(corpus, params)
    held = sum(p.numel() for p in run.model.parameters() if not p.requires_grad) * 4
    assert any("lora" in name for name in run.model.trainable()) and not any(
        "base_layer" in name for name in run.model.trainable()
    )
    assert size < held * 3
    rows = data.rows("test")
    outputs = predict_views(run.model, data.read(run.model.spec.streams), rows)
    streams = {name: Store(corpus.path(f"features/{name}.h5")) for name in run.streams}
    for n, row in enumerate(rows.tolist()):
        features = {}
        for name, store in streams.items():
            if store.status[row] == Status.OK:
                low, high = store.offsets[row], store.offsets[row + 1]
                features[name] = (np.asarray(store.values[low:high], np.float32), store.times[low:high])
        found = predict_clip(run, features).probabilities
        np.testing.assert_allclose(found, outputs["emotion"][n].softmax(0), atol=1e-5)
    alone = params_of(corpus, fusion={"name": "concat"}, names=("lm",), training={"epochs": 1})
    train(alone, corpus.index(alone), **corpus.files, out=corpus.path("models/alone"))
    plain = load_run(corpus.path("models/alone/fused/fold0/seed0"))
    data = load(corpus, alone)
    outputs = predict_views(plain.model, data.read(plain.model.spec.streams), rows)
    low, high = streams["lm"].offsets[rows[0]], streams["lm"].offsets[rows[0] + 1]
    found = predict_clip(plain, {"lm": (np.asarray(streams["lm"].values[low:high], np.float32), streams["lm"].times[low:high])})
    np.testing.assert_allclose(found.probabilities, outputs["emotion"][0].softmax(0), atol=1e-5)
    monkeypatch.setattr("pipeline.runs.language.layers.name_base", lambda identity: "another")
    with pytest.raises(StoreError, match="random:5 is not the language model that this model was trained with"):
        load_run(folder)


def test_a_run_over_fewer_bits_is_saved_read_and_exported_as_any(fabricate, tmp_path):
    corpus = fabricate(clips=40)
    shape = SHAPE | {"hidden_size": 64, "intermediate_size": 128}  # narrower layers no kernel takes
    add_trunk(corpus, base=layers.name_base(weights.identity("random:5", architecture=shape)), width=64)
    eight, four = (
        params_of(
            corpus,
            {"name": "llama", "options": LLAMA["options"] | {"quantise": bits}},
            trunk=TRUNK | {"architecture": shape},
            training={"epochs": 2},
        )
        for bits in ("8bit", "4bit")
    )
    index = corpus.index(eight)
    with pytest.raises(ParamsError, match="quantise 4bit learns on a GPU"):
        train(four, index, **corpus.files, out=corpus.path("models/runs"))
    train(eight, index, **corpus.files, out=corpus.path("models/runs"))
    folder = corpus.path("models/runs/fused/fold0/seed0")
    run, data = load_run(folder), load(corpus, eight)
    smaller = build(specify_model(four, list_variants(four)[0], data))
    smaller.load_trainable(run.model.trainable())
    assert sorted(smaller.trainable()) == sorted(run.model.trainable())
    assert not [name for name in run.model.trainable() if "base_layer" in name]
    outputs, rows = read_answers(folder).whole, data.rows("test")
    again = predict_views(run.model, data.read(run.model.spec.streams), rows)["emotion"].softmax(1)
    columns = [f"p_{name}" for name in run.model.spec.classes]
    np.testing.assert_allclose(outputs.select(columns).to_numpy(), again, atol=1e-5)
    exported = AffectoryModel.of([run])
    exported.save_pretrained(tmp_path)
    read = AffectoryModel.from_pretrained(tmp_path)
    assert all(torch.equal(value, read.learned()[name]) for name, value in exported.learned().items())


def test_a_killed_run_continues_to_the_same_bits(fabricate, tmp_path):
    corpus = fabricate(clips=30)
    add_trunk(corpus)
    params = params_of(corpus, training={"epochs": 3})
    data = load(corpus, params)
    spec = specify_model(params, list_variants(params)[0], data)
    data = data.read(spec.streams)
    whole, _ = fit(spec, data, params, 0)

    def kill(progress):
        if progress.epoch == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0, on_epoch=kill)
    resumed, _ = fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0)
    saved = whole.trainable()
    assert any("lora_B" in name and value.any() for name, value in saved.items())
    assert all(torch.equal(value, resumed.trainable()[name]) for name, value in saved.items())
    assert float(whole.fusion.sink[0]) == 300.0 and 0.5 < float(whole.fusion.scale) < 2


def test_without_a_trunk_a_language_model_reads_the_streams_alone(fabricate):
    corpus = fabricate(clips=30)
    fusion = {"name": "llama", "options": {"weights": "random:5", "architecture": SHAPE, "from_layer": 1 / 3}}
    params = params_of(corpus, fusion, names=("audio", "video"), training={"epochs": 1})
    data = load(corpus, params)
    spec = specify_model(params, list_variants(params)[0], data)
    assert spec.language.stream is None and spec.language.below == 1
    model, _ = fit(spec, data, params, 0)
    assert isinstance(model.fusion.language, LanguageModel) and len(model.fusion.language.network.layers) == 2


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (
            {"fusion": {"name": "llama", "options": {"from_layer": 2}}},
            ParamsError,
            "is 2, but stream lm holds the states after layer 1",
        ),
        ({"fusion": {"name": "llama", "options": {"from_layer": 3}}}, ParamsError, "the model has 3 layers"),
        ({"names": ("lm", "other")}, ParamsError, "reads one trunk, and the streams lm, other are"),
        ({"names": ("audio", "video")}, ParamsError, "needs a language model: add a stream that is the trunk of one"),
        ({"base": "feedbeef"}, WeightsError, "stream lm was made with other weights than random:5 is now"),
        ({"fusion": {"name": "llama", "options": {"lora": {"targets": ["up"]}}}}, ParamsError, "fusion.options.lora.targets"),
    ],
)
def test_what_does_not_fit_is_one_line(fabricate, change, error, said):
    corpus = fabricate(clips=30)
    for name in ("lm", "other"):
        add_trunk(corpus, base=change.get("base", BASE), name=name)
    params = params_of(corpus, change.get("fusion", LLAMA), change.get("names", ("audio", "lm")), training={"epochs": 1})
    data = load(corpus, params)
    with pytest.raises(error, match=said) as fault:
        fit(specify_model(params, list_variants(params)[0], data), data, params, 0)
    assert "\n" not in str(fault.value)


def test_what_a_trunk_holds_is_in_the_index(fabricate):
    corpus = fabricate(clips=30)
    add_trunk(corpus)
    data = load(corpus, params_of(corpus))
    assert json.loads(data.streams["lm"].facts["trunk"]) == {"depth": 1, "base": BASE}
    assert data.streams["audio"].trunk is None
