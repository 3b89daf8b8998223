"""The loop: phases, frozen parts, auxiliary and adversarial terms, context, curriculum."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.compose import compose
from pipeline.errors import ParamsError
from pipeline.models.batch import Targets
from pipeline.models.build import build_model
from pipeline.models.registry import CONTEXTS
from pipeline.storage import tables
from pipeline.training.curricula.base import CURRICULA
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.dialogues import number_voices
from pipeline.training.data.views import predict_views
from pipeline.training.loop import fit
from pipeline.training.samplers.base import SAMPLERS
from pipeline.training.stage import train
from pipeline.training.variants import list_variants, specify_model

FOCAL = {"emotion": {"name": "focal"}}


def learn(corpus, seed=0, **groups):
    params = corpus.params(**groups)
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    return fit(specify_model(params, list_variants(params)[0], data), data, params, seed), data, params


def test_phases_follow_one_another_and_a_frozen_part_stays(fabricate):
    phases = [{"name": "warm", "epochs": 2, "loss": FOCAL}, {"name": "fit", "epochs": 3, "freeze": ["encoders", "fusion"]}]
    corpus = fabricate(clips=40)
    (warm, _), *_ = learn(corpus, training={"phases": phases[:1]})
    (model, progress), *_ = learn(corpus, training={"phases": phases})
    assert [(row["phase"], row["epoch"]) for row in progress.history] == [
        ("warm", 1),
        ("warm", 2),
        ("fit", 1),
        ("fit", 2),
        ("fit", 3),
    ]
    before, after = warm.state_dict(), model.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"heads"}
    assert all(p.requires_grad for p in model.parameters())


def test_a_run_killed_in_the_second_phase_continues_to_the_same_bits(fabricate, tmp_path):
    corpus = fabricate(clips=40)
    groups = {"training": {"phases": [{"epochs": 2}, {"epochs": 3, "lr": 1e-4}], "curriculum": {"name": "confidence"}}}
    params = corpus.params(**groups)
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    spec = specify_model(params, list_variants(params)[0], data)
    whole, _ = fit(spec, data, params, 0)

    def kill(progress):
        if (progress.phase, progress.epoch) == (1, 2):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0, on_epoch=kill)
    seen = []
    resumed, _ = fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0, on_epoch=lambda p: seen.append(p.epoch))
    assert seen == [3]
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_rates_per_part(fabricate):
    corpus = fabricate(clips=40)
    (slow, _), *_ = learn(corpus, training={"epochs": 1, "rates": {"encoders": 1e-6, "encoders.audio": 1.0}})
    (start, _), *_ = learn(corpus, training={"epochs": 1, "rates": {"encoders": 1e-6, "fusion": 1e-6, "heads": 1e-6}})
    change = {name: (value - start.state_dict()[name]).abs().max() for name, value in slow.state_dict().items()}
    assert change["encoders.audio.project.weight"] > 1e-3 and change["fusion.absent"] > 1e-3
    assert change["encoders.text.project.weight"] < 1e-6


@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_a_perceptron_of_one_stream_learns_and_a_stream_that_is_not_there_is_one_line(fabricate, pooling):
    corpus = fabricate(clips=40)
    (model, _), *_ = learn(corpus, training={"epochs": 1}, temporal={"hidden": {"audio": [3, 2]}, "pooling": pooling})
    weights = [
        value for name, value in model.state_dict().items() if name.startswith("encoders.audio.project") and value.ndim == 2
    ]
    assert [len(weight) for weight in weights] == [48, 32, 16]
    assert model.spec.streams["text"].hidden == () and model.state_dict()["encoders.text.project.weight"].shape == (16, 5)
    with pytest.raises(ParamsError, match=r"Unknown stream in temporal.hidden 'sound'. Known: audio, text, video"):
        learn(corpus, training={"epochs": 1}, temporal={"hidden": {"sound": [3]}})
    (plain, _), *_ = learn(corpus, training={"epochs": 1}, temporal={"hidden": {"sound": []}, "pooling": pooling})
    assert plain.state_dict()["encoders.audio.project.weight"].shape == (16, 6)


def test_parts_of_one_stream_may_be_named_where_streams_are_trained_alone_too(fabricate, tmp_path):
    corpus = fabricate(clips=30)
    training = {"epochs": 1, "unimodal": True, "rates": {"encoders.text": 0.5}, "phases": [{"freeze": ["encoders.audio"]}]}
    params = corpus.params(training=training)
    assert len(train(params, corpus.index(params), **corpus.files, out=tmp_path / "runs")) == 4


def test_auxiliary_and_adversarial_terms_build_their_heads(fabricate):
    corpus = fabricate(clips=60)
    loss = {
        "emotion": {"name": "cross_entropy"},
        "audio": {"name": "cross_entropy", "on": "emotion@audio", "weight": 0.3},
        "speaker": {"name": "cross_entropy", "weight": 0.1},
    }
    groups = {"loss": loss, "heads": {"speaker": {"name": "adversary", "options": {"strength": 0.5}}}, "training": {"epochs": 2}}
    (model, _), data, params = learn(corpus, **groups)
    assert set(model.heads) == {"emotion", "dimensions", "emotion@audio", "speaker"}
    assert model.spec.outputs["speaker"].size == len(data.domains["speaker"]) == 6
    outputs = model(data.batch(data.rows("val"), model.spec.streams))
    assert outputs["emotion@audio"].shape == outputs["emotion"].shape
    alone = params.model_copy(update={"training": params.training.model_copy(update={"unimodal": True})})
    lone = [specify_model(alone, variant, data).outputs for variant in list_variants(alone)[1:]]
    assert all("emotion@audio" not in outputs for outputs in lone)  # of a lone stream it is the emotion itself


def test_late_fusion_learns(fabricate):
    corpus = fabricate(clips=150, noise=0.3)
    (_, progress), *_ = learn(corpus, fusion={"name": "late"}, training={"epochs": 20, "lr": 3e-3}, task={"level": "frame"})
    assert progress.key[0] > 0.4  # no stream alone knows more than half


@pytest.fixture
def dialogues(fabricate):
    """Clips in dialogues of four turns; the class is that of the turn before, so that only context knows it."""

    def make(clips=120, turns=4):
        corpus = fabricate(clips=clips, noise=0.2)
        rows = tables.read(corpus.files["manifest"]).to_dicts()
        roles = {}
        for i, row in enumerate(rows):
            row |= {"dialogue": f"d{i // turns}", "turn": i % turns, "emotion": rows[max(0, i - 1)]["speaker"]}
            roles[row["id"]] = {0: "test", 1: "val"}.get((i // turns) % 5, "train")
        for i, row in enumerate(rows):
            said = corpus.classes[i - 1] // 2 if i % turns else corpus.classes[i] // 2
            row["emotion"] = ("anger", "joy")[said]
        tables.write(tables.frame(rows), corpus.files["manifest"])
        table = corpus.roles.with_columns(role=corpus.roles["id"].replace_strict(roles))
        tables.write(table, corpus.files["folds"], sort=("fold", "id"))
        return corpus

    return make


def test_a_dialogue_longer_than_the_window_and_the_batch_is_learned_and_predicted_turn_by_turn(dialogues):
    corpus = dialogues(100, turns=20)
    context = {"name": "gru", "options": {"turns": 3}}
    (model, progress), data, params = learn(corpus, context=context, training={"epochs": 2, "batch_size": 8})
    assert len(progress.history) == 2
    rows = data.rows("val")
    assert len(rows) == 20 > 3 and int(data.find_turns(rows, (3, 0)).places.shape[1]) == 4
    whole = predict_views(model, data, rows)["emotion"]
    for size in (1, 7):
        torch.testing.assert_close(predict_views(model, data, rows, size=size)["emotion"], whole, atol=1e-5, rtol=0)


def test_history_is_the_dialogues_own_and_of_the_same_role(dialogues):
    corpus = dialogues(40)
    params = corpus.params()
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    rows = torch.tensor([0, 1, 2, 3, 4, 7])
    found = data.find_turns(rows, (2, 0))
    assert found.places.tolist() == [[-1, -1, 0], [-1, 0, 1], [0, 1, 2], [1, 2, 3], [-1, -1, 4], [5, 6, 7]]
    assert found.at == 2 and found.rows.tolist() == rows.tolist()
    both = data.find_turns(rows, (1, 2))
    assert both.places.tolist() == [
        [-1, 0, 1, 2],
        [0, 1, 2, 3],
        [1, 2, 3, -1],
        [2, 3, -1, -1],
        [-1, 4, 5, 6],
        [6, 7, -1, -1],
    ]
    assert both.at == 1 and both.rows.tolist() == rows.tolist()
    wide = data.find_turns(rows[2:3], (90, 90)).places  # far wider than the table
    assert wide[wide >= 0].tolist() == [0, 1, 2, 3]
    inputs = data.batch(torch.tensor([3, 4, 6]), ["audio"], turns=(2, 0))
    clips = [data.ids[i] for i in (1, 2, 3, 4, 5, 6)]
    assert inputs.history.places.tolist() == [[0, 1, 2], [-1, -1, 3], [3, 4, 5]]
    want = data.batch(torch.tensor([data.ids.index(clip) for clip in clips]), ["audio"])
    assert torch.equal(inputs.streams["audio"].values, want.streams["audio"].values)
    held_out = np.where(np.arange(40) == 5, "test", data.roles)
    data = replace(data, roles=held_out)
    assert data.find_turns(torch.tensor([6]), (2, 0)).places.tolist() == [[4, -1, 6]]


def test_voices_are_numbered_from_the_turn_back_and_later_ones_after_them():
    speaker = torch.tensor([[7, 4, 9, 4, 7, 5, 4], [-1, 3, -1, 8, 3, -1, 3], [2, 2, 2, -1, 2, 6, -1]])
    found = number_voices(speaker, 4)
    assert found[0].tolist() == [0, 1, 2, 1, 0, 3, 1] and found[1].tolist() == [-1, 0, -1, 1, 0, -1, 0]
    assert number_voices(speaker, 3)[2].tolist() == [1, 1, 1, -1, 1, 2, -1]  # nobody is the unknown speaker's own
    # What is said later renames nobody.
    assert torch.equal(number_voices(speaker[:, :5], 4), found[:, :5])


def test_voices_of_a_dialogue_are_its_own(dialogues):
    corpus = dialogues(40)
    table = tables.read(corpus.files["manifest"]).with_columns(speaker=pl.Series(list("abca" + "dd") * 6 + [None] * 4))
    tables.write(table, corpus.files["manifest"])
    params = corpus.params()
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    found = data.find_turns(torch.tensor([3, 5, 37]), (3, 1))
    assert found.voices.tolist() == [[0, 2, 1, 0, -1], [-1, -1, 0, 0, 1], [-1, -1, -1, -1, -1]]
    assert found.places[2].tolist() == [-1, -1, 36, 37, 38]


def test_turns_that_are_in_no_fold_are_history_and_nothing_else(dialogues):
    """Beside test clips as beside training clips; one of which no stream knows anything does no harm."""
    corpus = dialogues(40)
    context = [corpus.ids[i] for i in (1, 4, 10)]
    folds = tables.read(corpus.files["folds"])
    tables.write(folds.filter(~pl.col("id").is_in(context)), corpus.files["folds"], sort=("fold", "id"))
    manifest = tables.read(corpus.files["manifest"])
    hidden = pl.col("id").is_in(context)
    manifest = manifest.with_columns(pl.when(hidden).then(None).otherwise(pl.col(n)).alias(n) for n in tables.LABELS)
    tables.write(manifest, corpus.files["manifest"])
    groups = {"context": {"name": "attention", "options": {"turns": 2}}, "task": {"dimensions": []}, "loss": FOCAL}
    (model, progress), data, _ = learn(corpus, **groups)
    assert [data.roles[i] for i in (0, 1, 4, 10, 11)] == ["test", "", "", "", "train"]
    assert data.find_turns(torch.tensor([2, 3, 5, 11]), (2, 0)).places[:, :2].tolist() == [[0, 1], [1, 2], [-1, 4], [9, 10]]
    assert not set(data.rows("train", "val", "test").tolist()) & {1, 4, 10}
    text = data.batch(torch.tensor([5, 6]), model.spec.streams, model.spec.turns)
    for name in text.streams:  # clip 4 without anything
        text.streams[name].mask[0] = False
    assert torch.isfinite(model(text)["emotion"]).all()


@pytest.mark.parametrize("name", sorted(CONTEXTS))
def test_a_turn_of_the_future_changes_nothing(dialogues, name):
    """From the table to the outputs: a causal context knows no later turn, one that sees a turn on knows that one alone."""
    corpus = dialogues(20)
    for later, moved in ((0, [False, False, False, True]), (1, [False, False, True, True])):
        context = {"name": name, "options": {"turns": 2, "later": later, "speakers": True}}
        params = corpus.params(context=context, task={"dimensions": []}, loss=FOCAL)
        data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
        spec = specify_model(params, list_variants(params)[0], data)
        torch.manual_seed(0)
        model, rows = build_model(spec).eval(), torch.arange(8)
        before = model(data.batch(rows, spec.streams, spec.turns))["emotion"]
        stream = data.streams["audio"]
        values = stream.values[:]
        values[stream.offsets[3] : stream.offsets[4]] *= -3  # the last turn of the first dialogue
        other = replace(data, streams=data.streams | {"audio": replace(stream, values=values)})
        after = model(other.batch(rows, spec.streams, spec.turns))["emotion"]
        assert ((after - before).abs().amax(1) > 1e-6).tolist() == moved + [False] * 4


def test_context_learns_what_only_the_turn_before_tells(dialogues):
    corpus = dialogues()
    groups = {"training": {"epochs": 40, "lr": 5e-3, "patience": 40}, "task": {"dimensions": []}, "loss": FOCAL}
    (_, alone), *_ = learn(corpus, **groups)
    for name in ("attention", "gru"):
        (model, knows), data, _ = learn(corpus, **groups, context={"name": name, "options": {"turns": 2}})
        assert knows.key[0] > alone.key[0] + 0.1 and knows.key[0] > 0.7, name
        outputs = model(data.batch(data.rows("val"), model.spec.streams, model.spec.turns))
        assert len(outputs["emotion"]) == len(data.rows("val"))


def test_samplers_give_every_clip_once_and_split_no_dialogue():
    dialogue = torch.tensor([*(i // 7 for i in range(42)), *[-1] * 8])
    targets = Targets(torch.zeros(50).long(), torch.zeros(50, 0), None, {}, torch.ones(50))
    drawn = {}
    for name in ("clips", "dialogues"):
        part = SAMPLERS.find(name)
        sampler = part(16, part.Options())
        drawn[name] = list(sampler.sample(targets, dialogue, torch.Generator().manual_seed(0)))
        assert sorted(torch.cat(drawn[name]).tolist()) == list(range(50))
    assert [len(batch) for batch in drawn["clips"]] == [16, 16, 16, 2]
    where = {}
    for number, batch in enumerate(drawn["dialogues"]):
        for place in batch.tolist():
            if dialogue[place] >= 0:
                where.setdefault(int(dialogue[place]), set()).add(number)
    assert all(len(numbers) == 1 for numbers in where.values()) and len(drawn["dialogues"]) > 2


def test_confidence_sees_the_surest_clips_first():
    part = CURRICULA.find("confidence")
    curriculum = part(part.Options(epochs=15))
    targets = Targets(torch.zeros(1000).long(), torch.zeros(1000, 0), None, {}, torch.ones(1000))
    last = {"emotion": torch.linspace(0, 5, 1000)[:, None] * torch.tensor([1.0, 0.0])}
    weight = curriculum.weigh(0, targets, last)
    assert int(weight.sum()) == 258 and weight[-258:].all()
    assert curriculum.weigh(0, targets, None).all() and curriculum.weigh(14, targets, last).all()


def test_a_clip_is_present_when_a_stream_has_a_token_of_it(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params()
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    name, *others = data.streams
    resident, count = data.streams[name], len(data.ids)
    # Every other clip without a token.
    lengths = torch.arange(count) % 2
    thin = replace(resident, offsets=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]))
    data = replace(data, streams=data.streams | {name: thin})
    assert data.present([name]).tolist() == (lengths > 0).tolist()
    assert data.present([name, *others]).tolist() == (data.present(others) | (lengths > 0)).tolist()


def test_the_recipe_of_hlm12erc_finds_classes_of_which_one_clip_in_thirty_is(fabricate):
    """Its fusion, stack, loss and batches, made narrow; the same with cross-entropy on batches as they come never names them."""
    recipe = compose(["recipe=hlm12erc"], Path(__file__).parents[2] / "conf")
    stack = recipe["heads"]["emotion"]
    stack = stack | {"options": stack["options"] | {"widths": [16, 8]}}
    corpus = fabricate(clips=400)
    corpus.classes = corpus.rng.choice(4, 400, p=[0.47, 0.47, 0.03, 0.03])
    corpus.tables()
    for name, shape in corpus.widths.items():
        corpus.store(name, shape, noise=0.7)

    def recalls(**changes):
        groups = {"fusion": recipe["fusion"], "heads": {"emotion": stack}, "temporal": {"pooling": "mean"}}
        training = recipe["training"] | {"seeds": 1, "epochs": 8, "lr": 0.003} | changes.pop("training", {})
        chosen = groups | {"loss": recipe["loss"], "task": {"dimensions": []}} | changes
        (model, _), data, _ = learn(corpus, training=training, **chosen)
        rows = torch.cat([data.rows("train"), data.rows("val")])
        with torch.no_grad():
            found = model.eval()(data.batch(rows, model.spec.streams))["emotion"].argmax(1)
        truth = data.targets(rows).emotion
        return [float((found[truth == k] == k).float().mean()) for k in range(4)]

    assert min(recalls()[2:]) > 0.5
    plain = recalls(loss={"emotion": {"name": "cross_entropy"}}, training={"sampler": None})
    assert min(plain[:2]) > 0.5 and max(plain[2:]) == 0
