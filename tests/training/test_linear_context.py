"""The linear model's context against vectors put together by hand; what lies in the future, and what is not known."""

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.evaluation.evaluate import evaluate
from pipeline.features.encoders.extractor import Turn
from pipeline.models.batch import drop_streams
from pipeline.runs.predict import Before, predict_clip
from pipeline.runs.run import load_run
from pipeline.serving.dialogue import name_voices
from pipeline.storage import tables
from pipeline.storage.feature_store import Store
from pipeline.training.data.dataset import Dataset
from pipeline.training.linear import fit_linear
from pipeline.training.stage import train
from pipeline.training.variants import list_variants, specify_model

CONTEXT = {"previous": 0.3, "before": 0.2, "own": 0.4, "turns": 4}
#: Who speaks the six turns of each dialogue; nobody knows who the fourth is.
SPEAKERS = ("Ann", "Ben", "Cid", None, "Ann", "Cid")
#: Turn → that before, the one before that, the speaker's own last.
EARLIER = {0: (None, None, None), 1: (0, None, None), 2: (1, 0, None), 3: (2, 1, None), 4: (3, 2, 0), 5: (4, 3, 2)}


@pytest.fixture
def dialogues(fabricate):
    """Six turns to a dialogue, the speaker of every turn known but one; the third turns carry no label and are in no fold."""
    corpus = fabricate(clips=180, noise=0.2)
    rows = tables.read(corpus.files["manifest"]).to_dicts()
    roles = {}
    for i, row in enumerate(rows):
        row |= {"dialogue": f"d{i // 6}", "turn": 10 * (i % 6), "speaker": SPEAKERS[i % 6], "target": i % 6 != 2}
        said = corpus.classes[i - 1] // 2 if i % 6 else corpus.classes[i] // 2
        roles[row["id"]] = {0: "test", 1: "val"}.get((i // 6) % 5, "train")
        row["emotion"] = ("anger", "joy")[said] if row["target"] and roles[row["id"]] != "test" else None
        row |= {} if row["target"] else dict.fromkeys(("valence", "arousal"))
    tables.write(tables.frame(rows), corpus.files["manifest"])
    kept = corpus.roles.with_columns(role=corpus.roles["id"].replace_strict(roles), part=pl.lit(None, pl.Int64))
    tables.write(kept.filter(pl.Series([i % 6 != 2 for i in range(180)])), corpus.files["folds"], sort=("fold", "id"))
    return corpus


def prepare(corpus, context=CONTEXT, **training):
    params = corpus.params(training={"linear": {"penalty": 0.1, "context": context}, **training})
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    spec = specify_model(params, next(one for one in list_variants(params) if one.linear), data)
    return params, data.read(spec.streams), spec


def rows_by_hand(model, data):
    """(N, D) standardised mean and deviation of each clip's tokens, and (N,) whether it has any stream."""
    blocks, present = [], np.zeros(len(data.ids), bool)
    for name, part in model.standardise.items():
        stream = data.streams[name]
        tokens = [stream.values[stream.offsets[i] : stream.offsets[i + 1]].flatten(1) for i in range(len(data.ids))]
        here = np.array([len(one) > 0 for one in tokens])
        found = np.stack([one.mean(0).numpy() if len(one) else part.centre.numpy() for one in tokens])
        blocks.append((found - part.centre.numpy()) * part.scale.numpy())
        present |= here
    return np.concatenate(blocks, 1), present


def test_the_vectors_are_those_put_together_by_hand(dialogues):
    params, data, spec = prepare(dialogues)
    model, _ = fit_linear(spec, data, params)
    assert spec.turns == (4, 0) and spec.earlier == (("previous", 0.3), ("before", 0.2), ("own", 0.4))
    own, present = rows_by_hand(model, data)
    width = own.shape[1]
    rows = data.rows("train", "val", "test")
    embedded = model(data.batch(rows, spec.streams, spec.turns))["embedding"].numpy()
    assert embedded.shape == (150, model.width) == (150, 4 * width + 3)
    for found, row in zip(embedded, rows.tolist(), strict=True):
        begin = row - row % 6
        parts = [own[row]]
        for turn, weight in zip(EARLIER[row % 6], (0.3, 0.2, 0.4), strict=True):
            known = turn is not None and present[begin + turn]
            parts += [weight * own[begin + turn] if known else np.zeros(width), [0.0 if known else 1.0]]
        np.testing.assert_allclose(found, np.concatenate(parts), atol=2e-5)


def test_one_that_is_0_is_not_read_and_own_is_looked_for_within_the_turns(dialogues):
    params, data, spec = prepare(dialogues, {"previous": 0.0, "before": 0.0, "own": 1.0, "turns": 3})
    model, _ = fit_linear(spec, data, params)
    own, _ = rows_by_hand(model, data)
    embedded = model(data.batch(torch.tensor([4, 5]), spec.streams, spec.turns))["embedding"].numpy()
    assert spec.earlier == (("own", 1.0),) and embedded.shape[1] == 2 * own.shape[1] + 1
    assert embedded[0, -1] == 1 and not embedded[0, own.shape[1] : -1].any()  # four turns ago
    np.testing.assert_allclose(embedded[1, own.shape[1] : -1], own[2], atol=2e-5)


def test_the_future_changes_nothing_and_the_past_does(dialogues):
    params, data, spec = prepare(dialogues)
    model, _ = fit_linear(spec, data, params)
    rows = torch.tensor([0, 1, 3, 4, 5, 7])
    before = model(data.batch(rows, spec.streams, spec.turns))["emotion"]
    for stream in data.streams.values():
        stream.values[stream.offsets[4] : stream.offsets[5]] *= -3
    after = model(data.batch(rows, spec.streams, spec.turns))["emotion"]
    same = (after == before).all(1).tolist()
    assert same == [True, True, True, False, False, True]
    later = data.find_turns(rows, (4, 3))  # a history that reaches into the future is read up to the clip alone
    everything = data.batch(torch.arange(180), spec.streams)._replace(history=later)
    torch.testing.assert_close(model(everything)["emotion"], after, atol=1e-5, rtol=1e-5)


def test_a_turn_of_which_nothing_is_known_is_as_none(dialogues):
    params, data, spec = prepare(dialogues)
    model, _ = fit_linear(spec, data, params)
    batch = drop_streams(data.batch(torch.tensor([5]), spec.streams, spec.turns), spec.streams)
    width = (model.width - 3) // 4
    wanted = torch.zeros(1, model.width)
    wanted[0, [2 * width, 3 * width + 1, 4 * width + 2]] = 1
    assert torch.equal(model(batch)["embedding"], wanted)
    alone = data.batch(torch.tensor([5]), spec.streams)
    assert torch.equal(model(alone)["embedding"][:, width:], wanted[:, width:])


def test_alone_is_as_in_a_batch(dialogues):
    params, data, spec = prepare(dialogues)
    model, _ = fit_linear(spec, data, params)
    rows = data.rows("train", "test")
    together = model(data.batch(rows, spec.streams, spec.turns))["emotion"]
    alone = torch.cat([model(data.batch(row[None], spec.streams, spec.turns))["emotion"] for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_trained_evaluated_and_predicted_with_the_turns_before(dialogues):
    """Only the turn before tells the class; and what is predicted from turns given one by one is what was evaluated."""
    corpus = dialogues
    held_out = [i for i in range(180) if i // 6 % 5 == 0 and i % 6 != 2]
    truth = [{"id": corpus.ids[i], "emotion": ("anger", "joy")[corpus.classes[max(i - 1, i // 6 * 6)] // 2]} for i in held_out]
    tables.write(tables.frame(truth).select("id", *tables.LABELS), corpus.path("data/truth.parquet"))
    scores = {}
    for name, context in (("with", CONTEXT | {"previous": 1.0}), ("without", None)):
        params, data, spec = prepare(corpus, context, ensemble={"linear": True}, epochs=1)
        index = corpus.path("data/index.h5")
        train(params, index, **corpus.files, out=corpus.path(f"models/{name}"))
        result = evaluate(
            params,
            index,
            truth=corpus.path("data/truth.parquet"),
            manifest=corpus.files["manifest"],
            truth_annotations=corpus.path("data/truth_annotations.parquet"),
            folds=corpus.files["folds"],
            runs=corpus.path(f"models/{name}"),
            out=corpus.path(f"reports/{name}"),
        )
        scores[name] = result["linear"]["uar"]["mean"]
        assert "ensemble" in result
    assert scores["with"] > 0.85 and scores["with"] > scores["without"] + 0.1
    params, data, spec = prepare(corpus, CONTEXT | {"previous": 1.0})
    run = load_run(corpus.path("models/with/linear/fold0/seed0"))
    stores = {name: Store(corpus.path(f"features/{name}.h5")) for name in run.streams}

    def read(clip):
        entries = {name: store[corpus.ids[clip]] for name, store in stores.items()}
        return {name: (entry.values, entry.times) for name, entry in entries.items() if len(entry.values)}

    said = [Turn(speaker, "…") for speaker in SPEAKERS]
    before = [Before(read(i), voice) for i, voice in enumerate(name_voices(said[:5], "Cid"))]
    expected = run.model(data.batch(torch.tensor([5]), spec.streams, spec.turns))["emotion"].softmax(1)[0].detach().numpy()
    np.testing.assert_allclose(predict_clip(run, read(5), before, 0).probabilities, expected, atol=1e-5)
    assert np.abs(predict_clip(run, read(5)).probabilities - expected).max() > 0.02


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"previous": 0, "before": 0, "own": 0}, "say context: null"),
        ({"turns": 1}, "it is two turns back"),
        ({"previuos": 0.3}, "training.linear.context.previuos"),
        ({"own": -0.3}, "own"),
        ({"turns": 0}, "turns"),
    ],
)
def test_a_context_that_cannot_be_is_one_line(dialogues, context, said):
    with pytest.raises(ParamsError, match=said) as caught:
        prepare(dialogues, context)
    assert "\n" not in str(caught.value)
