"""Terms of the loss and the heads they build: embeddings, auxiliary heads, several tasks, memory and resume."""

import json

import polars as pl
import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.losses.base import ClassLoss
from pipeline.models.registry import LOSSES
from pipeline.storage import tables
from pipeline.training.data.dataset import Dataset
from pipeline.training.loop import fit
from pipeline.training.objective import Objective
from pipeline.training.variants import list_variants, specify_model

CLASSES = [name for name in sorted(LOSSES) if issubclass(LOSSES.find(name), ClassLoss)]
CONTRAST = {"name": "supervised_contrastive", "options": {"queue": 20}}


def prepare(corpus, **groups):
    params = corpus.params(**groups)
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    return params, data, specify_model(params, list_variants(params)[0], data)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    from tests.fabricated import Fabricated

    return Fabricated(tmp_path_factory.mktemp("objective"), clips=40)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_loss_beside_dimensions_a_stream_alone_and_an_adversary(corpus, name):
    loss = {
        "emotion": {"name": name},
        "audio": {"name": name, "on": "emotion@audio", "weight": 0.3},
        "speaker": {"name": name, "weight": 0.1},
        "dimensions": {"name": "squared_error"},
    }
    dimensions = ["valence", "arousal", "dominance"]
    params, data, spec = prepare(corpus, loss=loss, task={"dimensions": dimensions}, training={"epochs": 1})
    model, progress = fit(spec, data, params, 0)
    assert set(model.heads) == {"emotion", "emotion@audio", "speaker", "dimensions"}
    assert torch.isfinite(torch.tensor(progress.history[0]["train_loss"]))
    objective = Objective(params.loss, spec)
    objective.observe(data.targets(data.rows("train")))
    outputs, targets = model.train()(data.batch(data.rows("train"), spec.streams)), data.targets(data.rows("train"))
    terms = {key: objective.weights[key] * term(outputs, targets) for key, term in objective.terms.items()}
    torch.testing.assert_close(objective(outputs, targets), sum(terms.values()))
    objective(outputs, targets).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def test_clips_of_several_classes_teach_each_of_them(fabricate):
    """What only the second label of a clip says is learned, and is in the identity of a run."""
    corpus = fabricate(clips=60, folds=5)
    loss = {"emotion": {"name": "multilabel"}}
    one = prepare(corpus, loss=loss)[1]
    table = tables.read(corpus.files["manifest"])
    given = [json.dumps({"emotions": [name, "sadness"]}) if name == "joy" else None for name in table["emotion"]]
    tables.write(table.with_columns(labels=pl.Series(given, dtype=pl.String)), corpus.files["manifest"])
    two = prepare(corpus, loss=loss)[1]
    assert one.fingerprint([]) != two.fingerprint([])
    rows = two.rows("train", "val", "test")
    sets, emotion = two.targets(rows).several, two.emotion
    wanted = torch.nn.functional.one_hot(emotion.clamp(min=0), 4).bool() & (emotion >= 0)[:, None]
    wanted[:, two.classes.index("sadness")] |= emotion == two.classes.index("joy")
    assert torch.equal(sets, wanted) and one.targets(rows).several is None
    # Nothing of a held-out clip, whatever the manifest holds.
    assert not sets[two.rows("test")].any()


def test_a_term_on_the_projection_builds_its_head_and_one_on_the_embedding_none(corpus):
    loss = {
        "emotion": {"name": "cross_entropy"},
        "projection": CONTRAST,
        "sound": {"name": "triplet", "on": "projection@audio", "weight": 0.2},
        "fused": {"name": "prototype", "on": "embedding", "weight": 0.2},
    }
    params, data, spec = prepare(corpus, loss=loss, task={"dimensions": []}, training={"epochs": 2, "unimodal": True})
    model, _ = fit(spec, data, params, 0)
    assert set(model.heads) == {"emotion", "projection", "projection@audio"}
    outputs = model(data.batch(data.rows("val"), spec.streams))
    for name in ("projection", "projection@audio"):
        assert outputs[name].shape == (8, params.temporal.width)
        torch.testing.assert_close(outputs[name].norm(dim=1), torch.ones(8))
    alone = specify_model(params, list_variants(params)[-1], data).outputs
    assert set(alone) == {"emotion", "projection"}  # of a lone stream it is the projection itself


def test_contrast_alone_draws_clips_of_a_class_together(corpus):
    def nearness(epochs):
        loss = {"projection": CONTRAST | {"options": {"temperature": 0.5}}}
        training = {"lr": 3e-3, "select": "loss", "phases": [{"name": "contrast", "loss": loss, "epochs": epochs}]}
        params, data, spec = prepare(corpus, training=training)
        model, _ = fit(spec, data, params, 0)
        rows = data.rows("train")
        vectors = model(data.batch(rows, spec.streams))["projection"].detach()
        same = data.emotion[rows][:, None] == data.emotion[rows]
        near = vectors @ vectors.T
        return float(near[same].mean() - near[~same].mean())

    assert nearness(12) > nearness(1) + 0.2


def test_a_run_with_a_queue_continues_to_the_same_bits(corpus, tmp_path):
    loss = {"emotion": {"name": "cross_entropy"}, "projection": CONTRAST}
    training = {"epochs": 3, "batch_size": 8, "sampler": {"name": "class_balanced"}}
    params, data, spec = prepare(corpus, loss=loss, training=training)
    whole, progress = fit(spec, data, params, 0)
    assert progress.memory["terms.projection.queue"].shape == (20, params.temporal.width)

    def kill(progress):
        if progress.epoch == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0, on_epoch=kill)
    resumed, again = fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert progress.history == again.history and progress.memory.keys() == again.memory.keys()
    assert all(torch.equal(value, again.memory[name]) for name, value in progress.memory.items())


def test_learned_prototypes_are_a_head(corpus):
    params, data, spec = prepare(corpus, heads={"emotion": {"name": "prototypes"}}, training={"epochs": 2})
    model, _ = fit(spec, data, params, 0)
    logits = model(data.batch(data.rows("val"), spec.streams))["emotion"]
    assert logits.abs().max() <= 10 + 1e-5 and model.heads["emotion"].prototypes.shape == (4, params.temporal.width)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"loss": {"emotion": {"name": "triplet"}}}, "loss.emotion: triplet reads projection, embedding, not emotion"),
        ({"loss": {"projection": {"name": "dice"}}}, "loss.projection: dice reads emotion, speaker, corpus, not projection"),
        ({"loss": {"embedding": {"name": "triplet", "options": {"form": "ratios"}}}}, "Did you mean 'ratio'?"),
        ({"loss": {"embeding": {"name": "triplet"}}}, "Unknown output of loss.embeding 'embeding'. Did you mean 'embedding'?"),
        ({"loss": {"a": {"name": "triplet", "on": "projection@radio"}}}, "Unknown stream of loss.a 'radio'"),
        ({"heads": {"projecton": {"name": "projection"}}}, "Did you mean 'projection'?"),
        (
            {"loss": {"emotion": {"name": "focal", "options": {"class_weights": [1, 2]}}}},
            "loss.emotion: class_weights has 2 weights for the 4 classes of emotion: ",
        ),
        (
            {"loss": {"emotion": {"name": "focal", "options": {"class_weights": {"bored": 2}}}}},
            "loss.emotion: Unknown class 'bored'",
        ),
        (
            {"loss": {"emotion": {"name": "auto_focal", "options": {"factors": {"bored": 2}}}}},
            "loss.emotion: Unknown class 'bored'",
        ),
        (
            {
                "loss": {"emotion": {"name": "dice"}, "projection": CONTRAST},
                "temporal": {"pooling": "statistics"},
                "training": {"mixup": 0.2},
            },
            "training.mixup leaves no clip as it is for the queue of a loss",
        ),
        (
            {"loss": {"dimensions": {"name": "concordance"}, "embedding": {"name": "triplet"}}, "task": {"emotion": False}},
            "loss.embedding: no training clip has the labels",
        ),
    ],
)
def test_mistakes_are_one_line(corpus, groups, said):
    with pytest.raises(ParamsError) as caught:
        training = groups.get("training", {}) | {"select": "loss", "epochs": 1}
        params, data, spec = prepare(corpus, **groups | {"training": training})
        fit(spec, data.read(spec.streams), params, 0)
    assert said in str(caught.value) and "\n" not in str(caught.value)
