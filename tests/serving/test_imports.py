"""A prediction imports what the model's streams need, and no more: a film alone waits for every import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def imported(script: str, *names: str, **environment: str) -> list[str]:
    """Those of the modules that a process has after the script."""
    code = f"{script}\nimport sys\nprint(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_a_predictor_needs_torch_alone():
    script = "import pipeline.serving.files, pipeline.serving.predictor"
    heavy = ("transformers", "timm", "torchvision", "torch._dynamo", "scipy", "sklearn")
    assert imported(script, "torch", *heavy) == ["torch"]


@pytest.mark.parametrize("model", ["resnet18", "naflexvit_base_patch16_gap"])
def test_timm_comes_without_torchs_compiler_which_is_there_when_it_is_asked_for(model):
    script = f"""
from pipeline.features.encoders.vision import timm
network = timm.create_model({model!r}, {{}}).eval()
import sys
assert "torch._dynamo" not in sys.modules
import torch, torchvision
from torchvision.ops import roi_align
boxes = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
assert roi_align(torch.ones(1, 1, 4, 4), boxes, 1).item() == 1
before = torch._dynamo
assert before.__file__ and before.config is not None and torch._dynamo.disable(lambda: 3)() == 3
double = torch.compile(lambda x: 2 * x, backend="eager")
assert double(torch.ones(2)).tolist() == [2, 2]
"""
    assert imported(script, "torch._dynamo") == ["torch._dynamo"]
