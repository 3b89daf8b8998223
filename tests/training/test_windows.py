"""Windows: random in training, the same seconds of every stream; in prediction every token, a clip alone as in a batch."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.batch import Tokens, name_variance, shorten
from pipeline.models.model import EmotionModel
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec, WindowSpec
from pipeline.models.windows import join_windows, list_starts, locate, thin
from pipeline.runs.inputs import join_tokens
from pipeline.runs.predict import ask_model, predict_clip
from pipeline.runs.run import TrainedModel
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.resident import Resident
from pipeline.training.data.views import predict_view, predict_views
from pipeline.training.data.windows import choose_limit, choose_window, cut_clips
from pipeline.training.loop import fit
from pipeline.training.variants import list_variants, specify_model

WINDOW = WindowSpec(tokens=6, stride=4, most=9)
STREAMS = {"video": 4, "audio": 3}


def film(length, width, seconds, seed):
    times = torch.arange(length, dtype=torch.float32) * seconds
    values = torch.randn(length, width, generator=torch.Generator().manual_seed(seed))
    return values, torch.stack([times, times + seconds], -1)


def resident(parts, targets=None, views=()):
    values, times = (torch.cat([part[k] for part in parts]) for k in (0, 1))
    offsets = torch.tensor([0, *(len(part[0]) for part in parts)]).cumsum(0)
    width = values.shape[1]
    return Resident(values, times, offsets, targets, np.zeros(width, np.float32), np.ones(width, np.float32), {}, views)


#: Frames of each clip, half a second each; sound comes four times as often. The last clip has no picture.
LENGTHS = (3, 6, 7, 20, 11, 0)


def films(sound=0.125):
    count = [round(max(n, 8) * 0.5 / sound) for n in LENGTHS]
    video = [film(n, 4, 0.5, i) for i, n in enumerate(LENGTHS)]
    targets = torch.cat([torch.stack([part[1].mean(1) + 100 * i, part[1].mean(1)], -1) for i, part in enumerate(video)])
    audio = [film(n, 3, sound, 50 + i) for i, n in enumerate(count)]
    return {"video": resident(video, targets), "audio": resident(audio, torch.zeros(sum(count), 2))}


def data_of(streams):
    size = len(LENGTHS)
    empty = torch.full((size, 2), torch.nan)
    return Dataset(
        ids=[str(i) for i in range(size)],
        roles=np.array(["train"] * size),
        streams=streams,
        emotion=torch.full((size,), -1),
        dimensions=empty,
        classes=(),
        dimension_names=("valence", "arousal"),
        domain={},
        domains={},
        turns=torch.full((size, 3), -1),
        table=pl.DataFrame({"id": [], "labels": []}),
        fold=0,
        folds=None,
    )


def make(window=WINDOW, base="video", uncertain=False, **changes):
    torch.manual_seed(0)
    options = {"uncertainty": True} if uncertain else {}
    outputs = {name: OutputSpec(name=name, size=2, options=options) for name in ("dimensions", "frames")}
    fields = {
        "streams": {name: StreamSpec(width=width) for name, width in STREAMS.items()},
        "width": 16,
        "heads": 2,
        "outputs": outputs | {"emotion": OutputSpec(name="emotion", size=3)},
        "classes": ("a", "b", "c"),
        "dimensions": ("valence", "arousal"),
        "base": base,
        "window": window,
        "temporal": PartSpec(name="tcn"),
    }
    return EmotionModel(ModelSpec(**{**fields, **changes})).eval()


@pytest.mark.parametrize(
    ("length", "tokens", "stride"), [(1, 4, 2), (4, 4, 4), (5, 4, 4), (9, 4, 4), (10, 4, 3), (100, 16, 8), (7, 2, 1)]
)
def test_no_token_is_uncovered_and_every_window_is_full(length, tokens, stride):
    starts = list_starts(length, WindowSpec(tokens=tokens, stride=stride, most=tokens))
    seen = np.zeros(length, int)
    for start in starts:
        seen[start : start + tokens] += 1
    assert seen.min() >= 1 and starts == sorted(set(starts)) and (length <= tokens or starts[-1] + tokens == length)


@pytest.mark.parametrize("limit", [1, 3, 7, 8, 30])
def test_thinning_a_batch_is_shortening_each_clip(limit):
    parts = [film(n, 3, 0.2, n) for n in (1, 7, 8, 15, 31)]
    whole = join_tokens([Tokens(v[None], torch.ones(1, len(v)).bool(), t[None]) for v, t in parts])
    found = thin(whole, limit)
    for i, (values, times) in enumerate(parts):
        expected = shorten(values.numpy(), times.numpy(), limit)
        here = found.mask[i]
        torch.testing.assert_close(found.values[i, here], torch.from_numpy(expected[0]).float(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found.times[i, here], torch.from_numpy(expected[1]))
        assert (found.values[i, ~here] == 0).all()


def test_a_window_is_the_same_seconds_of_every_stream_and_of_the_truth():
    streams, spec, rows = films(), make().spec, torch.arange(len(LENGTHS))
    data = data_of(streams)
    cut = cut_clips(streams, spec, rows, draw=torch.Generator().manual_seed(3))
    inputs = data.batch(rows, STREAMS, cut=replace(cut, window=WINDOW.model_copy(update={"most": 99})))
    truth = data.targets(rows, "video", cut=cut).frames
    video, audio = inputs.streams["video"], inputs.streams["audio"]
    for i, length in enumerate(LENGTHS[:-1]):
        kept = min(length, WINDOW.tokens)
        assert int(video.mask[i].sum()) == kept
        begin = 0.5 * int(cut.first[i])
        torch.testing.assert_close(video.times[i, :kept].mean(-1), 0.5 * torch.arange(kept) + 0.25)  # the window's own seconds
        torch.testing.assert_close(truth[i, :kept, 1] - begin, 0.5 * torch.arange(kept) + 0.25)
        assert (truth[i, :kept, 0].round() // 100 == i).all()
        sound = audio.times[i][audio.mask[i]]
        if length > WINDOW.tokens:
            torch.testing.assert_close(sound[[0, -1], [0, 1]], torch.tensor([0.0, 3.0]))
            place = streams["audio"].offsets[i] + round(begin / 0.125)
            assert torch.equal(audio.values[i, 0], streams["audio"].values[place])
    assert int(audio.mask[5].sum()) == WINDOW.tokens and not video.mask[5].any()  # what is left leads
    assert torch.isnan(truth[5]).all()
    thinned = data.batch(rows, STREAMS, cut=cut).streams["audio"]
    assert thinned.mask.shape[1] == WINDOW.most and thinned.mask[3].all()


def test_windows_are_drawn_evenly_by_seed_and_reach_both_ends():
    streams, spec = films(), make().spec
    rows = torch.full((600,), 3)

    def draw(seed):
        return cut_clips(streams, spec, rows, draw=torch.Generator().manual_seed(seed)).first

    counts = torch.bincount(draw(0), minlength=15)
    assert len(counts) == 15 and counts.min() > 15
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    order = torch.Generator().manual_seed(0)
    cut_clips(streams, spec, torch.tensor([0, 1]), draw=order)  # short clips leave nothing to chance
    assert torch.equal(order.get_state(), torch.Generator().manual_seed(0).get_state())


def test_frames_of_a_window_are_of_one_view_and_none_is_drawn_over_time_that_moves_them():
    plain = films()["video"]
    seen = replace(
        plain,
        values=torch.cat([plain.values, plain.values + 1000, plain.values + 2000]),
        times=plain.times.repeat(3, 1),
        offsets=torch.cat([plain.offsets, plain.offsets[1:] + len(plain.values), plain.offsets[1:] + 2 * len(plain.values)]),
        targets=plain.targets.repeat(3, 1),
        views=("speed:0.9", "brightness:0.8"),
    )
    data, spec, rows = data_of(films() | {"video": seen}), make().spec, torch.arange(5).repeat(8)
    order = torch.Generator().manual_seed(0)
    cut = cut_clips(data.streams, spec, rows, draw=order)
    tokens = data.batch(rows, ["video"], draw=order, cut=cut).streams["video"]
    kinds = (tokens.values[..., 0] / 1000).round().masked_fill(~tokens.mask, torch.nan)
    first = kinds[:, :1].expand_as(kinds)
    assert ((kinds == first) | ~tokens.mask).all() and set(first[:, 0].tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("uncertain", [False, True])
def test_every_frame_is_the_mean_of_its_windows_once_and_twice_the_same(uncertain):
    model, data = make(uncertain=uncertain), data_of(films())
    rows = torch.tensor([3, 0, 4, 5, 2])
    found = predict_view(model, data, rows, size=3)
    assert all(torch.equal(value, predict_view(model, data, rows, size=3)[name]) for name, value in found.items())
    assert found["frames"].shape == (5, 20, 2) and torch.isfinite(found["frames"]).all()
    for i, row in enumerate(rows.tolist()):
        alone = predict_view(model, data, torch.tensor([row]))
        for name, value in alone.items():
            part = found[name][i, : value.shape[1]] if name.startswith("frames") else found[name][i]
            torch.testing.assert_close(part, value[0], atol=1e-5, rtol=0)
    # By hand, of the clip of twenty frames.
    total, square, count, chances = torch.zeros(20, 2), torch.zeros(20, 2), torch.zeros(20, 1), []
    for start in (0, 4, 8, 12, 14):
        cut = cut_clips(data.streams, model.spec, rows[:1], torch.tensor([start]))
        out = model(data.batch(rows[:1], STREAMS, cut=cut))
        total[start : start + 6] += out["frames"][0].detach()
        count[start : start + 6] += 1
        chances.append(out["emotion"][0].softmax(-1))
        if uncertain:
            square[start : start + 6] += (out[name_variance("frames")].exp() + out["frames"] ** 2)[0].detach()
    torch.testing.assert_close(found["frames"][0], total / count, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["emotion"][0].exp(), torch.stack(chances).mean(0), atol=1e-5, rtol=0)
    if uncertain:
        variance = square / count - (total / count) ** 2
        torch.testing.assert_close(found[name_variance("frames")][0].exp(), variance, atol=1e-5, rtol=0)


def test_clips_no_longer_than_a_window_are_whole_and_predicted_as_without_one():
    data, rows = data_of(films(sound=0.5)), torch.tensor([0, 1])
    with_window, without = make(), make(window=None)
    found, expected = (predict_views(model, data, rows) for model in (with_window, without))
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("row", [0, 2, 3, 5])
def test_raw_features_of_one_clip_are_predicted_as_stored_ones(row):
    model, streams = make(uncertain=True), films()
    data = data_of(streams)
    config = {"normalise": "train", "max_tokens": None}
    run = TrainedModel(config, model, {name: (one.mean, one.std) for name, one in streams.items()})
    features = {}
    for name, one in streams.items():
        low, high = one.offsets[row], one.offsets[row + 1]
        if high > low:
            features[name] = one.values[low:high].numpy(), one.times[low:high].numpy()
    estimate, stored = predict_clip(run, features), predict_view(model, data, torch.tensor([row]))
    np.testing.assert_allclose(estimate.probabilities, stored["emotion"][0].softmax(0), atol=1e-5)
    np.testing.assert_allclose(estimate.dimensions, stored["dimensions"][0], atol=1e-5)
    if LENGTHS[row]:
        assert estimate.trace.shape == (LENGTHS[row], 2)
        np.testing.assert_allclose(estimate.trace, stored["frames"][0], atol=1e-5)
        np.testing.assert_allclose(estimate.spread, (stored[name_variance("frames")][0] / 2).exp(), atol=1e-5)
        np.testing.assert_allclose(estimate.times, features["video"][1])
    else:
        assert estimate.trace is None and estimate.spread is None


def test_a_batch_of_several_clips_is_asked_as_it_is():
    model, data = make(), data_of(films(sound=0.5))
    inputs = data.batch(torch.tensor([0, 1]), STREAMS)
    assert torch.equal(ask_model(model, inputs)["frames"], model(inputs)["frames"])


def test_tokens_without_length_belong_to_where_they_are():
    times = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    first, count = locate(times, torch.ones(1, 3).bool(), torch.tensor([[1.5, 3.0], [5.0, 6.0]]))
    assert first.tolist()[0] == 1 and count.tolist() == [1, 0]


def test_a_clip_whose_windows_are_one_gets_what_that_window_says():
    values = {"frames": torch.tensor([[[0.5], [0.25], [9.0]]]), "embedding": torch.tensor([[3.0]])}
    found = join_windows(values, torch.tensor([0]), torch.tensor([0]), torch.tensor([2]), WINDOW)
    assert found["frames"].tolist() == [[[0.5], [0.25]]] and found["embedding"].tolist() == [[3.0]]


def test_over_time_clips_are_never_thinned_and_with_a_context_never_cut(fabricate):
    corpus = fabricate(clips=6)
    small = {"max_tokens": 4}
    over_time = corpus.params(task={"level": "frame"}, temporal=small)
    assert choose_window(over_time) == WindowSpec(tokens=4, stride=2, most=4) and choose_limit(over_time) is None
    assert choose_window(corpus.params(temporal=small)) is None and choose_limit(corpus.params(temporal=small)) == 4
    chosen = corpus.params(temporal={"window": {"tokens": 3, "stride": 1}})
    assert choose_window(chosen) == WindowSpec(tokens=3, stride=1, most=256)
    turns = {"name": "gru", "options": {}}
    assert choose_limit(corpus.params(task={"level": "frame"}, context=turns)) == 256
    with pytest.raises(ParamsError, match=r"temporal\.window and a context"):
        choose_window(corpus.params(temporal={"window": {"tokens": 3}}, context=turns))
    for wrong, said in (
        ({"window": {"tokens": 4, "stride": 5}}, "between two windows nothing is predicted"),
        ({"window": {"tokens": 300}}, "more than max_tokens"),
        ({"window": {"tokens": 4}, "pooling": "mean"}, "take pooling none"),
        ({"window": {"tokns": 4}}, "tokns"),
    ):
        with pytest.raises(ParamsError, match=said):
            corpus.params(temporal=wrong)


def test_a_run_with_windows_goes_on_to_the_same_bits_after_a_kill(fabricate, tmp_path):
    corpus = fabricate(clips=24)
    temporal = {"kind": "gru", "causal": True, "window": {"tokens": 3, "stride": 2}}
    loss = {"frames": {"name": "concordance"}, "sure": {"name": "gaussian", "on": "frames"}}
    params = corpus.params(
        task={"level": "frame", "emotion": False}, temporal=temporal, loss=loss, training={"epochs": 3, "select": "ccc"}
    )
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    assert max(int(one.lengths.max()) for one in data.streams.values()) > 3
    spec = specify_model(params, list_variants(params)[0], data)
    assert spec.outputs["frames"].options == {"uncertainty": True} and spec.causal and spec.temporal.name == "gru"
    whole, _ = fit(spec, data, params, 0)

    def kill(progress):
        if progress.epoch == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0, on_epoch=kill)
    resumed, _ = fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_how_sure_a_head_is_needs_the_loss_that_teaches_it(fabricate):
    corpus = fabricate(clips=6)
    groups = {"task": {"level": "frame"}, "heads": {"frames": {"name": "frames", "options": {"uncertainty": True}}}}
    data = Dataset.load(corpus.index(), params=corpus.params(**groups), fold=0, **corpus.files)
    with pytest.raises(ParamsError, match=r"heads\.frames\.options\.uncertainty is true, but no loss teaches it"):
        specify_model(corpus.params(**groups), list_variants(corpus.params())[0], data)
