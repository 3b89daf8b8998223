"""Rows (N, D) whose N is places of a picture: from the store to a prediction, none of them has a meaning of its own."""

import h5py
import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import StoreError
from pipeline.models.batch import Tokens
from pipeline.models.pooled import pool_tokens
from pipeline.models.spec import StreamSpec
from pipeline.models.stream import Places, StreamEncoder
from pipeline.runs.predict import predict_clip
from pipeline.runs.run import load_run
from pipeline.storage import seal
from pipeline.storage.axis import axis_of
from pipeline.storage.feature_store import Store
from pipeline.training.data.dataset import Dataset
from pipeline.training.stage import train


def load(corpus, **groups):
    params = corpus.params(**groups)
    return Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)


def change(path, **attributes):
    """The store with other attributes; None takes one away."""
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value
        del file.attrs["seal"]
        seal.seal(file)


@pytest.mark.parametrize("axis", ["layer", "space"])
def test_places_share_a_mean_and_deviation_and_layers_have_their_own(fabricate, axis):
    corpus = fabricate(clips=20, levels=3, axis=axis)
    store = Store(corpus.path("features/audio.h5"))
    with h5py.File(corpus.index()) as file:
        mean, std = file["streams/audio/mean"][0], file["streams/audio/std"][0]
        assert file["streams/audio"].attrs["axis"] == axis and file["streams/text"].attrs["axis"] == ""
    learned = corpus.roles.filter(pl.col("role") == "train")["id"]
    rows = np.concatenate([store[clip].values for clip in learned]).astype(np.float64)
    over = (0, 1) if axis == "space" else 0
    np.testing.assert_allclose(mean, rows.mean(over), rtol=1e-5)
    np.testing.assert_allclose(std, rows.std(over), rtol=1e-5)


@pytest.mark.parametrize(
    ("identity", "axis"),
    [
        ('{"family": "whisper", "layer": "all"}', "layer"),
        ('{"family": "whisper", "layer": [2, 3, 4]}', "layer"),
        ('{"family": "eva", "layer": -1}', "space"),
        ('{"family": "vit", "layer": {"sum": [1, 2]}}', "space"),
        ('{"family": "import", "layer": -1}', None),
        ('{"weights": {}}', None),
    ],
)
def test_a_store_of_before_is_told_by_its_identity_or_is_one_line(fabricate, identity, axis):
    corpus = fabricate(clips=20, levels=3)
    path = corpus.path("features/audio.h5")
    change(path, axis=None, identity=identity)
    if axis is None:
        with pytest.raises(StoreError, match=r"audio.h5 does not say whether rows of \(3, 6\) are layers or places") as caught:
            corpus.index()
        assert "dvc repro -f -s extract@audio" in str(caught.value) and "\n" not in str(caught.value)
    else:
        assert axis_of(Store(path)) == axis


def test_a_row_per_clip_is_of_the_mean_over_places(fabricate):
    corpus = fabricate(clips=20, levels=3, axis="space")
    data, spec = load(corpus), StreamSpec(width=6, levels=3, axis="space", pooling="statistics")
    assert spec.reads == 12
    read, stream = data.read({"audio": spec}).streams["audio"], data.streams["audio"]
    for row in range(20):
        tokens = stream.values[stream.offsets[row] : stream.offsets[row + 1]].double().numpy().mean(1)
        found = read.values[read.offsets[row] : read.offsets[row + 1]]
        np.testing.assert_allclose(found, [np.concatenate([tokens.mean(0), tokens.std(0)])], atol=1e-5)
    store, average = Store(corpus.path("features/audio.h5")), stream.average()
    for i, clip in enumerate(corpus.ids):
        np.testing.assert_allclose(average[i], store[clip].values.astype(np.float64).mean((0, 1)), rtol=1e-4)


def test_places_are_normalised_together_within_a_speaker(fabricate):
    corpus = fabricate(clips=30, levels=3, axis="space")
    data, spec = load(corpus, training={"normalise": "speaker"}), StreamSpec(width=6, levels=3, axis="space")
    read, raw = data.read({"audio": spec}).streams["audio"], data.streams["audio"]
    speaker = torch.tensor([i % 6 for i in range(30)]).repeat_interleave(read.offsets.diff())
    for number in range(6):
        rows = raw.values[speaker == number].double()
        wanted = (rows - rows.mean((0, 1))) / rows.std((0, 1), unbiased=False)
        torch.testing.assert_close(read.values[speaker == number].double(), wanted, atol=1e-4, rtol=1e-4)


def test_places_are_attended_wherever_they_are():
    torch.manual_seed(0)
    values, places = torch.randn(2, 4, 5, 6), Places(6)
    torch.testing.assert_close(places(values), values.mean(2))  # nothing is asked for yet
    torch.nn.init.normal_(places.query, std=3.0)
    # By hand: softmax over places of ⟨query, standardised place⟩ / √D.
    plain = values.double()
    standard = (plain - plain.mean(-1, keepdim=True)) / (plain.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    weights = ((standard * places.query.double()).sum(-1) / 6**0.5).softmax(-1)
    torch.testing.assert_close(places(values).double(), (weights[..., None] * plain).sum(2), atol=1e-5, rtol=1e-5)
    assert (places(values) - values.mean(2)).abs().max() > 0.1


@pytest.mark.parametrize("axis", ["layer", "space"])
@pytest.mark.parametrize("pooling", ["none", "mean", "statistics"])
def test_the_order_of_places_says_nothing_and_that_of_layers_does(axis, pooling):
    torch.manual_seed(0)
    tokens = Tokens(torch.randn(2, 4, 5, 6), torch.tensor([[True] * 4, [True, True, False, False]]), torch.rand(2, 4, 2))
    shuffled = tokens._replace(values=tokens.values[:, :, torch.tensor([3, 0, 4, 1, 2])])
    if pooling == "none":
        encoder = StreamEncoder(6, 8, 1, 2, 0.0, 5, axis=axis).eval()
        for value in encoder.parameters():
            torch.nn.init.normal_(value)
        first, second = (encoder(one).values for one in (tokens, shuffled))
        with torch.no_grad():  # what stands at padded rows is nothing
            filled = tokens.values.masked_fill(~tokens.mask[..., None, None], 7.0)
            torch.testing.assert_close(encoder(tokens._replace(values=filled)).values, first)
    else:
        first, second = (pool_tokens(one, pooling, axis).values for one in (tokens, shuffled))
    same = torch.allclose(first, second, atol=1e-5)
    assert same == (axis == "space")


@pytest.mark.parametrize("pooling", ["none", "statistics"])
def test_a_trained_model_predicts_alike_wherever_the_places_are(fabricate, pooling):
    corpus = fabricate(clips=40, levels=3, axis="space")
    training = {"epochs": 2, "linear": {"penalty": 0.1}}
    params = corpus.params(training=training, temporal={"pooling": pooling})
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    stores = {name: Store(corpus.path(f"features/{name}.h5")) for name in corpus.widths}
    for folder in ("fused", "linear"):
        run = load_run(next(corpus.path(f"models/runs/{folder}/fold0").iterdir()))
        assert run.model.spec.streams["audio"].axis == "space"
        for clip in corpus.ids[:5]:
            features = {name: (store[clip].values, store[clip].times) for name, store in stores.items()}
            values, times = features["audio"]
            first, second, other = (
                predict_clip(run, features | {"audio": (one, times)}).probabilities
                for one in (values, values[:, [2, 0, 1]], values + np.arange(6, dtype=np.float32))
            )
            np.testing.assert_allclose(first, second, atol=1e-5)
            assert np.abs(first - other).max() > 1e-4
