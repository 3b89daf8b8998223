"""DVC's experiments as people run them: a folder of films under `corpora/`, copies of the queue, a clone without media, kills."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from ruamel.yaml import YAML

from pipeline.compose import compose, text

ROOT = Path(__file__).resolve().parents[1]
CHOICE = [
    "recipe=generic",
    "corpus.root=corpora/mine",
    "~stream@streams.video",
    "~stream@streams.text",
    "stream@streams.audio=logmel",
    "protocol.val=0.3",
    "protocol.test=0.3",
    "training=quick",
    "training.epochs=1",
    "run.workers=0",
    "run.device=cpu",
]
IMPORT = {"modality": "audio", "source": "weights/pitch.csv", "encoder": "import", "weights": "file:weights/pitch.csv"}
#: What is licensed, and must be in no commit.
MEDIA = (".wav", "clips.csv", "pitch.csv")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def write_corpus(folder):
    folder.mkdir(parents=True)
    chance, rows = np.random.default_rng(0), []
    for speaker in range(6):
        for emotion, pitch in (("calm", 220), ("angry", 880)):
            name = f"s{speaker}_{emotion}"
            tone = 0.3 * np.sin(2 * np.pi * pitch * np.arange(8000) / 16000) + 0.05 * chance.normal(size=8000)
            with wave.open(str(folder / f"{name}.wav"), "wb") as file:
                file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
                file.writeframes((tone * 20000).astype("<i2").tobytes())
            rows.append({"id": name, "audio": f"{name}.wav", "speaker": f"s{speaker}", "emotion": emotion})
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader(), table.writerows(rows)
    return [row["id"] for row in rows]


class Checkout:
    """A folder that is worked in by git, DVC and the pipeline's own commands."""

    def __init__(self, folder, cache):
        self.folder, self.cache = folder, cache

    def environment(self):
        quiet = {"AFFECTORY_CACHE": str(self.cache), "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "COLUMNS": "300"}
        person = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return os.environ | quiet | person | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(self, *words, **options):
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            **options,
        )

    def run(self, *words, check=True):
        process = self.start(*words, stdout=subprocess.PIPE)
        said = process.communicate()[0]
        assert not check or process.returncode == 0, said
        return said if check else (process.returncode, said)

    def git(self, *words):
        return self.run("git", *words)

    def dvc(self, *words, **options):
        return self.run(sys.executable, "-m", "dvc", *words, **options)

    def pipeline(self, *words, **options):
        return self.run(sys.executable, "-m", "pipeline", *words, **options)

    def committed(self):
        """Every file of every experiment."""
        refs = self.git("for-each-ref", "--format=%(refname)", "refs/exps").split()
        return {path for ref in refs for path in self.git("ls-tree", "-r", "--name-only", ref).splitlines()}

    def staged(self):
        return set(self.git("diff", "--cached", "--name-only").splitlines())


def ran(said):
    return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]


def done(said):
    """Stages that ran, or whose outputs came from the same run made before."""
    return re.findall(r"^(?:Running stage|Stage) '([^']+)'(?: is cached|:)", said, re.MULTILINE)


def no_media(paths):
    return not [path for path in paths if path.endswith(MEDIA)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clone, a corpus under corpora/, features made elsewhere under weights/; the run up to the index is committed."""
    made = Checkout(tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("cache"))
    for name in ("conf", "pipeline", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml"):
        source, target = ROOT / name, made.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name in ("data", "features", "models", "reports"):
        (made.folder / name).mkdir()
        shutil.copy(ROOT / name / "README.md", made.folder / name)
    names = write_corpus(made.folder / "corpora" / "mine")
    (made.folder / "weights").mkdir()
    lines = [f"{name},{220 if 'calm' in name else 880}.0" for name in names]
    (made.folder / "weights" / "pitch.csv").write_text("\n".join(["id,pitch", *lines]) + "\n")
    with (made.folder / "conf" / "stream" / "pitch.yaml").open("w") as file:
        YAML(typ="safe").dump(IMPORT | {"pooling": "none", "options": {"clip_id": "^generic/(.*)$"}}, file)
    made.git("init", "-q", "-b", "main", ".")
    made.pipeline("use", *CHOICE, "+stream@streams.pitch=pitch")
    made.git("add", ".")
    made.git("commit", "-q", "-m", "Chosen")
    said = made.dvc("repro", "index")
    assert {"link", "manifest", "extract@audio", "extract@pitch", "index"} <= set(ran(said))
    made.git("add", ".")
    made.git("commit", "-q", "-m", "First run")
    return made


def test_what_use_chose_is_what_every_run_starts_from(checkout):
    before = (checkout.folder / "params.yaml").read_bytes()
    assert YAML(typ="safe").load(before)["recipe"] == "generic"
    assert ran(checkout.dvc("exp", "run", "index")) == []
    assert (checkout.folder / "params.yaml").read_bytes() == before and not checkout.git("diff")
    assert no_media(checkout.git("ls-files").splitlines()) and no_media(checkout.committed())
    # An edit by hand is used, and said; the way back from it is git's and DVC's.
    edited = before.decode().replace("min_duration: 0.2", "min_duration: 0.3")
    (checkout.folder / "params.yaml").write_text(edited)
    said = checkout.dvc("repro", "manifest")
    assert said.count("is not what conf/ composes to: integrity.min_duration.") == ran(said).count("manifest") == 1
    assert "recipe generic: corpus generic in corpora/mine" in said
    checkout.git("restore", ".")
    checkout.dvc("checkout", "--allow-missing")
    assert ran(checkout.dvc("repro", "index")) == [] and not checkout.git("status", "--porcelain")


def test_the_queue_finds_corpus_and_weights_of_the_checkout(checkout):
    """Two copies at a time, which examine the corpus anew; nothing licensed gets into a commit."""
    # In the copies the corpus is examined anew, and features are read from weights/.
    sweep = ("-S", "integrity.min_duration=0.11,0.12", "-S", "streams.pitch.pooling=mean")
    queued = checkout.dvc("exp", "run", "--queue", *sweep, "extract@pitch")
    assert queued.count("Queued experiment") == 2
    # Its workers live on and would keep a pipe open.
    assert checkout.start(sys.executable, "-m", "dvc", "queue", "start", "-j", "2", stdout=subprocess.DEVNULL).wait(300) == 0
    end = time.monotonic() + 600
    while (state := checkout.dvc("queue", "status")) and ("Queued" in state or "Running" in state):
        assert time.monotonic() < end, state
        time.sleep(1)
    checkout.dvc("queue", "stop", "--kill")
    logs = [checkout.dvc("queue", "logs", name) for name in re.findall(r"'([^']+)' for future", queued)]
    assert state.count("Success") == 2, "".join(logs)
    # What one copy has done just before, the other takes from DVC's own cache of runs.
    assert all(done(log) == ["link", "manifest", "adapt@pitch", "extract@pitch"] for log in logs), logs
    refs = checkout.git("for-each-ref", "--format=%(refname)", "refs/exps").split()
    durations = {YAML(typ="safe").load(checkout.git("show", f"{ref}:params.yaml"))["integrity"]["min_duration"] for ref in refs}
    assert {0.11, 0.12} <= durations
    assert no_media(checkout.committed())
    assert not [path for path in checkout.committed() if path.startswith(("corpora", "weights"))]


def test_a_corpus_elsewhere_in_the_checkout_is_kept_out_of_git_also_when_stopped(checkout):
    shutil.copytree(checkout.folder / "corpora" / "mine", checkout.folder / "my films [1]")
    log = checkout.folder.parent / "stopped.log"
    with log.open("w") as file:
        words = ("exp", "run", "-S", "corpus.root='my films [1]'", "audio")
        process = checkout.start(sys.executable, "-m", "dvc", *words, stdout=file)
        end = time.monotonic() + 300
        while "Running stage 'audio'" not in log.read_text() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert {"link", "manifest"} <= set(ran(log.read_text())), log.read_text()
    assert no_media(checkout.staged()) and "films" not in checkout.git("status", "--porcelain", "-uall")
    checkout.git("restore", "--staged", ".")
    checkout.git("restore", ".")
    checkout.dvc("exp", "run", "-S", "corpus.root='my films [1]'", "audio")
    assert no_media(checkout.committed()) and not [path for path in checkout.committed() if path.startswith("my films")]
    checkout.git("restore", ".")
    checkout.dvc("checkout", "--allow-missing")


def test_a_clone_without_media_trains_on_pulled_features(checkout, tmp_path):
    checkout.dvc("remote", "add", "-d", "store", str(tmp_path / "remote"))
    checkout.git("commit", "-q", "-a", "-m", "Remote")
    checkout.dvc("push")
    clone = Checkout(tmp_path / "clone", tmp_path / "cache")
    checkout.git("clone", "-q", ".", str(clone.folder))
    # Files are links into DVC's cache, which lies elsewhere here.
    clone.dvc("config", "--local", "cache.type", "symlink")
    clone.dvc("pull", "corpus", "manifest", "audio", "adapt", "extract", "index")
    assert not (clone.folder / "corpora").exists() and (clone.folder / "data" / "index.h5").is_symlink()
    with h5py.File(clone.folder / "data" / "index.h5") as index:
        assert index["streams/audio"].get("store", getlink=True).filename == "../features/audio.h5"
    # Without a word of it, the missing corpus stops the run before anything is removed.
    code, said = clone.dvc("repro", "train", check=False)
    assert code and said.count("corpora/mine is not a folder") == 1 and "dvc repro --allow-missing" in said
    assert pl.read_parquet(clone.folder / "data" / "manifest.parquet").height == 12
    assert ran(clone.dvc("exp", "run", "--allow-missing", "-S", "fusion=late", "train")) == ["train"]
    assert list((clone.folder / "models" / "runs").iterdir())


@pytest.mark.parametrize(("what", "at"), [("rwlock", 1), ("rwlock", 4), ("dvc.lock", 2), ("time", 0)])
def test_a_killed_dvc_is_mended_and_goes_on(tmp_path, what, at):
    """DVC is killed where it has emptied a file of its own to write it anew; or at any moment."""
    checkout = Checkout(tmp_path, tmp_path / "cache")
    checkout.git("init", "-q")
    checkout.dvc("init", "-q")
    stages = {name: {"cmd": f"sleep 0.2; cp {source} {name}", "deps": [source], "outs": [name]} for name, source in ("ax", "ba")}
    with (tmp_path / "dvc.yaml").open("w") as file:
        YAML(typ="safe").dump({"stages": stages}, file)
    (tmp_path / "x").write_text("content")
    if what == "time":
        for moment in (0.5, 0.9, 1.2):
            process = checkout.start(sys.executable, "-m", "dvc", "repro", stdout=subprocess.DEVNULL)
            time.sleep(moment)
            process.kill()
            process.wait()
    else:
        code, said = checkout.run(sys.executable, str(ROOT / "tests" / "kill_dvc.py"), what, str(at), check=False)
        assert code == -signal.SIGKILL, said
        broken = tmp_path / {"rwlock": ".dvc/tmp/rwlock", "dvc.lock": "dvc.lock"}[what]
        assert broken.read_text() == "" and checkout.dvc("repro", check=False)[0]
        # While a DVC is at work, nothing is touched.
        other = checkout.start(
            sys.executable, "-c", "import time; print(flush=True); time.sleep(99)", "dvc", stdout=subprocess.PIPE
        )
        other.stdout.readline()
        code, said = mend(checkout)
        other.kill()
        other.communicate()
        assert code == 2 and f"PID {other.pid}" in said and broken.read_text() == ""
    code, said = mend(checkout)
    assert code == 0 and (what == "time" or said.count("half written by a DVC that was killed") == 1)
    checkout.dvc("repro")
    assert (tmp_path / "b").read_text() == "content" and ran(checkout.dvc("repro")) == []
    assert mend(checkout) == (0, "")


def mend(checkout):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipeline.__main__ import run; sys.argv[1:] = ['mend']; run()"
    return checkout.run(sys.executable, "-c", code, check=False)


def test_composition_has_the_bytes_of_dvc(tmp_path):
    """DVC's own composition, in DVC's own words: no `git diff` after an experiment that changes nothing."""
    from dvc.utils.hydra import compose_and_dump

    for overrides in ([], ["recipe=ravdess", "fusion=late"], ["recipe=mer2023", "training.lr=0.000001"]):
        compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", overrides)
        assert (tmp_path / "params.yaml").read_text() == text(compose(overrides, ROOT / "conf"))
