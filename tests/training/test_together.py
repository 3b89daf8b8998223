"""Several processes learn one run: as one process would, with noise of their own, and to the same bits when resumed."""

import dataclasses
import json
import shutil

import polars as pl
import pytest
import torch

from pipeline.errors import DeviceError, ParamsError, WorkerError
from pipeline.params import Params
from pipeline.runs.language import build
from pipeline.runs.run import load_run
from pipeline.storage import tables
from pipeline.threads import computing
from pipeline.training.data.dataset import Dataset
from pipeline.training.jobs import Job, Sources, choose_parameters, run_job
from pipeline.training.loop import fit
from pipeline.training.schedule import run_jobs
from pipeline.training.team import ALONE, Team
from pipeline.training.together import choose_devices, count_processes, gather_team
from pipeline.training.variants import list_variants, specify_model
from tests.training.test_language import LLAMA, add_trunk, params_of

LORA = {"name": "llama", "options": {"lora": {"r": 2, "dropout": 0.0}}}
DROPPED = {"name": "llama", "options": {"lora": {"r": 2, "dropout": 0.3}}}
#: Batches of 7 and what is left of them, two to a step; what compares clips does so over the whole batch, and its queue fills.
TRAINING = {"epochs": 2, "batch_size": 7, "accumulate": 2, "lr": 0.003, "select": "loss", "ema": 0.9}
COMPARING = {
    "emotion": {"name": "cross_entropy", "options": {"class_weights": True}},
    "dimensions": {"name": "concordance"},
    "projection": {"name": "supervised_contrastive", "weight": 0.5, "options": {"queue": 16, "momentum": True}},
}
TURNS = {
    "training": TRAINING | {"curriculum": {"name": "confidence", "options": {"epochs": 2}}},
    "loss": COMPARING,
    "temporal": {"dropout": 0.0},
    "task": {"dimensions": ["valence", "arousal"]},
    "context": {"name": "gru", "options": {"turns": 2}},
}
OVER_TIME = {
    "training": TRAINING | {"optimiser": "sgd", "lr": 0.05},  # whose step is as long as the gradient
    "temporal": {"dropout": 0.0, "window": {"tokens": 3}},
    "task": {"dimensions": ["valence", "arousal"], "level": "frame", "time_base": "audio"},
}


@pytest.fixture
def corpus(fabricate):
    """Dialogues of five turns; every ninth clip is silent."""
    made = fabricate(clips=30)
    add_trunk(made)
    spoken = [{"dialogue": f"d{i // 5}", "turn": i % 5} for i in range(30)]
    table = tables.read(made.path("data/manifest.parquet")).sort("id").drop("dialogue", "turn")
    tables.write(
        tables.frame(pl.concat([table, pl.DataFrame(spoken)], how="horizontal").to_dicts()), made.path("data/manifest.parquet")
    )
    return made


def learn(params: Params, index, files, team=ALONE, **how):
    data = Dataset.load(index, params=params, fold=0, **files)
    spec = specify_model(params, list_variants(params)[0], data)
    with computing(1):
        return fit(spec, data.read(spec.streams), params, 3, team=team, **how)


def learn_all(team, device, asked, noisy, folder, *made):
    """A run of each of `asked`; one of `noisy`, and that run again from where it stood after its first epoch."""
    spread = dataclasses.replace(team, sharded=True)
    found = [learn(params, *made, spread if params.training.shard else team) for params in asked]

    def copy(progress):
        if team.first and progress.epoch == 1:
            shutil.copy(folder / "state.pt", folder / "first.pt")

    found.append(learn(noisy, *made, spread, state=folder / "state.pt", every=0, on_epoch=copy))
    team.wait()
    return [*found, learn(noisy, *made, spread, state=folder / "first.pt", every=0)]


def together(params, **training):
    return params.model_copy(update={"training": params.training.model_copy(update={"processes": 2} | training)})


def test_two_processes_learn_what_one_does_and_a_resumed_run_what_it_would_have(corpus, tmp_path):
    kinds = [params_of(corpus, LORA, **TURNS), params_of(corpus, LORA, **OVER_TIME)]
    made = (corpus.index(kinds[0]), corpus.files)
    alone = [learn(params, *made) for params in kinds]
    given = ([together(kinds[0]), together(kinds[1], shard=True)], params_of(corpus, DROPPED, training=TRAINING), tmp_path)
    with gather_team(["cpu"] * 2, False, learn_all, *given, *made) as team:
        *found, whole, resumed = learn_all(team, "cpu", *given, *made)
    assert not torch.distributed.is_initialized()
    for (model, progress), (single, expected) in zip(found, alone, strict=True):
        learned, wanted = model.trainable(), single.trainable()
        assert learned.keys() == wanted.keys() and any("lora_B" in name and value.any() for name, value in wanted.items())
        far = {name: float((learned[name] - value).abs().max()) for name, value in wanted.items()}
        assert max(far.values()) <= 1e-5, max(far, key=far.get)
        assert progress.best_epoch == expected.best_epoch
        for one, other in zip(progress.history, expected.history, strict=True):
            assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-5)
            assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
    held = [sum(count_here(value) for value in model.fusion.language.network.layers.parameters()) for model, _ in found]
    learning = sum(value.numel() for name, value in found[0][0].named_parameters() if "lora_" in name)
    assert (held[1] - learning) * 2 == held[0] - learning
    assert resumed[1].history == whole[1].history
    again = resumed[0].trainable()
    assert all(torch.equal(value, again[name]) for name, value in whole[0].trainable().items())


def count_here(value):
    return (value.to_local() if hasattr(value, "to_local") else value).numel()


def test_a_run_says_how_many_learned_it_and_is_another_than_that_of_one(corpus):
    params = together(params_of(corpus, DROPPED, training=TRAINING | {"epochs": 1}), shard=True)
    sources = Sources(str(corpus.index(params)), *(str(corpus.files[name]) for name in ("manifest", "folds", "annotations")))
    job, told = Job(list_variants(params)[0], 0, 3), []
    folder, history = run_job(params, sources, job, every=0, on_epoch=told.append)
    single, _ = run_job(together(params, processes=1, shard=False), sources, job)
    assert len(history) == len(told) == 1 and single.parent != folder.parent
    one, other = (load_run(run).model.trainable() for run in (folder, single))
    assert any(not torch.allclose(value, other[name], atol=1e-3) for name, value in one.items())
    said, without = (json.loads((run / "config.json").read_text())["params"]["training"] for run in (folder, single))
    assert said == without | {"processes": 2, "shard": True}


def test_only_runs_with_a_language_model_are_learned_by_several(corpus):
    plain = params_of(corpus, {"name": "concat"}, training={"linear": {}, "unimodal": True})
    for variant in list_variants(together(plain)):
        assert count_processes(together(plain), variant) == 1
        assert choose_parameters(together(plain), variant) == choose_parameters(plain, variant)
    by_name = {variant.name: variant for variant in list_variants(together(params_of(corpus, LLAMA, training={"linear": {}})))}
    params = together(params_of(corpus, LLAMA))
    assert (count_processes(params, by_name["fused"]), count_processes(params, by_name["linear"])) == (2, 1)


def fail(team, device):
    raise ParamsError("of its own")


def test_a_process_that_fails_ends_the_run_in_one_line(capfd):
    with pytest.raises(WorkerError, match="one of the 2 processes of training.processes has ended: its error is above"):
        with gather_team(["cpu"] * 2, False, fail) as team:
            team.wait()
    assert capfd.readouterr().err.strip() == "error: of its own"
    assert not torch.distributed.is_initialized()


def test_one_that_never_comes_is_not_waited_for():
    with pytest.raises(WorkerError, match="has ended"), gather_team(["cpu"] * 2, False, Unreadable()):
        pass


class Unreadable:
    """What another process fails to read before anything else."""

    def __reduce__(self):
        return (int, ("no number",))


def test_the_noise_is_another_in_each_process_and_the_same_again():
    def draw(rank, *numbers):
        with torch.random.fork_rng():
            Team(rank, 2).seed(*numbers)
            return torch.rand(4)

    assert torch.equal(draw(0, 3, 0, 1), draw(0, 3, 0, 1))
    others = [draw(1, 3, 0, 1), draw(0, 4, 0, 1), draw(0, 3, 1, 1), draw(0, 3, 0, 2)]
    assert not any(torch.equal(draw(0, 3, 0, 1), one) for one in others)


def test_what_a_share_of_the_batch_would_learn_otherwise_is_refused_in_one_line(corpus, monkeypatch):
    for wrong, match in (
        ({"processes": 2, "mixup": 0.2}, "mixup pairs clips of a whole batch"),
        ({"shard": True}, "shard is true, but processes is 1"),
    ):
        with pytest.raises(ParamsError, match=match):
            params_of(corpus, training=wrong)
    params = together(params_of(corpus, LLAMA, run={"engine": "ray"}))
    jobs = [(params, Job(variant, 0, 0)) for variant in list_variants(params)]
    with pytest.raises(ParamsError, match="set training.processes to 1, or the engine to local"):
        next(run_jobs(jobs, None, run_job))
    fewer = params_of(corpus, {"name": "llama", "options": {"lora": {"r": 2}, "quantise": "8bit"}})
    data = Dataset.load(corpus.index(fewer), params=fewer, fold=0, **corpus.files)
    with pytest.raises(ParamsError, match="leave out fusion.options.quantise, or shard"):
        build(specify_model(fewer, list_variants(fewer)[0], data)).fusion.language.shard(None)
    with pytest.raises(ParamsError, match="normalises over the batch"):
        Team(0, 2).prepare(torch.nn.Sequential(torch.nn.BatchNorm1d(3)))
    monkeypatch.setattr("pipeline.training.together.pick_devices", lambda name: ["cuda:0", "cuda:1"])
    params = together(params_of(corpus, LLAMA))
    assert choose_devices(params, 2) == ["cuda:0", "cuda:1"]
    with pytest.raises(DeviceError, match="training.processes is 3, but run.device cpu has 2 GPUs"):
        choose_devices(params, 3)
