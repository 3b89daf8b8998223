"""Memory that is kept: the kernel is asked for a batch's activations once, not for every batch."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from pipeline.features.engine.allocation import keep_freed_memory
torch.set_num_threads(1)
kept = sys.argv[1] == "keep" and keep_freed_memory()
network = torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))).eval()
torch.manual_seed(0)
pixels = torch.randn(16, 16, 224, 224)  # activations of 49 MiB
with torch.inference_mode():
    network(pixels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    rows = [network(pixels).sum() for _ in range(5)]
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_pages_are_faulted_in_once():
    def run(word):
        done = subprocess.run([sys.executable, "-c", SCRIPT, word], capture_output=True, text=True, check=True)
        kept, faults = done.stdout.split()
        return kept == "True", int(faults)

    (kept, few), (_, many) = run("keep"), run("default")
    assert kept and few < many / 2, (few, many)
