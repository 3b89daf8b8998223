"""Several processes learn one run: as one process would, with dropout another noise in each, and to the same bits when resumed."""

import dataclasses
import shutil

import polars as pl
import pytest
import torch

from pipeline.errors import DeviceError, ParamsError, WorkerError
from pipeline.params import Params
from pipeline.runs.run import load_run
from pipeline.storage import tables
from pipeline.training.data.dataset import Dataset
from pipeline.training.jobs import Job, Sources, choose_parameters, run_job
from pipeline.training.loop import fit
from pipeline.training.team import ALONE
from pipeline.training.together import choose_devices, count_processes, gather_team
from pipeline.training.variants import list_variants, specify_model
from tests.training.test_language import LLAMA, add_trunk, params_of

LORA = {"name": "llama", "options": {"lora": {"r": 2, "dropout": 0.0}}}
#: Batches of 7 and what is left of them, two to a step; what compares clips does so over the whole batch, and its queue fills.
TRAINING = {"epochs": 2, "batch_size": 7, "accumulate": 2, "lr": 0.003, "select": "loss", "ema": 0.9}
COMPARING = {
    "emotion": {"name": "cross_entropy", "options": {"class_weights": True}},
    "dimensions": {"name": "concordance"},
    "projection": {"name": "supervised_contrastive", "weight": 0.5, "options": {"queue": 16}},
}
TURNS = {
    "training": TRAINING | {"curriculum": {"name": "confidence", "options": {"epochs": 2}}},
    "loss": COMPARING,
    "temporal": {"dropout": 0.0},
    "task": {"dimensions": ["valence", "arousal"]},
    "context": {"name": "gru", "options": {"turns": 2}},
}
OVER_TIME = {
    "training": TRAINING,
    "temporal": {"dropout": 0.0, "window": {"tokens": 3}},
    "task": {"dimensions": ["valence", "arousal"], "level": "frame", "time_base": "audio"},
}


@pytest.fixture
def corpus(fabricate):
    """Dialogues of five turns; every ninth clip is silent."""
    made = fabricate(clips=50)
    add_trunk(made)
    spoken = [{"dialogue": f"d{i // 5}", "turn": i % 5} for i in range(50)]
    table = tables.read(made.path("data/manifest.parquet")).sort("id").drop("dialogue", "turn")
    tables.write(tables.frame(pl.concat([table, pl.DataFrame(spoken)], how="horizontal").to_dicts()), made.path("data/manifest.parquet"))
    return made


def learn(params: Params, index, files, team=ALONE):
    data = Dataset.load(index, params=params, fold=0, **files)
    spec = specify_model(params, list_variants(params)[0], data)
    return fit(spec, data.read(spec.streams), params, 3, team=team)


def learn_all(team, device, asked, index, files, found=None):
    for params in asked:
        part = dataclasses.replace(team, sharded=params.training.shard)
        model, progress = learn(params, index, files, part)
        if found is not None:
            found.append((model.trainable(), progress))


def test_two_processes_learn_what_one_does(corpus):
    kinds = [params_of(corpus, LORA, **TURNS), params_of(corpus, LORA, **OVER_TIME)]
    made = (corpus.index(kinds[0]), corpus.files)
    alone = [learn(params, *made) for params in kinds]
    sharded = [p.model_copy(update={"training": p.training.model_copy(update={"processes": 2, "shard": True})}) for p in kinds]
    found = []
    with gather_team(["cpu"] * 2, False, learn_all, kinds + sharded, *made) as team:
        learn_all(team, "cpu", kinds + sharded, *made, found)
    assert not torch.distributed.is_initialized()
    for (learned, progress), (model, expected) in zip(found, alone * 2, strict=True):
        wanted = model.trainable()
        assert learned.keys() == wanted.keys() and any("lora_B" in name and value.any() for name, value in wanted.items())
        far = {name: float((learned[name] - value).abs().max()) for name, value in wanted.items()}
        assert max(far.values()) <= 1e-5, max(far, key=far.get)
        assert progress.best_epoch == expected.best_epoch
        for one, other in zip(progress.history, expected.history, strict=True):
            assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-5)
            assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
