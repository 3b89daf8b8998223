"""Stages of the real command line as children of one process that has the libraries loaded, to be killed at a moment.

`python tests/stages.py FOLDER` prepares an undisturbed run in `FOLDER/whole`, then the run that is disturbed, and prints what
it saw as JSON (tests/test_crash.py reads it).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

STAGES = (
    ("corpus", "prepare"),
    ("manifest",),
    ("frames",),
    ("audio",),
    ("extract", "audio"),
    ("extract", "text"),
    ("index",),
    ("train",),
    ("evaluate",),
    ("report",),
)
SMALL = ("recipe=demo", "training=quick", "quarantine.max_rate=0.5", "protocol.val=0.3", "protocol.test=0.3")
CORPUS = {
    "sessions": 3,
    "dialogues": 3,
    "turns": 4,
    "size": 48,
    "fps": 4,
    "shortest": 0.5,
    "longest": 0.6,
    "no_text": 0.0,
    "no_sound": 0.0,
    "no_picture": 0.0,
}
#: A vocabulary: what is said in most clips.
WORDS = "the i it is my so a about was you am this what and on at ! , .".split()
#: What may stand in a file of the same name before: never opened for update, only replaced.
OLD = b"of an earlier run\n"
#: Times, which no two runs share.
TIMED = ".stats.json"
#: What the interpreter announces before it changes a file or folder.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree", "shutil.copytree")


def parameters(folder: Path) -> None:
    """Two streams without a large library: log-mel spectrograms and word vectors."""
    from pipeline.compose import compose, text

    values = compose(SMALL)
    values["corpus"]["options"] = CORPUS
    values["run"] |= {"device": "cpu", "workers": 0}
    values["training"] |= {"epochs": 6, "seeds": 2}
    chance = random.Random(0)
    lines = (" ".join([word, *(f"{chance.gauss(0, 1):.3f}" for _ in range(6))]) for word in WORDS)
    (folder / "words.txt").write_text("\n".join(lines) + "\n")
    values["streams"] = {
        "audio": {
            "modality": "audio",
            "source": "data/audio.h5",
            "encoder": "logmel",
            "weights": "none",
            "pooling": "statistics",
        },
        "text": {
            "modality": "text",
            "source": "data/manifest.parquet",
            "encoder": "glove",
            "weights": f"file:{folder / 'words.txt'}",
        },
    }
    (folder / "params.yaml").write_text(text(values))


class Workspace:
    """A folder that stages run in, with a clip cache of its own."""

    def __init__(self, folder: Path, cache: Path, params: Path) -> None:
        self.folder, self.cache, self.params = folder, cache, params
        self.folder.mkdir(parents=True)
        self.log = folder.with_name(f"{folder.name}.log")
        self.count, self.modules = folder.with_name(f"{folder.name}.count"), folder.with_name(f"{folder.name}.modules")

    def start(self, words: tuple[str, ...], *, at: int | None = None, number: int = signal.SIGKILL) -> int:
        """The process id of a child that runs a stage; its `at`-th change of a file sends it the signal `number` instead."""
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            code = 70
            try:
                code = self._run(words, at, number)
            except SystemExit as end:
                code = end.code or 0
            except BaseException:  # noqa: BLE001  printed; the child ends below whatever it was
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        return pid

    def _run(self, words: tuple[str, ...], at: int | None, number: int) -> int:
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        os.chdir(self.folder)
        os.environ["AFFECTORY_CACHE"] = str(self.cache)
        sys.argv = ["pipeline", *words, *(() if words[0] == "cache" else ("--params", str(self.params)))]
        seen, counting = 0, True

        def watch(event: str, details: tuple) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
            if counting and (writes or event in CHANGES):
                seen += 1
                if seen == at:
                    os.kill(os.getpid(), number)

        sys.addaudithook(watch)
        from pipeline.cli import main
        from pipeline.stop import stoppable

        with stoppable():
            try:
                main()
            finally:
                counting = False
                self.count.write_text(str(seen))
                self.modules.write_text("\n".join(sys.modules))
        return 0

    def run(self, words: tuple[str, ...], **options) -> int:
        """The exit code; that of a killed stage is the negative number of the signal."""
        return ended(self.start(words, **options))

    def files(self) -> dict[str, bytes]:
        """Everything written, by name."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()
        }


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def disturbed(whole: Workspace, other: Workspace, kills: int, chance: random.Random) -> dict:
    """Every stage stopped again and again, then left to run through; after each stop what is there is old or whole."""
    found: dict = {"kills": {}, "asked": {}, "partial": [], "failed": [], "unheard": []}
    known: dict[str, bytes] = {}
    for words in STAGES:
        name = " ".join(words)
        before, started = set(whole.files()), time.monotonic()
        if whole.run(words):
            found["failed"].append([name, whole.log.read_text()])
            break
        seconds, changes = time.monotonic() - started, int(whole.count.read_text())
        load(whole)
        results = whole.files()
        made = set(results) - before
        known |= {file: results[file] for file in made}
        for i, file in enumerate(sorted(made)):
            old = other.folder.with_name(f"old{len(known)}-{i}")
            old.write_bytes(OLD)
            (other.folder / file).parent.mkdir(parents=True, exist_ok=True)
            os.link(old, other.folder / file)
        killed = asked = 0
        for attempt in range(5 * kills):
            if killed >= kills and asked:
                break
            # Killed at any time at all, as inside a library, or before a change of a file; and once asked to end.
            number = signal.SIGKILL if killed < kills else chance.choice((signal.SIGTERM, signal.SIGINT))
            started = time.monotonic()
            if attempt % 2 and number == signal.SIGKILL:
                pid = other.start(words)
                time.sleep(chance.uniform(0, seconds))
                os.killpg(pid, number)
                code = ended(pid)
            else:
                code = other.run(words, at=chance.randint(1, changes), number=number)
            if code == 0:  # done: what is left to do is less
                seconds, changes = time.monotonic() - started, int(other.count.read_text())
            elif number == signal.SIGKILL:
                killed += code == -number
            else:
                asked += 1
                said = other.log.read_text()
                if code != 128 + number or said.count("run the same command to go on.\n") != 1 or "Traceback" in said:
                    found["unheard"].append([name, number, code, said])
            for file, content in other.files().items():
                if file in known and content not in (OLD, known[file]) and not file.endswith(TIMED):
                    found["partial"].append([name, file])
        found["kills"][name], found["asked"][name] = killed, asked
        if other.run(words):
            found["failed"].append([name, other.log.read_text()])
    found["updated"] = [old.name for old in other.folder.parent.glob("old*") if old.read_bytes() != OLD]
    mine = other.files()
    found["differ"] = sorted(f for f in known if mine.get(f) != known[f] and not f.endswith(TIMED))
    found["left"] = sorted(set(mine) - set(known))
    return found


def load(workspace: Workspace) -> None:
    """Import what the child has imported, so that the next one need not."""
    for name in workspace.modules.read_text().split("\n"):
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def together(whole: Workspace, folder: Path) -> dict:
    """Two clones at once on one cache, which is checked and cleared the while."""
    stages = (("audio",), ("extract", "audio"), ("extract", "text"), ("index",), ("train",))
    care = (("cache", "verify"), ("cache", "gc", "--days", "0"), ("cache", "stats"))
    clones = [Workspace(folder / name, folder / "cache.shared", whole.params) for name in ("one", "two")]
    keeper = Workspace(folder / "keeper", folder / "cache.shared", whole.params)
    known, found = whole.files(), {"failed": [], "differ": []}
    for clone in clones:
        for file in ("manifest", "folds", "annotations"):
            (clone.folder / "data").mkdir(exist_ok=True)
            shutil.copy(whole.folder / "data" / f"{file}.parquet", clone.folder / "data")
        os.symlink(whole.folder / "data" / "corpus", clone.folder / "data" / "corpus")
    for words in stages:
        running = [clone.start(words) for clone in clones]
        codes = [keeper.run(command) for command in care]
        codes += [ended(pid) for pid in running]
        if any(codes):
            found["failed"].append([" ".join(words), codes, *(w.log.read_text() for w in (keeper, *clones))])
    if keeper.run(("cache", "verify")):
        found["failed"].append(["cache verify", keeper.log.read_text()])
    for clone in clones:
        mine = {file: content for file, content in clone.files().items() if not file.endswith(TIMED)}
        found["differ"] += [file for file, content in mine.items() if known.get(file) != content]
    found["files"] = len(mine)
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    import pipeline.training.jobs as training
    from pipeline.workers import pool as isolated

    # Loaded by the first step of an optimiser, which would make `train` look long.
    importlib.import_module("torch._dynamo")
    # Saved at every epoch, so that a kill finds a run to be continued.
    training.run_job.__kwdefaults__["every"] = 0.0
    # Read in the stage's own process: workers, which end with it, are tested elsewhere and cost a second each.
    begin = isolated.Pool.__init__
    isolated.Pool.__init__ = lambda self, function, **options: begin(self, function, **options | {"workers": 0})
    parameters(folder)
    params = folder / "params.yaml"
    begun = time.monotonic()
    whole = Workspace(folder / "whole", folder / "cache.whole", params)
    other = Workspace(folder / "other", folder / "cache.other", params)
    found = disturbed(whole, other, int(sys.argv[2]), random.Random(0))
    found["together"] = together(whole, folder)
    found["seconds"] = time.monotonic() - begun
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
