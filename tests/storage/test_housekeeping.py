"""The cache folder is looked after whole: clips, runs, word vectors, memos, and what earlier versions left."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.storage import clip_cache, housekeeping
from pipeline.storage.atomic import write_json
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry
from pipeline.storage.folder_lock import remove_unused, use_folder
from pipeline.storage.memo import remember


@pytest.fixture
def cache() -> Path:
    """A cache folder with one thing of each kind; times are of now."""
    with ClipCache("extract", {"family": "clip"}) as clips:
        clips.put({"x": Entry(np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32))})
    root = clip_cache.root()
    with use_folder(root / "runs" / "a1b2") as run:
        write_json(run / "identity.json", {"weights": {"source": "fused"}})
        write_json(run / "run" / "history.json", [])
    (root / "vectors" / "c3d4").mkdir(parents=True)
    np.save(root / "vectors" / "c3d4" / "vectors.npy", np.zeros((1000, 8)))
    assert remember("sha256", "key", lambda: "fact") == "fact"
    for name in ("facts/a.json", "sha256/b", "files/hash/data.mdb"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("{}")
    return root


def age(folder: Path, days: float) -> None:
    for path in [folder, *folder.rglob("*")]:
        then = path.stat().st_mtime - days * 86400
        os.utime(path, (then, then))


def places(cache: Path) -> set[str]:
    return {str(item.folder.relative_to(cache)).split("/")[0] for item in housekeeping.list_items()}


def test_all_kinds_are_listed_with_their_bytes(cache):
    assert places(cache) == {"extract", "runs", "vectors", "memo", "facts", "sha256", "files"}
    sizes = {item.kind: item.size for item in housekeeping.list_items()}
    assert sizes["vectors"] >= 64000 and min(sizes.values()) > 0
    shown = housekeeping.format_stats()
    assert "1 clips" in shown and "fused" in shown and shown.count("earlier version") == 3


@pytest.mark.parametrize("kind", ["extract", "runs", "vectors", "memo", "facts", "sha256", "files"])
def test_what_is_idle_goes_and_nothing_else(cache, kind):
    before = places(cache)
    age(cache / kind, 40)
    assert [line.split()[:3] for line in housekeeping.collect_idle(days=30, dry_run=True)] == [["would", "remove", kind]]
    assert places(cache) == before
    assert [line.split()[:2] for line in housekeeping.collect_idle(days=30)] == [["removed", kind]]
    assert places(cache) == before - {kind}
    assert housekeeping.collect_idle(days=30) == ["nothing to remove"]


def test_one_new_file_keeps_a_run(cache):
    age(cache / "runs", 40)
    write_json(cache / "runs" / "a1b2" / "run" / "history.json", [1])
    assert housekeeping.collect_idle(days=30) == ["nothing to remove"]


def test_use_is_noted_though_nothing_is_written(cache):
    for kind in ("runs", "memo"):
        age(cache / kind, 40)
    with use_folder(cache / "runs" / "a1b2"):
        pass
    assert remember("sha256", "key", lambda: "another") == "fact"
    assert housekeeping.collect_idle(days=30) == ["nothing to remove"]


def _use(folder: Path, begun, end) -> None:
    with use_folder(folder):
        begun.set()
        end.wait(60)


def test_what_another_process_uses_is_kept_until_it_ends(cache):
    context = multiprocessing.get_context("spawn")
    begun, end = context.Event(), context.Event()
    process = context.Process(target=_use, args=(cache / "runs" / "a1b2", begun, end))
    process.start()
    assert begun.wait(60)
    for dry_run in (True, False):
        kept = [line for line in housekeeping.collect_idle(days=0, dry_run=dry_run) if line.startswith("kept")]
        assert len(kept) == 1 and "runs a1b2" in kept[0] and kept[0].endswith("a run uses it")
    assert (cache / "runs" / "a1b2" / "run" / "history.json").is_file()
    end.set()
    process.join()
    assert remove_unused(cache / "runs" / "a1b2") and not (cache / "runs" / "a1b2").exists()


def test_what_a_stopped_collection_left_is_removed_and_what_is_not_ours_is_not(cache):
    left, other = cache / "runs" / ".a1b2.123", cache / ".git"
    left.mkdir()
    (left / "model").write_text("")
    other.mkdir()
    assert ".a1b2" not in housekeeping.format_stats()
    housekeeping.collect_idle(days=30)
    assert not left.exists() and other.exists()


def test_a_damaged_identity_is_listed_and_can_go(cache):
    (path,) = cache.glob("extract/*/identity.json")
    path.write_text("{")
    assert housekeeping.verify_clips() == 0 and "extract" in housekeeping.format_stats()
    age(cache / "extract", 40)
    assert housekeeping.collect_idle(days=30)[0].startswith("removed extract")
