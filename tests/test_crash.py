"""Crash safety of the real command line: killed, asked to end, run twice at once, on a disk that takes no more."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CacheError, DiskError
from pipeline.stop import SIGNALS, Stopped, stoppable
from pipeline.storage import atomic, feature_store, hdf5, housekeeping
from pipeline.storage.atomic import atomic_file, atomic_folder
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry

ROOT = Path(__file__).resolve().parents[1]
TIMES = np.zeros((1, 2), np.float32)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What tests/stages.py saw: every stage killed twice and asked to end once; then two clones at once."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-B", str(ROOT / "tests" / "stages.py"), str(tmp_path_factory.mktemp("stages")), "2"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_stage_killed_at_random_moments_ends_with_the_bytes_of_a_calm_run(found):
    assert found["failed"] == []
    assert len(found["kills"]) == 10 and sum(found["kills"].values()) >= 20, found["kills"]
    assert found["differ"] == []


@pytest.mark.slow
def test_what_a_kill_leaves_is_old_or_whole_and_nothing_else(found):
    assert found["partial"] == []
    assert found["updated"] == []  # a file of the same name, linked from elsewhere, was replaced and not written to
    assert found["left"] == []  # temporary files of killed runs are gone


@pytest.mark.slow
def test_a_stage_asked_to_end_says_one_line(found):
    assert found["unheard"] == []
    assert sum(found["asked"].values()) >= 8, found["asked"]


@pytest.mark.slow
def test_two_clones_at_once_on_one_cache_that_is_checked_and_cleared(found):
    assert found["together"] == {"failed": [], "differ": [], "files": found["together"]["files"]}
    assert found["together"]["files"] >= 10


@pytest.fixture
def disk(tmp_path):
    """`disk(kilobytes)` → a folder on a disk of that size, and a function that changes how it is mounted."""
    if os.geteuid():
        pytest.skip("mounting a small disk takes root")
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here ({done.stderr.strip()})")

    def make(kilobytes: int):
        mount(f"size={kilobytes}k")
        return folder, lambda options: mount(f"remount,{options}")

    yield make
    subprocess.run(["umount", str(folder)], capture_output=True)


def entry(size: int, value: float = 1.0) -> Entry:
    return Entry(np.full((1, size), value, np.float32), TIMES)


def write(path: Path, count: int) -> None:
    feature_store.write(
        path, [f"{i:05d}" for i in range(count)], (entry(500) for _ in range(count)), rows=[1] * count, shape=(500,)
    )


@pytest.mark.parametrize("count", [249, 260, 4000])
def test_a_store_on_a_full_disk_is_a_line_and_the_old_one_stays(disk, count):
    """Full at the last block, near the end, from the start: HDF5 by itself ends the process at its close."""
    folder, remount = disk(300)
    write(folder / "x.h5", 40)
    before = (folder / "x.h5").read_bytes()
    with pytest.raises(DiskError, match="x.h5 cannot be written: No space left") as caught:
        write(folder / "x.h5", count)
    assert "\n" not in str(caught.value)
    assert os.listdir(folder) == ["x.h5"] and (folder / "x.h5").read_bytes() == before
    remount("size=64m")
    write(folder / "x.h5", count)
    assert len(feature_store.Store(folder / "x.h5")) == count
    remount("ro")
    with pytest.raises(DiskError, match="Read-only"):
        write(folder / "x.h5", 1)


@pytest.mark.parametrize("kilobytes", [0, 4, 64, 68, 84, 128])
def test_a_cache_on_a_full_disk_is_a_line_and_keeps_what_it_has(disk, kilobytes):
    """No room for anything, for the file of locks, for the table, for the clips."""
    folder, remount = disk(512)
    (folder / "ballast").write_bytes(bytes((512 - kilobytes) << 10))
    kept = 0
    with pytest.raises(CacheError) as caught, ClipCache("extract", {"a": 1}, base=folder) as cache:
        for kept in range(1000):  # noqa: B007
            cache.put({str(kept): entry(2000, kept)})
    assert "AFFECTORY_CACHE" in str(caught.value) and "\n" not in str(caught.value)
    remount("size=64m")
    with ClipCache("extract", {"a": 1}, base=folder) as cache:
        assert len(cache) == kept and not cache.verify()
        cache.put({"more": entry(2000)})
        assert cache.missing([*map(str, range(kept)), "more"]) == set()


def test_a_write_protected_cache_serves_what_it_has(disk):
    folder, remount = disk(4096)
    with ClipCache("extract", {"a": 1}, base=folder) as cache:
        cache.put({"x": entry(3)})
    remount("ro")
    with ClipCache("extract", {"a": 1}, base=folder) as cache:
        assert cache.missing(["x", "y"]) == {"y"} and cache.get("x").values.shape == (1, 3)
        with pytest.raises(CacheError, match="cannot be written"):
            cache.put({"y": entry(3)})
    with pytest.raises(CacheError, match="Read-only file system.*AFFECTORY_CACHE"):
        ClipCache("extract", {"b": 1}, base=folder)


def test_gc_keeps_what_a_run_uses(tmp_path):
    with ClipCache("extract", {"a": 1}) as cache:
        cache.put({"x": entry(3)})
        assert housekeeping.collect_idle(days=0)[0].endswith("a run uses it")
    assert housekeeping.collect_idle(days=0)[0].startswith("removed") and not cache.folder.exists()


def test_looking_at_the_cache_is_no_use_of_it():
    with ClipCache("extract", {"a": 1}) as cache:
        cache.put({"x": entry(3)})
    os.utime(cache.folder / "identity.json", (1, 1))
    assert "0.0 days idle" not in housekeeping.format_stats() and housekeeping.verify_clips() == 0
    assert housekeeping.collect_idle(days=1000)[0].startswith("removed")


def test_a_folder_is_replaced_in_one_rename_or_kept(tmp_path):
    for content in ("first", "second"):
        with atomic_folder(tmp_path / "run") as made:
            (made / "done").write_text(content)
        assert (tmp_path / "run" / "done").read_text() == content
    with atomic_folder(tmp_path / "run", keep="done") as made:
        (made / "done").write_text("third")
    with pytest.raises(KeyError), atomic_folder(tmp_path / "run") as made:
        raise KeyError
    assert (tmp_path / "run" / "done").read_text() == "second" and os.listdir(tmp_path) == ["run"]


def test_what_ended_processes_left_is_removed_and_what_others_write_is_not(tmp_path, monkeypatch):
    script = "import os, sys; from pipeline.storage import atomic\nwith atomic.atomic_file(sys.argv[1]): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "x.h5")], env=os.environ | {"PYTHONPATH": str(ROOT)})
    (left,) = os.listdir(tmp_path)
    living = [left.replace(left.split(".")[-3], name) for name in (f"{atomic._host()}-{os.getpid()}", "elsewhere-1")]
    for name in living:
        (tmp_path / name).touch()
    with atomic_file(tmp_path / "y.h5") as temporary:
        temporary.write_text("y")
    assert sorted(os.listdir(tmp_path)) == sorted([*living, "y.h5"])


@pytest.fixture
def handlers():
    """Signals as a run hears them, and afterwards as the tests do."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with stoppable():
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("moment", [1, 2, 5, 9])
def test_a_stop_while_hdf5_writes_ends_the_run_and_not_the_process(tmp_path, monkeypatch, handlers, moment):
    class Sink(hdf5._Sink):
        calls = 0

        def write(self, data):
            self.calls += 1
            if self.calls == moment:
                signal.raise_signal(signal.SIGTERM)
            return super().write(data)

    monkeypatch.setattr(hdf5, "_Sink", Sink)
    with pytest.raises(Stopped):
        write(tmp_path / "x.h5", 10)
    assert os.listdir(tmp_path) == []


def test_a_stop_between_two_writes_does_not_wait_for_the_end(tmp_path, monkeypatch, handlers):
    monkeypatch.setattr(feature_store, "BLOCK", 4000)
    seen = []

    def entries():
        for i in range(100):
            seen.append(i)
            if i == 10:
                signal.raise_signal(signal.SIGINT)
            yield entry(500)

    with pytest.raises(Stopped):
        feature_store.write(tmp_path / "x.h5", [f"{i:05d}" for i in range(100)], entries(), rows=[1] * 100, shape=(500,))
    assert os.listdir(tmp_path) == [] and len(seen) < 20


@pytest.mark.parametrize("room", [0, 1, 100, 1000, 3000, 5000, 9000, 13000, 20999, 21500])
def test_a_disk_that_refuses_at_any_byte(tmp_path, monkeypatch, room):
    class Sink(hdf5._Sink):
        def write(self, data):
            if self.tell() + len(data) > room and self.error is None:
                self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(hdf5, "_Sink", Sink)
    with pytest.raises(DiskError, match="No space left"):
        write(tmp_path / "x.h5", 20)
    assert os.listdir(tmp_path) == []


WORKERS = """
import concurrent.futures, multiprocessing, os, sys, time
from pathlib import Path
from pipeline.workers.pool import Pool
from pipeline.stop import follow_parent, stoppable

def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    how, folder = sys.argv[1:]
    with stoppable():
        if how == "pool":
            with Pool(work, workers=2) as pool:
                list(pool.imap_unordered([(0, folder), (1, folder)]))
        elif how == "engine":
            from pipeline.features.engine.prefetch import Prefetch

            with Pool(work, workers=2) as pool:
                with Prefetch(pool.imap_unordered([(0, folder), (1, folder)]), 2, pool.interrupt) as outcomes:
                    list(outcomes)
        else:
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(2, context, follow_parent) as pool:
                try:
                    list(pool.map(work, [folder, folder]))
                except BaseException:
                    for child in multiprocessing.active_children():
                        child.kill()
                    raise
"""


@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGKILL, False)])
@pytest.mark.parametrize("how", ["pool", "engine", "executor"])
def test_workers_end_with_their_run(tmp_path, how, number, group):
    script, folder = tmp_path / "script.py", tmp_path / "pids"
    script.write_text(WORKERS)
    folder.mkdir()
    run = subprocess.Popen(
        [sys.executable, str(script), how, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(os.listdir(folder)) < 2 and run.poll() is None:
        time.sleep(0.02)
    (os.killpg if group else os.kill)(run.pid, number)
    _, said = run.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert run.returncode == -number
    else:
        assert run.returncode == 128 + number
        assert said.count("\n") == 1 and said.endswith("run the same command to go on.\n")
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in os.listdir(folder)):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.05)


STAGE = """
import os, sys, time
from pathlib import Path
from pipeline.stop import stoppable
from pipeline.workers.pool import Pool

def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    with stoppable():
        (Path("pids") / str(os.getpid())).touch()
        with Pool(work, workers=2) as pool:
            list(pool.imap_unordered([(0, "pids"), (1, "pids")]))
"""


@pytest.mark.parametrize("after", ["", "; true"])
def test_a_stage_and_its_workers_end_when_dvc_is_killed(tmp_path, after):
    """With `; true` a shell stays between the two, which outlives DVC as well."""
    (tmp_path / "pids").mkdir()
    (tmp_path / "stay.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(f"stages:\n  stay:\n    cmd: '{sys.executable} stay.py{after}'\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], cwd=tmp_path, env=environment, check=True)
    run = subprocess.Popen(
        [*dvc, "repro"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while len(os.listdir(tmp_path / "pids")) < 3:
            assert run.poll() is None
            time.sleep(0.05)
        run.kill()
        run.wait(60)
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in os.listdir(tmp_path / "pids")):
            assert time.monotonic() < deadline, "a stage outlived its dvc"
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


def test_a_stage_run_by_hand_outlives_the_shell_that_started_it(tmp_path):
    script = "import sys, time\nfrom pipeline.stop import stoppable\n"
    script += "with stoppable():\n    time.sleep(3)\n    open(sys.argv[1], 'w').close()"
    command = f'{sys.executable} -c "$SCRIPT" {tmp_path}/done & sleep 0.2'
    environment = {key: value for key, value in os.environ.items() if key != "DVC_STAGE"}
    subprocess.run(["sh", "-c", command], env=environment | {"PYTHONPATH": str(ROOT), "SCRIPT": script}, check=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
