"""What an examination found is remembered when it is a verdict about the bytes, and then only."""

import errno
import os

import numpy as np
import pytest
import soundfile

from pipeline.data import examine
from pipeline.data.decode.failures import blame
from pipeline.data.examine import examine_media
from pipeline.data.fact import Fact
from pipeline.reasons import OF_BYTES, REASONS
from pipeline.storage.memo import Memo, file_key


def remembered(*paths) -> list[str]:
    """Reasons in the memo of the files as they are now; `-` where nothing is known."""
    version = examine.facts_version()
    keys = [file_key(path, os.stat(path), version) for path in paths]
    with Memo("facts") as memo:
        known = memo.get(keys)
    return [Fact.load(known[key]).reason if key in known else "-" for key in keys]


def test_verdicts_about_bytes_are_remembered(tmp_path, tone, settings):
    good, noise, empty = tone(tmp_path / "good.wav"), tmp_path / "noise.wav", tmp_path / "none.wav"
    noise.write_bytes(bytes(range(256)) * 8)
    soundfile.write(empty, np.zeros(0, np.float32), 8000)
    paths = [str(good), str(noise), str(empty)]
    found = examine_media(paths, settings("generic", tmp_path))
    assert [found[path].reason for path in paths] == ["", "unreadable", "empty"] == remembered(*paths)
    again = examine_media(paths, settings("generic", tmp_path))
    assert [again[path].dump() for path in paths] == [found[path].dump() for path in paths]


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_what_may_be_the_machines_fault_is_not(tmp_path, tone, reason):
    path = str(tone(tmp_path / "a.wav"))
    key = file_key(path, os.stat(path), examine.facts_version())
    kept = examine._lasting({path: Fact(reason=reason)}, {path: key})
    assert bool(kept) == (reason in OF_BYTES)
    assert {"memory", "timeout", "crash", "error", "access", "missing", "changed"}.isdisjoint(OF_BYTES)


def test_a_time_out_is_tried_again(tmp_path, tone, settings):
    path = str(tone(tmp_path / "a.wav", seconds=600.0))
    hasty = settings("generic", tmp_path, run={"workers": 1, "timeout": 0.0001})
    assert examine_media([path], hasty)[path].reason == "timeout" and remembered(path) == ["-"]
    assert examine_media([path], settings("generic", tmp_path))[path].reason == ""


def test_a_verdict_about_bytes_nobody_can_read_is_not_kept(tmp_path):
    """The kernel refuses to read a process's memory at 0 with EIO, as a failing disk does."""
    path = tmp_path / "a.wav"
    path.symlink_to("/proc/self/mem")
    key = file_key(path, os.stat(path), examine.facts_version())
    assert examine._lasting({str(path): Fact(reason="corrupt")}, {str(path): key}) == {}
    assert examine._lasting({str(path): Fact(video=True, lost={"audio": ("corrupt", "")})}, {str(path): key}) == {}


def test_a_verdict_about_a_file_changed_meanwhile_is_not_kept(tmp_path):
    path = str(tmp_path / "a.wav")
    (tmp_path / "a.wav").write_bytes(b"half")
    key = file_key(path, os.stat(path), examine.facts_version())
    (tmp_path / "a.wav").write_bytes(b"whole")
    assert examine._lasting({path: Fact(reason="unreadable")}, {path: key}) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_tried_again(tmp_path, tone, settings):
    path = tone(tmp_path / "a.wav")
    path.chmod(0)
    assert examine_media([str(path)], settings("generic", tmp_path))[str(path)].reason == "access"
    path.chmod(0o600)
    assert examine_media([str(path)], settings("generic", tmp_path))[str(path)].reason == ""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, "no"), "access"),
        (OSError(errno.ESTALE, "gone"), "access"),
        (OSError(errno.EMFILE, "many"), "access"),
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "full"), "memory"),
        (OSError(errno.EIO, "short"), "unreadable"),
        (ValueError("bytes"), "unreadable"),
    ],
)
def test_who_is_to_blame(error, reason):
    assert blame(error) == reason


def test_another_file_with_the_same_size_and_time_is_another(tmp_path, tone):
    one, two = tone(tmp_path / "a.wav"), tone(tmp_path / "b.wav", frequency=330.0)
    os.utime(two, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    before = file_key(one, one.stat())
    state = one.stat()
    one.write_bytes(two.read_bytes())  # times are kept, as `cp -p` and rsync do
    os.utime(one, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert one.stat().st_size == state.st_size and one.stat().st_mtime_ns == state.st_mtime_ns
    assert file_key(one, one.stat()) != before
    written = file_key(one, one.stat())
    os.replace(two, one)
    assert file_key(one, one.stat()) != written
