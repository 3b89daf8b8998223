"""`dvc repro` that is killed at its n-th write of a file, after the file was emptied and before anything stands in it.

`python kill_dvc.py FILE N`: FILE is `rwlock` or `dvc.lock`.
"""

import json
import os
import signal
import sys

import ruamel.yaml
from dvc.cli import main


def killed_at(write, at):
    count = 0

    def count_and_write(*words, **named):
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(*words, **named)

    return count_and_write


if sys.argv[1] == "rwlock":
    json.dump = killed_at(json.dump, int(sys.argv[2]))
else:
    ruamel.yaml.YAML.dump = killed_at(ruamel.yaml.YAML.dump, int(sys.argv[2]))
sys.exit(main(["repro"]))
