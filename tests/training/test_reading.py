"""How a model reads clips: one row of statistics, normalised within a speaker, in views; and what is learned from such rows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pipeline import metrics
from pipeline.errors import ParamsError, StoreError
from pipeline.models.batch import Inputs, Tokens
from pipeline.models.model import EmotionModel
from pipeline.models.pooled import Standardise, pool_tokens
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from pipeline.runs.predict import average_views, predict_batches, predict_clip
from pipeline.runs.run import load_run
from pipeline.storage.feature_store import Store
from pipeline.training.adjustment import choose_shift, log_prior
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.views import predict_views
from pipeline.training.logistic import fit_logistic
from pipeline.training.loop import fit
from pipeline.training.mixup import mix_inputs, mix_targets
from pipeline.training.stage import train
from pipeline.training.variants import list_variants, specify_model

POOLED = {"fusion": {"name": "early", "options": {"project": False}}, "temporal": {"pooling": "statistics"}}


def load(corpus, **groups):
    params = corpus.params(**groups)
    return params, Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)


def learn(params, data, seed=0):
    spec = specify_model(params, list_variants(params)[0], data)
    return fit(spec, data.read(spec.streams), params, seed)


def with_view(data, name, change, view="mirror"):
    """The data with a view of one stream: its values changed."""
    stream = data.streams[name]
    size = int(stream.offsets[-1])
    seen = replace(
        stream,
        values=torch.cat([stream.values[:], change(stream.values[:])]),
        times=stream.times.repeat(2, 1),
        offsets=torch.cat([stream.offsets, stream.offsets[1:] + size]),
        targets=None if stream.targets is None else stream.targets.repeat(2, 1),
        views=(view,),
    )
    return replace(data, streams={**data.streams, name: seen}, _readings={})


def test_a_clip_is_its_mean_and_deviation_and_padding_is_no_part_of_it(fabricate):
    _, data = load(fabricate(clips=20, levels=3))
    read = data.read({"audio": StreamSpec(width=6, levels=3, pooling="statistics")}).streams["audio"]
    stream = data.streams["audio"]
    for row in range(20):
        tokens = stream.values[stream.offsets[row] : stream.offsets[row + 1]].flatten(1).double().numpy()
        found = read.values[read.offsets[row] : read.offsets[row + 1]]
        assert found.shape == (1, 36)
        np.testing.assert_allclose(found[0], np.concatenate([tokens.mean(0), tokens.std(0)]), atol=1e-5)
        spans = stream.times[stream.offsets[row] : stream.offsets[row + 1]]
        assert read.times[row].tolist() == [spans[0, 0], spans[-1, 1]]


def test_an_absent_stream_has_no_row_and_one_token_no_deviation():
    tokens = Tokens(torch.randn(2, 4, 3), torch.tensor([[True, False, False, False], [False] * 4]), torch.rand(2, 4, 2))
    pooled = pool_tokens(tokens, "statistics")
    assert pooled.mask.tolist() == [[True], [False]] and torch.isfinite(pooled.times).all()
    torch.testing.assert_close(pooled.values[0, 0], torch.cat([tokens.values[0, 0], torch.zeros(3)]))
    assert not pooled.values[1].any()


@pytest.mark.parametrize("pooling", ["none", "statistics"])
def test_features_are_normalised_within_a_speaker_held_out_or_not(fabricate, pooling):
    corpus = fabricate(clips=60)
    _, data = load(corpus, training={"normalise": "speaker"})
    spec = StreamSpec(width=6, pooling=pooling)
    read, plain = data.read({"audio": spec}).streams["audio"], replace(data, within=None, _readings={}).read({"audio": spec})
    lengths = read.offsets.diff()
    speaker = torch.tensor([i % 6 for i in range(60)]).repeat_interleave(lengths)
    for number in range(6):
        rows, raw = read.values[speaker == number].double(), plain.streams["audio"].values[speaker == number].double()
        torch.testing.assert_close(rows, (raw - raw.mean(0)) / raw.std(0, unbiased=False), atol=1e-4, rtol=1e-4)
    with pytest.raises(ParamsError, match="no clip has a session"):
        load(corpus, training={"normalise": "session"})


def test_a_model_normalised_within_speakers_refuses_a_clip_alone(fabricate):
    corpus = fabricate(clips=60)
    params = corpus.params(training={"normalise": "speaker", "epochs": 1})
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    run = load_run(corpus.path("models/runs/fused/fold0/seed0"))
    clip = {name: (Store(corpus.path(f"features/{name}.h5"))["demo/clip000"]) for name in run.streams}
    with pytest.raises(StoreError, match="all clips of a speaker"):
        predict_clip(run, {name: (entry.values, entry.times) for name, entry in clip.items()})


def test_views_are_drawn_in_training_and_averaged_in_prediction(fabricate):
    params, data = load(fabricate(clips=40), **POOLED)
    data = with_view(data, "audio", lambda values: values + 1)
    rows = torch.arange(40)
    plain, changed = (data.batch(rows, ["audio"], view=k).streams["audio"].values for k in (0, 1))
    mask = data.batch(rows, ["audio"]).streams["audio"].mask
    torch.testing.assert_close(changed[mask], plain[mask] + 1)
    drawn = data.batch(rows, ["audio"], draw=torch.Generator().manual_seed(0)).streams["audio"].values
    seen = [torch.equal(drawn[i], changed[i]) for i in rows]
    assert all(torch.equal(drawn[i], (changed if seen[i] else plain)[i]) for i in rows) and 8 < sum(seen) < 32
    # A stream that has none is as it is in every view.
    torch.testing.assert_close(
        data.batch(rows, ["video"], view=1).streams["video"].values, data.streams["video"].tokens(rows).values
    )
    spec = specify_model(params, list_variants(params)[0], data)
    model, read = EmotionModel(spec), data.read(spec.streams)
    each = [predict_batches(model, read.batches(rows, tuple(spec.streams), view=k)) for k in (0, 1)]
    found = predict_views(model, read, rows)
    chance = torch.stack([one["emotion"].softmax(-1) for one in each]).mean(0)
    torch.testing.assert_close(found["emotion"].softmax(-1), chance)
    torch.testing.assert_close(found["dimensions"], torch.stack([one["dimensions"] for one in each]).mean(0))
    assert torch.equal(found["embedding"], each[0]["embedding"]) and average_views(each[:1]) is each[0]


def test_truth_over_time_keeps_to_the_instants_of_the_clip_as_it_is(fabricate):
    _, data = load(fabricate(clips=20), task={"level": "frame"})
    seen = with_view(data, "video", lambda values: values + 1, "speed:0.9")
    drawn = seen.batch(torch.arange(20), ["video"], draw=torch.Generator().manual_seed(0)).streams["video"]
    torch.testing.assert_close(drawn.values, data.batch(torch.arange(20), ["video"]).streams["video"].values)


def test_a_pooled_network_learns_and_predicts_as_trained(fabricate):
    corpus = fabricate(clips=150, noise=0.3)
    training = {"epochs": 15, "lr": 0.01, "select": "last", "refit": True, "mixup": 0.4}
    params = corpus.params(**{**POOLED, "temporal": {"pooling": "statistics", "noise": 0.2}}, training=training)
    index = corpus.index(params)
    train(params, index, **corpus.files, out=corpus.path("models/runs"))
    run = load_run(corpus.path("models/runs/fused/fold0/seed0"))
    data = Dataset.load(index, params=params, fold=0, **corpus.files)
    outputs = predict_views(run.model, data.read(run.model.spec.streams), torch.arange(150))
    test = data.rows("test")
    right = outputs["emotion"][test].argmax(1) == torch.from_numpy(corpus.classes)[test]
    assert float(right.float().mean()) > 0.7  # chance is 0.25
    clip = {name: Store(corpus.path(f"features/{name}.h5"))["demo/clip001"] for name in run.streams}
    alone = predict_clip(run, {name: (entry.values, entry.times) for name, entry in clip.items()})
    np.testing.assert_allclose(alone.probabilities, outputs["emotion"][1].softmax(0), atol=1e-4)
    history = json.loads(corpus.path("models/runs/fused/fold0/seed0/history.json").read_text())
    assert len(history) == 15 and all(row["val_loss"] is None for row in history)


def test_refit_learns_from_validation_and_the_last_epoch_stays(fabricate):
    corpus = fabricate(clips=60)
    params, data = load(corpus, training={"epochs": 6, "select": "last", "patience": 1})
    model, progress = learn(params, data)
    assert progress.epoch == progress.best_epoch == 6
    again = params.model_copy(update={"training": params.training.model_copy(update={"refit": True})})
    other, _ = learn(again, data)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    # Without selection the labels of validation clips reach the model by refit alone.
    data.emotion[data.rows("val")] = 0
    torch.testing.assert_close(learn(params, data)[0].state_dict(), model.state_dict(), rtol=0, atol=0)
    changed = learn(again, data)[0].state_dict()
    assert any(not torch.equal(value, changed[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    "training, said",
    [
        ({"refit": True}, "select must be last"),
        ({"refit": True, "select": "last", "tau": [0.5]}, "tau empty"),
        ({"tau": [0.5], "select": "loss"}, "metric of classes"),
    ],
)
def test_what_leaves_nothing_to_choose_on_is_refused_when_read(fabricate, training, said):
    with pytest.raises(ParamsError, match=said):
        fabricate(clips=20).params(training=training)


def test_what_cannot_be_pooled_or_mixed_is_one_line(fabricate):
    corpus = fabricate(clips=40)
    params, data = load(corpus, **POOLED, task={"level": "frame"})
    with pytest.raises(ParamsError, match="one row per clip"):
        specify_model(params, list_variants(params)[0], data)
    params, data = load(corpus, training={"mixup": 0.4})
    with pytest.raises(ParamsError, match="mixes clips of one row"):
        learn(params, data)


def test_pairs_are_mixed_where_both_have_the_stream():
    values = torch.tensor([[[1.0]], [[3.0]], [[5.0]]])
    tokens = Tokens(values, torch.tensor([[True], [True], [False]]), torch.zeros(3, 1, 2))
    mixed = mix_inputs(Inputs({"audio": tokens}), torch.tensor([1, 2, 0]), torch.tensor(0.75)).streams["audio"]
    assert mixed.values.flatten().tolist() == [1.5, 3.0, 5.0] and torch.equal(mixed.mask, tokens.mask)


def test_the_truth_of_a_pair_is_that_of_its_clips(fabricate):
    _, data = load(fabricate(clips=20))
    targets = data.targets(torch.arange(8))
    partner = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    other = mix_targets(targets, partner)
    assert torch.equal(other.emotion, targets.emotion[partner]) and torch.equal(other.weight, targets.weight[partner])


def test_noise_is_added_in_training_alone():
    stream = {"audio": StreamSpec(width=4, pooling="mean")}
    output = {"emotion": OutputSpec(name="emotion", size=3)}
    part = PartSpec(name="early", options={"project": False})
    spec = ModelSpec(
        streams=stream, width=8, heads=2, dropout=0.0, fusion=part, outputs=output, classes=("a", "b", "c"), noise=0.5
    )
    model = EmotionModel(spec)
    tokens = Tokens(torch.randn(5, 1, 4), torch.ones(5, 1).bool(), torch.zeros(5, 1, 2))
    inputs = Inputs({"audio": tokens})
    assert not torch.equal(model(inputs)["emotion"], model(inputs)["emotion"])
    model.eval()
    assert torch.equal(model(inputs)["emotion"], model(inputs)["emotion"])


def test_standardised_rows_are_even_and_what_does_not_vary_is_silent():
    rows = torch.randn(50, 3) * torch.tensor([1.0, 1000.0, 0.0]) + torch.tensor([0.0, 1e4, 0.1])
    part = Standardise(3)
    part.fit(rows, 2.0)
    found = part(Tokens(rows[:, None], torch.ones(50, 1).bool(), torch.zeros(50, 1, 2))).values[:, 0]
    torch.testing.assert_close(found.std(0, unbiased=False), torch.tensor([2.0, 2.0, 0.0]), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-3, rtol=0)


def test_tau_is_the_best_on_validation_and_of_equals_the_smallest(fabricate):
    _, data = load(fabricate(clips=20))
    spec = ModelSpec(streams={"audio": StreamSpec(width=2)}, width=8, heads=2, classes=("many", "few"))
    model = EmotionModel(spec)
    prior = log_prior(torch.tensor([0] * 9 + [1]), 2)
    torch.testing.assert_close(prior.exp(), torch.tensor([0.9, 0.1]))
    truth = torch.tensor([0, 0, 0, 1, 1])
    targets = data.targets(torch.arange(5))._replace(emotion=truth)
    logits = torch.tensor([[3.0, 0.0]] * 3 + [[1.0, 0.0]] * 2)  # the few are never the answer: 2.2 τ must exceed 1, not 3
    assert choose_shift(model, prior, logits, targets, (0.0, 0.3, 0.6, 0.9, 2.0), "uar") == 0.6
    torch.testing.assert_close(model.shift, 0.6 * prior)
    predicted = (logits - model.shift).argmax(1)
    assert metrics.uar(metrics.confusion(truth, predicted, 2)) == 1
    assert choose_shift(model, prior, logits[:3], targets._replace(emotion=truth[:3]), (0.6, 0.0), "uar") == 0


def test_tau_is_part_of_what_a_run_saves(fabricate):
    params, data = load(fabricate(clips=60), training={"epochs": 2, "tau": [3.0]})
    plain, _ = learn(params.model_copy(update={"training": params.training.model_copy(update={"tau": ()})}), data)
    model, _ = learn(params, data)
    prior = log_prior(data.emotion[data.rows("train")], 4)
    torch.testing.assert_close(model.shift, 3 * prior)
    inputs = data.batch(torch.arange(5), tuple(model.spec.streams))
    torch.testing.assert_close(model(inputs)["emotion"], plain(inputs)["emotion"] - 3 * prior)
    assert torch.equal(model.trainable()["shift"], model.shift)


@pytest.mark.parametrize("shape", [(40, 9), (30, 60)])
def test_logistic_regression_is_that_of_the_library(shape):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=shape) * np.logspace(0, 2, shape[1]) / 10 + 3
    truth = np.arange(shape[0]) % 3
    weight, bias = fit_logistic(vectors, truth, 0.1)
    library = LogisticRegression(C=1 / (0.1 * shape[0]), max_iter=50000, tol=1e-10).fit(vectors, truth)
    np.testing.assert_allclose(weight, library.coef_, atol=2e-3)
    found = vectors @ weight.T + bias
    chance = np.exp(found) / np.exp(found).sum(1, keepdims=True)
    np.testing.assert_allclose(chance, library.predict_proba(vectors), atol=1e-3)
