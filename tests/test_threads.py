"""Threads of a computation, also while another thread is importing the library."""

import subprocess
import sys

SCRIPT = """
import sys, threading, time
from pipeline.threads import computing
first = threading.Thread(target=__import__, args=("torch",))
first.start()
while "torch" not in sys.modules:
    time.sleep(0.001)
with computing(1):
    import torch
    print(torch.get_num_threads())
first.join()
"""


def test_a_library_that_is_half_imported_is_waited_for():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
