"""The linear model against scikit-learn on statistics pooled by hand; what is missing, padded or absurd."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV

from pipeline.errors import ParamsError, StoreError
from pipeline.evaluation.evaluate import evaluate
from pipeline.models.batch import Inputs, drop_streams
from pipeline.runs.predict import predict_clip
from pipeline.runs.run import load_run
from pipeline.storage.feature_store import Store
from pipeline.training.data.dataset import Dataset
from pipeline.training.linear import PENALTIES, fit_linear
from pipeline.training.stage import train
from pipeline.training.variants import list_variants, specify_model

ON = {"linear": {"penalty": 0.1}}


def prepare(corpus, temporal=None, **training):
    params = corpus.params(training={**ON, **training}, **({"temporal": temporal} if temporal else {}))
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    variant = next(one for one in list_variants(params) if one.linear)
    spec = specify_model(params, variant, data)
    return params, data, spec


def by_hand(data, rows, weights=()):
    """Mean and deviation of each stream from the tokens themselves; streams in alphabetical order."""
    blocks, here = [], []
    for name in sorted(data.streams):
        stream = data.streams[name]
        found, present = [], []
        for row in rows.tolist():
            tokens = stream.values[stream.offsets[row] : stream.offsets[row + 1]].flatten(1).double().numpy()
            present.append(len(tokens) > 0)
            found.append(np.concatenate([tokens.mean(0), tokens.std(0)]) if len(tokens) else np.zeros(2 * tokens.shape[1]))
        blocks.append(np.array(found))
        here.append(np.array(present))
    widest = max(block.shape[1] for block in blocks)
    scaled = []
    for name, block, present in zip(sorted(data.streams), blocks, here, strict=True):
        whole = (
            (block - block[present].mean(0))
            / block[present].std(0)
            * np.sqrt(dict(weights).get(name, 1) * widest / block.shape[1])
        )
        scaled.append(whole * present[:, None])
    return np.concatenate(scaled, 1)


@pytest.mark.parametrize("weights", [{}, {"text": 0.3}])
def test_it_is_scikit_learns_regression_of_the_pooled_streams(fabricate, weights):
    params, data, spec = prepare(fabricate(clips=60), temporal={"weights": weights})
    model, progress = fit_linear(spec, data.read(spec.streams), params)
    rows = data.rows("train", "val")
    pooled, truth = by_hand(data, rows, weights), data.emotion[rows].numpy()
    outputs = model(data.read(spec.streams).batch(rows, spec.streams))
    np.testing.assert_allclose(outputs["embedding"].numpy(), pooled, atol=2e-5)
    expected = LogisticRegression(C=1 / (0.1 * len(rows)), max_iter=5000, tol=1e-8).fit(pooled, truth)
    np.testing.assert_allclose(outputs["emotion"].softmax(1).detach().numpy(), expected.predict_proba(pooled), atol=2e-4)
    dimensions = data.dimensions[rows].double().numpy()
    for place in range(2):
        ridge = RidgeCV(alphas=PENALTIES * len(rows)).fit(pooled, dimensions[:, place])
        expected = np.clip(ridge.predict(pooled), -1, 1)
        np.testing.assert_allclose(outputs["dimensions"][:, place].detach().numpy(), expected, atol=1e-4)
    assert progress.best_epoch == 1 and np.isnan(progress.history[0]["val_loss"])


def test_every_stream_makes_up_as_much_of_a_distance_whatever_its_width(fabricate):
    _, data, spec = prepare(corpus := fabricate(clips=60))
    params = corpus.params(training=ON)
    model, _ = fit_linear(spec, data.read(spec.streams), params)
    whole = data.rows("train", "val")
    everything = torch.stack([stream.offsets.diff() > 0 for stream in data.streams.values()]).all(0)[whole]
    vectors = model(data.read(spec.streams).batch(whole[everything], spec.streams))["embedding"]
    parts = vectors.split([stream.reads for stream in spec.streams.values()], 1)
    assert len({part.shape[1] for part in parts}) > 1
    spreads = [float(part.var(0, unbiased=False).sum()) for part in parts]
    assert max(spreads) / min(spreads) < 1.35  # of all clips that have the stream they are equal


def test_what_is_missing_moves_nothing_and_alone_is_as_in_a_batch(fabricate):
    params, data, spec = prepare(fabricate(clips=40))
    model, _ = fit_linear(spec, data.read(spec.streams), params)
    rows = torch.arange(40)
    together = model(data.read(spec.streams).batch(rows, spec.streams))["emotion"]
    alone = torch.cat([model(data.read(spec.streams).batch(row[None], spec.streams))["emotion"] for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    nothing = model(drop_streams(data.read(spec.streams).batch(rows, spec.streams), spec.streams))
    torch.testing.assert_close(nothing["emotion"], model.heads["emotion"].bias.expand(40, -1))
    assert not nothing["present"].any()
    read = data.read(spec.streams)
    with_history = read.batch(rows[5:7], spec.streams)._replace(history=read.find_turns(torch.tensor([0, 1]), (1, 0)))
    torch.testing.assert_close(model(with_history)["emotion"], together[5:7], atol=1e-5, rtol=1e-5)


def test_a_number_that_does_not_vary_says_nothing(fabricate):
    """A stream of one token per clip has no deviation; a constant column is not blown up."""
    corpus = fabricate(clips=40)
    params, data, spec = prepare(corpus)
    values = data.streams["video"].values[:]
    values[:, 3] = 0.1
    data = replace(data, streams=data.streams | {"video": replace(data.streams["video"], values=values)})
    model, _ = fit_linear(spec, data.read(spec.streams), params)
    scale = torch.cat([model.standardise[name].scale for name in spec.streams])
    video = model.standardise["video"].scale
    width = data.streams["video"].values.shape[1]
    assert video[3] == 0 and video[width + 3] == 0
    assert torch.isfinite(scale).all() and (scale > 0).sum() == model.width - 2


def test_trained_evaluated_and_predicted_like_every_other(fabricate):
    corpus = fabricate(clips=60)
    params = corpus.params(training={**ON, "seeds": 2, "epochs": 3, "unimodal": True}, task={"level": "frame"})
    index = corpus.index(params)
    folders = [
        p.relative_to(corpus.path("models/runs")).as_posix()
        for p in train(params, index, **corpus.files, out=corpus.path("models/runs"))
    ]
    assert [name for name in folders if name.startswith("linear")] == ["linear/fold0/seed0"]
    before = (corpus.path("models/runs/linear/fold0/seed0/model.safetensors")).read_bytes()
    train(params, index, **corpus.files, out=corpus.path("models/runs"))
    assert (corpus.path("models/runs/linear/fold0/seed0/model.safetensors")).read_bytes() == before
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
    assert result["linear"]["uar"]["mean"] > 0.4  # chance is 0.25
    assert "linear" in json.loads(corpus.path("reports/comparisons.json").read_text())
    run = load_run(corpus.path("models/runs/linear/fold0/seed0"))
    stores = {name: Store(corpus.path(f"features/{name}.h5")) for name in run.streams}
    clip = {name: (store["demo/clip000"].values, store["demo/clip000"].times) for name, store in stores.items()}
    data = Dataset.load(index, params=params, fold=0, **corpus.files)
    expected = run.model(data.read(run.model.spec.streams).batch(torch.tensor([0]), run.streams))["emotion"].softmax(1)[0]
    np.testing.assert_allclose(predict_clip(run, clip).probabilities, expected.detach().numpy(), atol=1e-5)


def test_classes_that_nobody_showed_are_never_the_answer_and_one_alone_is_refused(fabricate):
    params, data, spec = prepare(fabricate(clips=60))
    data.emotion[data.emotion == 2] = -1
    model, _ = fit_linear(spec, data.read(spec.streams), params)
    chance = model(data.read(spec.streams).batch(torch.arange(60), spec.streams))["emotion"].softmax(1).detach()
    assert float(chance[:, 2].max()) < 1e-6
    data.emotion[data.emotion > 0] = 0
    with pytest.raises(StoreError, match="one class alone"):
        fit_linear(spec, data.read(spec.streams), params)
    data.emotion[:] = -1
    data.dimensions[:] = float("nan")
    with pytest.raises(StoreError, match="no labelled clip"):
        fit_linear(spec, data.read(spec.streams), params)


def test_two_classes_are_penalised_like_more(fabricate):
    """The library keeps one row for two classes, w = W₁ - W₀, whose square is twice those of both."""
    params, data, spec = prepare(fabricate(clips=60))
    data.emotion.copy_(torch.where(data.emotion >= 0, data.emotion % 2, -1))
    model, _ = fit_linear(spec, data.read(spec.streams), params)
    rows = data.rows("train", "val")
    expected = LogisticRegression(C=2 / (0.1 * len(rows)), max_iter=5000, tol=1e-8).fit(by_hand(data, rows), data.emotion[rows])
    found = model(data.read(spec.streams).batch(rows, spec.streams))["emotion"].softmax(1)[:, :2].detach().numpy()
    np.testing.assert_allclose(found, expected.predict_proba(by_hand(data, rows)), atol=2e-4)


def test_names_that_are_not_there(fabricate):
    params, data, spec = prepare(fabricate(clips=40), temporal={"weights": {"sound": 0.5}})
    with pytest.raises(ParamsError, match="sound"):
        fit_linear(spec, data.read(spec.streams), params)
    corpus = fabricate(clips=40)
    streams = corpus.params().model_dump(mode="json")["streams"]
    with pytest.raises(ParamsError, match="a stream is named 'linear'"):
        list_variants(corpus.params(streams={"linear": streams["audio"]}))
    assert not any(one.linear for one in list_variants(corpus.params(training={"linear": None})))
    assert isinstance(data.batch(torch.tensor([0]), spec.streams), Inputs)
