"""A fusion, a head, a loss and a curriculum of one's own: one file each in a folder, and training with them."""

import json
import re
from pathlib import Path

import pytest

from pipeline.errors import ParamsError
from pipeline.training.jobs import Job, run_job
from pipeline.training.sources import Sources
from pipeline.training.stage import train
from pipeline.training.variants import list_variants

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "fusion/maximum.py": re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)[1],
    "losses/squared.py": '''
import torch

from pipeline.models.losses.base import ClassLoss, mean_rows


class Squared(ClassLoss):
    """The Brier score."""

    def score(self, logits, truth, weight):
        wanted = torch.nn.functional.one_hot(truth, logits.shape[-1])
        return mean_rows((logits.softmax(-1) - wanted).square().sum(-1), weight)
''',
    "curricula/first_half.py": '''
import torch

from pipeline.training.curricula.base import Curriculum


class FirstHalf(Curriculum):
    """Half of the clips in the first epoch, then all."""

    def weigh(self, epoch, targets, last):
        return (torch.arange(len(targets.weight)) % 2 == 0).float() if epoch == 0 else torch.ones_like(targets.weight)
''',
}
GROUPS = {
    "fusion": {"name": "maximum", "options": {"scale": 0.5}},
    "loss": {"emotion": {"name": "squared"}, "dimensions": {"name": "concordance"}, "frames": {"name": "concordance"}},
    "task": {"level": "frame"},
}


@pytest.fixture
def parts(tmp_path, monkeypatch):
    folder = tmp_path / "parts"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv("AFFECTORY_PARTS", str(folder))
    return folder


def test_one_file_each_is_all_it_takes(fabricate, parts, tmp_path):
    corpus = fabricate(clips=40)
    params = corpus.params(**GROUPS, training={"epochs": 3, "curriculum": {"name": "first_half"}})
    folder = train(params, corpus.index(params), **corpus.files, out=tmp_path / "runs")[0]
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["fusion"] == {"name": "maximum", "options": {"scale": 0.5}}
    losses = [row["train_loss"] for row in json.loads((folder / "history.json").read_text())]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_worker_processes_find_them(fabricate, parts, tmp_path):
    corpus = fabricate(clips=30)
    params = corpus.params(**GROUPS, training={"epochs": 1, "seeds": 5}, run={"workers": 2})
    assert len(train(params, corpus.index(params), **corpus.files, out=tmp_path / "runs")) == 5


def test_an_edit_of_the_file_is_another_run(fabricate, parts, tmp_path):
    import sys

    corpus = fabricate(clips=30)
    params = corpus.params(**GROUPS, training={"epochs": 1})
    job = Job(list_variants(params)[0], 0, 0)
    made = Sources(str(corpus.index(params)), *(str(path) for path in corpus.files.values()))
    first, _ = run_job(params, made, job)
    file = parts / "fusion/maximum.py"
    file.write_text(file.read_text() + "\n# a comment decides nothing\n")
    assert run_job(params, made, job)[0] == first
    file.write_text(file.read_text().replace("-1e4", "-1e5"))
    del sys.modules["pipeline.models.fusion.maximum"]
    assert run_job(params, made, job)[0] != first


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"fusion": {"name": "maximum", "options": {"size": 1}}}, "Unknown parameter of fusion.options 'size'"),
        ({"fusion": {"name": "maximun"}}, "Unknown fusion 'maximun'. Did you mean 'maximum'?"),
        ({"loss": {"emotion": {"name": "sqared"}}}, "Unknown loss 'sqared'. Did you mean 'squared'?"),
        ({"loss": {"emotion": {"name": "concordance"}}}, "loss.emotion: concordance reads dimensions, frames, not emotion"),
        ({"loss": {"smell": {"name": "squared"}}}, "Unknown output of loss.smell 'smell'"),
        ({"loss": {"a": {"name": "squared", "on": "emotion@radio"}}}, "Unknown stream of loss.a 'radio'"),
        ({"loss": {"speaker": {"name": "squared"}}, "task": {"emotion": False}}, "training.select is 'uar'"),
        ({"training": {"curriculum": {"name": "second_half"}}}, "Unknown curriculum 'second_half'"),
        ({"training": {"rates": {"fusion": 0.5, "encoder": 0.1}}}, "Unknown part in training.rates 'encoder'"),
        ({"training": {"phases": [{"freeze": ["encoder"]}]}}, "Unknown part in training.phases.freeze 'encoder'"),
        ({"training": {"phases": [{"freeze": ["encoders", "fusion", "heads"]}]}}, "leaves nothing to learn"),
        ({"heads": {"speker": {"name": "adversary"}}}, "Unknown output in heads 'speker'. Did you mean 'speaker'?"),
        ({"loss": {"f": {"name": "concordance", "on": "frames@audio"}}}, "Unknown output of loss.f 'frames@audio'"),
        ({"context": {"name": "attention", "options": {"turns": 0}}}, "context.options: turns and later are both 0"),
        ({"context": {"name": "attention", "options": {"later": -1}}}, "context.options.later"),
    ],
)
def test_mistakes_are_one_line(fabricate, parts, tmp_path, groups, said):
    corpus = fabricate(clips=30)
    params = corpus.params(**groups)
    with pytest.raises(ParamsError) as caught:
        train(params, corpus.index(params), **corpus.files, out=tmp_path / "runs")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_without_its_class(fabricate, parts, tmp_path):
    (parts / "fusion/empty.py").write_text("x = 1\n")
    corpus = fabricate(clips=30)
    params = corpus.params(fusion={"name": "empty"})
    with pytest.raises(ParamsError, match="empty.py holds no class Empty that is a Fusion"):
        train(params, corpus.index(params), **corpus.files, out=tmp_path / "runs")
