"""Phases on cached features: contrast before fit, what a phase may set, averaged weights, accumulation, hidden labels, resume."""

import copy
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.batch import Inputs, Targets, Tokens
from pipeline.models.model import EmotionModel
from pipeline.params import Pairs, Training
from pipeline.storage import feature_store
from pipeline.training.average import average, averaged
from pipeline.training.course import prepare as choose
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.hiding import hide_labels
from pipeline.training.data.pairs import pair_windows
from pipeline.training.jobs import Job, identify, run_job
from pipeline.training.learner import Learner
from pipeline.training.loop import fit
from pipeline.training.optimiser import build_optimiser, without_compiler
from pipeline.training.sources import Sources
from pipeline.training.state import Progress
from pipeline.training.variants import list_variants, specify_model

CONTRAST = {
    "local": {"name": "local_contrastive", "on": "projection", "options": {"queue": 64, "momentum": True}},
    "global": {"name": "global_contrastive", "on": "projection", "weight": 0.5, "options": {"queue": 64}},
    "smooth": {"name": "smoothness", "on": "projection", "weight": 0.1},
}
WINDOWS = {"windows": {"name": "window_contrastive", "on": "projection", "options": {"queue": 16}}}
FRAMES = {"task": {"level": "frame"}, "loss": {"frames": {"name": "concordance"}, "emotion": {"name": "cross_entropy"}}}
PHASES = [
    {"name": "pretrain", "loss": CONTRAST, "epochs": 3, "lr": 1e-3, "schedule": {"name": "cosine", "options": {"least": 0.01}}},
    {"name": "pairs", "loss": WINDOWS, "epochs": 2, "pairs": {"length": 3, "apart": 2}, "batch_size": 8, "accumulate": 3},
    {"name": "fit", "epochs": 2, "lr": 3e-4, "freeze": ["heads.projection"]},
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    from tests.fabricated import Fabricated

    return Fabricated(tmp_path_factory.mktemp("phases"), clips=40)


def prepare(corpus, **groups):
    params = corpus.params(**groups)
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    return params, data, specify_model(params, list_variants(params)[0], data)


def begin(corpus, **groups):
    """A learner at its start, and the parameters."""
    params, data, spec = prepare(corpus, **groups)
    torch.manual_seed(0)
    model, order = EmotionModel(spec), torch.Generator().manual_seed(0)
    optimiser = build_optimiser(model, params.training)
    return Learner.begin("fit", spec, data, params, model, optimiser, order, Progress(), 0)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def whole(corpus):
    training = {"phases": PHASES, "ema": 0.9, "accumulate": 2, "batch_size": 8}
    params, data, spec = prepare(corpus, **FRAMES, training=training)
    return params, data, spec, *fit(spec, data, params, 0)


def test_contrast_comes_before_fit_and_each_phase_is_selected_by_what_it_teaches(whole):
    *_, spec, model, progress = whole
    assert [row["phase"] for row in progress.history] == ["pretrain"] * 3 + ["pairs"] * 2 + ["fit"] * 2
    judged = [{name for name in row if name.startswith("val_")} for row in progress.history]
    assert judged == [{"val_loss"}] * 5 + [{"val_loss", "val_uar"}] * 2
    assert all(row["val_loss"] > 0 for row in progress.history)  # of windows too, which validation is cut to
    assert set(spec.outputs) == {"emotion", "dimensions", "frames", "projection"} and not model.training


@pytest.mark.parametrize("at", [(0, 1), (0, 2), (1, 1), (2, 1)])
def test_a_run_killed_in_any_phase_continues_to_the_same_bits(whole, tmp_path, at):
    params, data, spec, model, progress = whole

    def kill(progress):
        if (progress.phase, progress.epoch) == at:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0, on_epoch=kill)
    saved = torch.load(io.BytesIO((tmp_path / "state.pt").read_bytes()[8:]), weights_only=True)["progress"]
    assert saved["average"]
    if at[0] < 2:
        assert all(len(value) for value in saved["memory"].values() if value.ndim == 2)
    resumed, again = fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0)
    assert equal(model.state_dict(), resumed.state_dict()) and progress.history == again.history
    assert equal(progress.average, again.average) and equal(progress.memory, again.memory)


def test_a_phase_sets_its_own_rate_schedule_batch_and_accumulation(corpus, monkeypatch):
    rates, shown = [], []
    params, data, spec = prepare(corpus, **FRAMES, training={"phases": PHASES, "ema": 0.5, "batch_size": 16, "warmup": 0.0})
    optimiser = without_compiler(torch.optim.AdamW)
    step, learn = optimiser.step, Learner._lose
    monkeypatch.setattr(optimiser, "step", lambda self, *a, **k: rates.append(self.param_groups[0]["lr"]) or step(self, *a, **k))
    monkeypatch.setattr(Learner, "_lose", lambda self, i, t: shown.append((self.name, len(t.weight))) or learn(self, i, t))
    fit(spec, data, params, 0)
    sizes = {name: {size for phase, size in shown if phase == name} for name in ("pretrain", "pairs", "fit")}
    assert sizes == {"pretrain": {16, 8}, "pairs": {16}, "fit": {16, 8}}  # 24 training clips; a clip is two windows
    pretrain, pairs, last = rates[:6], rates[6:8], rates[8:]
    assert len(last) == 4 and pretrain[0] == 1e-3 and last[0] == 3e-4
    # The cosine goes by steps, not by batches, and to a hundredth: the next one would be there.
    assert pretrain == sorted(pretrain, reverse=True) and 1e-5 < pretrain[-1] < 1e-4
    assert len(pairs) == 2 and pairs[0] == 1e-3  # 3 batches of an epoch are one step


def test_a_step_of_several_batches_is_that_of_one_as_large(corpus):
    """Also of what is left over: 24 clips are steps of 20 and 4."""
    groups = {"task": {"emotion": False}, "loss": {"dimensions": {"name": "squared_error"}}, "temporal": {"dropout": 0.0}}
    found = []
    for training in ({"batch_size": 20}, {"batch_size": 5, "accumulate": 4}):
        learner = begin(corpus, **groups, training=training | {"select": "loss", "optimiser": "sgd"})
        losses = learner._learn()
        found.append((losses, learner.model.state_dict()))
    assert found[0][0] == pytest.approx(found[1][0], rel=0.2)
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], atol=1e-6, rtol=1e-5)


def test_averaged_weights_are_the_recursion_over_the_steps(corpus):
    learner = begin(corpus, training={"ema": 0.6, "batch_size": 16})
    model, progress = learner.model, Progress()
    mean = None
    for n in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape))
        average(progress, model, 0.6)
        now = {name: value.double() for name, value in model.trainable().items()}
        share = min(0.6, (1 + n) / (10 + n))
        mean = now if mean is None else {name: share * mean[name] + (1 - share) * now[name] for name in now}
    assert progress.steps == 5
    for name, value in mean.items():
        torch.testing.assert_close(progress.average[name].double(), value, atol=1e-5, rtol=1e-5)
    own = copy.deepcopy(model.state_dict())
    with averaged(model, progress.average):
        assert equal(model.trainable(), progress.average)
    assert equal(model.state_dict(), own)


def test_averaged_weights_are_judged_and_saved(corpus):
    training = {"ema": 0.95, "epochs": 3, "select": "last"}
    params, data, spec = prepare(corpus, training=training)
    model, progress = fit(spec, data, params, 0)
    assert equal(model.trainable(), progress.average)
    plain, _ = fit(spec, data, prepare(corpus, training=training | {"ema": 0.0})[0], 0)
    assert not equal(model.trainable(), plain.trainable())


def test_the_queue_of_a_momentum_loss_holds_what_the_averaged_weights_make(corpus):
    training = {"ema": 0.99, "batch_size": 24, "epochs": 1}
    loss = {"projection": {"name": "local_contrastive", "options": {"queue": 1000, "momentum": True}}}
    learner = begin(corpus, **FRAMES | {"loss": loss}, temporal={"dropout": 0.0}, training=training)
    for _ in range(2):
        learner._learn()
    term = learner.objective.terms["projection"]
    course = learner.course
    inputs = course.data.batch(course.train, course.spec.streams)
    own = learner.model(inputs)["projection.frames"]
    with averaged(learner.model, learner.progress.average):
        lagging = learner.model(inputs)["projection.frames"]
    there = own.norm(dim=-1) > 0
    latest = term.queue[: int(there.sum())]
    near = (lagging[there] @ latest.T).amax(1)
    torch.testing.assert_close(near, torch.ones(len(near)), atol=1e-5, rtol=0)
    assert (own[there] @ latest.T).amax(1).min() < 1 - 1e-5


def test_hidden_labels_are_hidden_everywhere_and_the_clips_stay(corpus):
    params, data, _ = prepare(corpus, **FRAMES)
    tenth, third = (hide_labels(data, share, 3) for share in (0.1, 0.3))
    rows = data.rows("train")
    kept = [set(rows[one.labelled()[rows]].tolist()) for one in (tenth, third)]
    assert len(kept[0]) == 3 and len(kept[1]) == 8 and kept[0] < kept[1]
    assert kept[0] != set(rows[hide_labels(data, 0.1, 4).labelled()[rows]].tolist())
    for row in rows.tolist():
        seen = row in kept[0]
        for name in data.streams:
            along = tenth.targets(torch.tensor([row]), name).frames
            assert torch.isfinite(along).any() == seen or not data.streams[name].present[row]
        assert (tenth.emotion[row] >= 0) == seen and torch.isfinite(tenth.dimensions[row]).any() == seen
        assert (tenth.table["emotion"][row] is not None) == seen
    others = data.rows("val")
    assert torch.equal(tenth.emotion[others], data.emotion[others]) and torch.equal(
        tenth.dimensions[others], data.dimensions[others]
    )


def test_contrast_is_shown_clips_without_labels_and_fit_is_not(corpus):
    phases = [{"name": "pretrain", "loss": CONTRAST, "epochs": 1}, {"epochs": 1}]
    params, data, spec = prepare(corpus, **FRAMES, training={"phases": phases, "ema": 0.5})
    fewer = hide_labels(data, 0.2, 0)
    assert len(choose(spec, fewer, params).train) == 5 and len(choose(spec, fewer, params, unlabelled=True).train) == 24
    shown = []
    learn = Learner._lose
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_lose", lambda self, i, t: shown.append((self.name, len(t.weight))) or learn(self, i, t))
        fit(spec, fewer, params, 0)
    assert [sum(n for name, n in shown if name == phase) for phase in ("pretrain", "fit")] == [24, 5]


def test_the_share_of_labels_is_the_runs(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path))
    clips = {}
    for share in (1.0, 0.25):
        params = corpus.params(training={"labels": share, "epochs": 1, "linear": {"penalty": 0.1}})
        files = {name: str(path) for name, path in corpus.files.items()}
        sources = Sources(index=str(corpus.index(params)), **files)
        for variant in list_variants(params):
            folder, _ = run_job(params, sources, Job(variant, 0, 0))
            config = json.loads((folder / "config.json").read_text())
            clips[share, variant.name] = config["clips"]["train"]
    assert clips == {(1.0, "fused"): 24, (1.0, "linear"): 24, (0.25, "fused"): 6, (0.25, "linear"): 6}


def test_windows_of_a_clip_begin_near_each_other_and_every_stream_is_cut_to_them():
    lengths = torch.tensor([12, 9, 5, 3, 0])
    places = torch.arange(12)
    mask = places < lengths[:, None]
    times = torch.stack([places, places + 1], -1).expand(5, -1, -1) * 0.5
    film = Tokens((places * mask)[..., None].float(), mask, times * mask[..., None])
    sound_places = torch.arange(24)
    sounds = (sound_places < 2 * lengths[:, None]) | (lengths[:, None] == 0)
    stamps = torch.stack([sound_places, sound_places + 1], -1).expand(5, -1, -1) * 0.25
    sound = Tokens((sound_places * sounds)[..., None].float(), sounds, stamps * sounds[..., None])
    frames = torch.where(mask, places.float(), torch.nan)[..., None]
    truth = Targets(torch.arange(5), torch.zeros(5, 0), frames, {"speaker": torch.arange(5)}, torch.ones(5), torch.arange(5) + 70)
    draw, starts = torch.Generator().manual_seed(0), []
    for _ in range(60):
        inputs, targets = pair_windows(Inputs({"film": film, "sound": sound}), truth, "film", Pairs(length=5, apart=3), draw)
        cut, heard = inputs.streams["film"], inputs.streams["sound"]
        assert targets.clip.tolist() == [70, 70, 71, 71, 72, 72, 73, 73, 74, 74] and targets.domain["speaker"].tolist()[:3] == [
            0,
            0,
            1,
        ]
        assert (
            cut.mask.sum(1).tolist() == [5, 5, 5, 5, 5, 5, 3, 3, 0, 0] == torch.isfinite(targets.frames[..., 0]).sum(1).tolist()
        )
        start = cut.values[:8, 0, 0]
        for row in range(8):
            here = cut.mask[row]
            assert torch.equal(cut.values[row, here, 0], start[row] + torch.arange(int(here.sum())))
            assert torch.equal(targets.frames[row, : int(here.sum()), 0], cut.values[row, here, 0])
            assert cut.times[row, 0, 0] == 0 and cut.times[row][here][-1, 1] == here.sum() * 0.5
            there = heard.mask[row]
            assert torch.equal(heard.values[row, there, 0], 2 * start[row] + torch.arange(2 * int(here.sum())))
            assert heard.times[row, 0, 0] == 0
        assert heard.mask[8:].all()  # without the film, all that is heard
        starts.append(start.reshape(4, 2))
    starts = torch.stack(starts)
    apart = (starts[..., 0] - starts[..., 1]).abs()
    assert (apart[:, :2] >= 1).all() and apart[:, 0].max() == 3 and (apart[:, 2:] == 0).all()
    assert starts[:, 0].unique().tolist() == list(range(8)) and starts[:, 1].unique().tolist() == list(range(5))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A corpus whose stream `text` holds chances of the classes, mostly right; every ninth clip lacks it."""
    from tests.fabricated import CLASSES, Fabricated

    corpus = Fabricated(tmp_path_factory.mktemp("taught"), clips=60)
    status, entries = feature_store.Status, []
    for i, kind in enumerate(corpus.classes):
        rows = np.full((2, 4), 0.05, np.float32)
        rows[:, kind] = 0.85
        there = i % 9 != 4
        times = np.array([[0, 2], [2, 4]], np.float32)[: 2 * there]
        entries.append(feature_store.Entry(rows[: 2 * there], times, status.OK if there else status.MISSING))
    attributes = {"stream": "text", "modality": "text", "identity": {"weights": {"source": "local:x"}}}
    rows = [len(entry.values) for entry in entries]
    feature_store.write(corpus.path("features/text.h5"), corpus.ids, entries, rows=rows, shape=(4,), attributes=attributes)
    term = {"name": "pseudo_label", "on": "emotion", "options": {"teacher": "text", "classes": list(CLASSES)}}
    return corpus, {"emotion": {"name": "cross_entropy"}, "pseudo": term}


def test_a_stream_teaches_and_is_not_read(taught):
    """With the labels of two clips a model learns the classes from what a teacher says of the others."""
    corpus, loss = taught
    found = {}
    for name, terms in {"alone": {"emotion": loss["emotion"]}, "taught": loss}.items():
        training = {"epochs": 25, "lr": 5e-3, "select": "last"}
        params, data, spec = prepare(corpus, loss=terms, training=training, task={"dimensions": []})
        data = hide_labels(data, 0.05, 0)
        assert sorted(spec.streams) == (["audio", "text", "video"] if name == "alone" else ["audio", "video"])
        model, _ = fit(spec, data, params, 0)
        rows = data.rows("val")
        guess = model(data.batch(rows, spec.streams))["emotion"].argmax(1)
        found[name] = float((guess == data.emotion[rows]).float().mean())
        if name == "taught":
            assert torch.isnan(data.taught["text"]).all(1).tolist() == [i % 9 == 4 for i in range(60)]
            raw = torch.full((4,), 0.05).index_fill(0, torch.tensor(corpus.classes[0]), 0.85)
            torch.testing.assert_close(data.taught["text"][0], raw, atol=1e-3, rtol=0)
    assert found["taught"] > found["alone"] + 0.2 and found["taught"] > 0.8


def test_a_teacher_is_part_of_what_decides_a_run(taught):
    corpus, loss = taught
    params, data, spec = prepare(corpus, loss=loss, task={"dimensions": []})
    job = Job(list_variants(params)[0], 0, 0)
    identity = identify(params, job, data, spec, "cpu")
    assert identity["streams"]["text"] == data.streams["text"].facts and "text" in identity["encoders"]
    assert job.variant.streams == ("audio", "video")


@pytest.mark.parametrize(
    ("teacher", "said"),
    [("txt", "a loss has the teacher txt, which is no stream; known: audio, text, video"), (None, "every stream")],
)
def test_a_teacher_is_a_stream_beside_others(taught, teacher, said):
    corpus, loss = taught
    terms = {
        name: {"name": "pseudo_label", "on": "dimensions", "options": {"teacher": teacher or name}}
        for name in ("audio", "text", "video")
    }
    with pytest.raises(ParamsError, match=said):
        corpus.params(loss=terms)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (
            {"training": {"phases": [{"loss": CONTRAST}]}},
            "loss.local: local_contrastive compares instants, and task.level is clip",
        ),
        ({**FRAMES, "training": {"phases": [{"loss": CONTRAST}]}}, "set training.ema"),
        (
            {**FRAMES, "training": {"phases": [{"name": "first", "loss": CONTRAST, "select": "uar"}]}},
            "training.phases: first selects uar, but has no loss on emotion; select loss, or last.",
        ),
        ({"training": {"pairs": {"length": 4}}}, "training.pairs cuts clips along the time base: set task.level to frame"),
        ({"training": {"phases": [{"loss": {"projection": {"name": "local_contrastiv"}}}]}}, "Did you mean 'local_contrastive'?"),
        (
            {**FRAMES, "loss": {"a": {"name": "smoothness", "on": "projection@audio"}}},
            "loss.a: smoothness compares instants of what is fused, not projection@audio; write projection.",
        ),
        ({**FRAMES, "loss": {"frames": {"name": "smoothness"}}}, "loss.frames: smoothness reads projection, not frames"),
    ],
)
def test_mistakes_are_one_line(corpus, groups, said):
    with pytest.raises(ParamsError) as caught:
        params, data, spec = prepare(corpus, **groups)
        fit(spec, data, params, 0)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"ema": 1.0}, {"ema": -0.1}, {"labels": 0}, {"labels": 1.5}, {"accumulate": 0}])
def test_numbers_out_of_their_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Training(**wrong)


def test_refit_leaves_a_phase_nothing_to_select_on():
    with pytest.raises(ValueError, match="select must be last in phases"):
        Training(refit=True, select="last", phases=[{"select": "loss"}])


def test_ranking_without_labels_over_time_says_so(corpus):
    loss = {"order": {"name": "temporal_ranking", "on": "projection"}}
    params, data, spec = prepare(corpus, **FRAMES, training={"phases": [{"loss": loss}]})
    bare = replace(data, streams={name: replace(stream, targets=None) for name, stream in data.streams.items()})
    with pytest.raises(ParamsError, match="loss.order: no training clip has the labels over time"):
        fit(spec, bare, params, 0)
