"""A crash, a hang or an exception costs one task; nothing is left behind."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.data.decode.errors import DecodeError
from pipeline.errors import WorkerError
from pipeline.workers.pool import Pool

pytestmark = pytest.mark.timeout(120)


def chore(payload):
    """What a worker is asked to do; imported by name in the worker."""
    kind, value = payload
    if kind == "square":
        return value * value
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "abort":
        os.abort()
    if kind == "exit":
        os._exit(value)
    if kind == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        while True:
            time.sleep(1)
    if kind == "sleep":
        time.sleep(value)
        return value
    if kind == "raise":
        raise ValueError("no\nsuch luck")
    if kind == "decode":
        raise DecodeError("truncated", "ends at 1 s", "a.mp4")
    if kind == "array":
        return {"a": np.full(value, 7, np.float32), "b": np.arange(5)}
    if kind == "sum":
        return float(value.sum())
    if kind == "pid":
        return os.getpid()
    raise AssertionError(kind)


def refuse(payload):
    raise SystemExit(payload)


@pytest.fixture(scope="module")
def pool():
    with Pool(chore, workers=2, timeout=2.0) as pool:
        yield pool


def test_results_in_any_order_and_in_order(pool):
    tasks = [(f"k{i}", ("square", i)) for i in range(50)]
    assert {o.key: o.value for o in pool.imap_unordered(tasks)} == {f"k{i}": i * i for i in range(50)}
    slow_first = [(0, ("sleep", 0.2)), *((i, ("square", i)) for i in range(1, 20))]
    assert [o.key for o in pool.imap(slow_first)] == list(range(20))


@pytest.mark.parametrize(
    ("kind", "reason", "detail"),
    [
        ("segfault", "crash", "SIGSEGV"),
        ("abort", "crash", "SIGABRT"),
        ("exit", "crash", "exit code 3"),
        ("hang", "timeout", "2 s"),
        ("raise", "error", "ValueError: no such luck"),
        ("decode", "truncated", "ends at 1 s"),
    ],
)
def test_trouble_costs_one_task(pool, kind, reason, detail):
    tasks = [(i, ("square", i)) for i in range(12)]
    tasks[3] = (3, (kind, 3))
    outcomes = {o.key: o for o in pool.imap_unordered(tasks)}
    assert outcomes[3].reason == reason and detail in outcomes[3].detail and outcomes[3].value is None
    assert not outcomes[3].ok
    assert {k: o.value for k, o in outcomes.items() if k != 3} == {i: i * i for i in range(12) if i != 3}


def test_every_other_task_crashes(pool):
    tasks = [(i, ("exit", 1) if i % 2 else ("square", i)) for i in range(16)]
    outcomes = list(pool.imap(tasks))
    assert [o.key for o in outcomes] == list(range(16))
    assert [o.ok for o in outcomes] == [i % 2 == 0 for i in range(16)]


def test_arrays_arrive_whole_and_writable(pool):
    [small, large] = pool.imap([("s", ("array", 10)), ("l", ("array", 5_000_000))])
    for outcome, size in ((small, 10), (large, 5_000_000)):
        a = outcome.value["a"]
        assert a.shape == (size,) and a.dtype == np.float32 and (a == 7).all()
        assert outcome.value["b"].tolist() == [0, 1, 2, 3, 4]
        a[0] = 1  # belongs to the receiver
    sent = np.arange(1_000_000, dtype=np.float64)
    [answer] = pool.imap([("x", ("sum", sent))])
    assert answer.value == sent.sum()


def test_tasks_are_drawn_only_as_needed(pool):
    drawn = []

    def tasks():
        for i in range(1000):
            drawn.append(i)
            yield i, ("square", i)

    for given, _ in enumerate(pool.imap_unordered(tasks()), 1):
        assert len(drawn) <= given + 2 * 2 + 4
        if given == 100:
            break
    assert len(drawn) < 120


def test_a_slow_consumer_costs_no_task():
    with Pool(chore, workers=2, timeout=0.5) as pool:
        outcomes = []
        for outcome in pool.imap_unordered([(i, ("array", 200_000)) for i in range(8)]):
            time.sleep(0.4)
            outcomes.append(outcome)
    assert all(o.ok for o in outcomes) and len(outcomes) == 8


def test_workers_are_recycled():
    with Pool(chore, workers=1, recycle=3) as pool:
        pids = [o.value for o in pool.imap([(i, ("pid", 0)) for i in range(9)])]
    assert pids == [pids[0]] * 3 + [pids[3]] * 3 + [pids[6]] * 3 and len(set(pids)) == 3


def test_no_workers_means_this_process():
    with Pool(chore, workers=0) as pool:
        outcomes = list(pool.imap([(1, ("pid", 0)), (2, ("raise", 0))]))
    assert outcomes[0].value == os.getpid() and outcomes[1].reason == "error"


def test_a_worker_that_quits_is_a_crash():
    with Pool(refuse, workers=1) as pool:
        [outcome] = pool.imap([(1, 5)])
    assert outcome.reason == "crash" and "exit code 5" in outcome.detail


def test_a_function_that_cannot_be_imported_is_told():
    with Pool(functools.partial(_vanishing()), workers=1) as pool, pytest.raises(Exception, match="import|pickle"):
        list(pool.imap([(1, 1)]))


def _vanishing():
    return lambda payload: payload


def test_leaving_early_ends_the_workers():
    pool = Pool(chore, workers=2)
    iterator = pool.imap_unordered([(i, ("pid", 0)) for i in range(100)])
    pid = next(iterator).value
    iterator.close()
    assert _gone({pid})


def _gone(pids: set[int], patience: float = 10.0) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


SCRIPT = """
import os, sys, time
from pipeline.errors import WorkerError
from pipeline.workers.pool import Pool

def stay(payload):
    os.write(1, f"{os.getpid()}\\n".encode())  # whole, whoever writes beside it
    time.sleep(1000)

if __name__ == "__main__":
    with Pool(stay, workers=2) as pool:
        list(pool.imap_unordered([(1, 1), (2, 2)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphans(tmp_path, number):
    script = tmp_path / "stay.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    try:
        pids = {int(process.stdout.readline()) for _ in range(2)}
        assert len(pids) == 2 and all(_alive(pid) for pid in pids)
        process.send_signal(number)
        process.wait(10)
        assert _gone(pids)
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def slow(payload):
    """Square a number, slowly; or take memory without end; or say how much is held."""
    kind, value = payload
    if kind == "greedy":
        blocks = []
        while True:
            blocks.append(np.ones(4 << 20, np.uint8))
            time.sleep(0.005)
    if kind == "large":
        return int(np.ones(value, np.uint8).sum())
    time.sleep(0.2)
    return value * value


def server():
    from multiprocessing import forkserver

    return forkserver._forkserver._forkserver_pid


def test_a_fork_server_that_dies_is_no_tasks_fault():
    with Pool(slow, workers=2) as pool:
        outcomes, killed = {}, set()
        for outcome in pool.imap_unordered([(i, ("square", i)) for i in range(14)]):
            outcomes[outcome.key] = outcome
            if len(outcomes) in (3, 8) and server() not in killed:
                killed.add(server())
                os.kill(server(), signal.SIGKILL)
        assert len(killed) == 2 and server() not in killed
    assert {key: o.value for key, o in outcomes.items()} == {i: i * i for i in range(14)}


def test_fork_servers_that_die_again_and_again_end_the_run_in_one_line():
    with Pool(slow, workers=2) as pool, pytest.raises(WorkerError, match="was ended 3 times") as caught:
        for _ in pool.imap([(i, ("square", i)) for i in range(60)]):
            os.kill(server(), signal.SIGKILL)
    assert "\n" not in str(caught.value)


def test_a_worker_that_ends_with_the_code_of_a_lost_one_is_charged():
    with Pool(chore, workers=1) as pool:
        outcomes = list(pool.imap([(0, ("square", 3)), (1, ("exit", 255)), (2, ("square", 4))]))
    assert [(o.value, o.reason) for o in outcomes] == [(9, None), (None, "crash"), (16, None)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_task_that_takes_memory_without_end_costs_itself():
    with Pool(slow, workers=2, memory=200 << 20) as pool:
        tasks = [(0, ("large", 50 << 20)), (1, ("greedy", 0)), *((i, ("square", i)) for i in range(2, 6))]
        outcomes = {o.key: o for o in pool.imap(tasks)}
    assert outcomes[1].reason == "memory" and outcomes[1].detail == "more than 0.195 GiB for one clip"
    assert outcomes[0].value == 50 << 20 and [outcomes[i].value for i in range(2, 6)] == [4, 9, 16, 25]


def test_as_many_workers_as_asked_for_whatever_became_of_some():
    with Pool(chore, workers=2, recycle=2) as pool:
        seen = []
        for outcome in pool.imap_unordered([(i, ("exit", 1) if i in (2, 3, 7) else ("pid", 0)) for i in range(16)]):
            assert len(pool._workers) <= 2
            seen.append(outcome)
    assert sum(o.ok for o in seen) == 13 and len({o.value for o in seen if o.ok}) >= 6


STARTING = """
import sys, time
from pathlib import Path
if "pipeline.workers.pool" not in sys.modules:
    Path(sys.argv[1] if len(sys.argv) > 1 else "server").touch()  # imported by the fork server, too
from pipeline.stop import stoppable

def stay(payload):
    time.sleep(600)

if __name__ == "__main__":
    with stoppable():
        from pipeline.workers.pool import Pool
        with Pool(stay, workers=2, preload=("heavy",)) as pool:
            list(pool.imap_unordered([(1, 1), (2, 2)]))
"""


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.4])
def test_ctrl_c_while_the_fork_server_starts_is_one_line(tmp_path, delay):
    (tmp_path / "start.py").write_text(STARTING)
    (tmp_path / "heavy.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(3)\n")
    run = subprocess.Popen(
        [sys.executable, "start.py"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{os.getcwd()}:{tmp_path}"},
        start_new_session=True,
    )
    while not (tmp_path / "begun").exists() and run.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert said == "Interrupted. What was computed is kept; run the same command to go on.\n"


BARE = """
from pathlib import Path

from pipeline.workers.pool import Pool

with open("runs", "a") as file:
    file.write("once\\n")
with Pool(Path, workers=2) as pool:
    print(sorted(str(one.value) for one in pool.imap([(1, "a"), (2, "b")])))
print(Path(__file__).name, __name__)
"""


@pytest.mark.parametrize("how", ["script", "module", "stdin"])
def test_a_script_without_a_guard_is_not_run_by_its_workers(tmp_path, how):
    (tmp_path / "bare.py").write_text(BARE)
    told = {"script": ["bare.py"], "module": ["-m", "bare"], "stdin": ["-c", BARE.replace("__file__", "'bare.py'")]}[how]
    done = subprocess.run(
        [sys.executable, *told], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert done.stdout.splitlines() == ["['a', 'b']", "bare.py __main__"], done.stderr
    assert (tmp_path / "runs").read_text().split() == ["once"]
