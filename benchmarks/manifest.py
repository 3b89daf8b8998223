"""Stage `manifest` over a table of a hundred thousand clips: of texts alone, and of sound files examined before.

Reading and hashing the media is left out: their facts and hashes are put where the stage remembers them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from . import apart
from .figures import Figure

#: Speakers of the made-up corpus, and the classes dealt in turn.
SPEAKERS, CLASSES = 500, "abcdefg"


@dataclass(frozen=True)
class Size:
    clips: int = 100_000
    isolated: bool = True


TINY = Size(clips=60, isolated=False)


def table(root: Path, clips: int, media: bool) -> None:
    """A CSV of `clips` rows; with `media` a small file for each."""
    lines = ["id,text,speaker,emotion,valence" + (",audio" if media else "")]
    for i in range(clips):
        line = f"{i},sentence number {i} of many,s{i % SPEAKERS % max(2, clips // 4)},{CLASSES[i % 7]},{(i % 21) / 10 - 1}"
        lines.append(line + (f",m/{i // 1000}/{i}.wav" if media else ""))
    root.mkdir(parents=True)
    (root / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
    for i in range(clips if media else 0):
        path = root / f"m/{i // 1000}/{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % i)


def remember(root: Path, clips: int) -> int:
    """Facts and hashes of the files, as if they had been examined. Returns of how many."""
    import os

    from pipeline.data.examine import facts_version
    from pipeline.data.fact import Fact
    from pipeline.storage.memo import Memo, file_key

    paths = [str(root / f"m/{i // 1000}/{i}.wav") for i in range(clips)]
    states = [os.stat(path) for path in paths]
    fact = Fact(duration=2.0, audio=True, level=-20.0).dump()
    version = facts_version()
    with Memo("facts") as memo:
        memo.put({file_key(path, state, version): fact for path, state in zip(paths, states, strict=True)})
    with Memo("hash") as memo:
        memo.put({file_key(path, state): f"{i:032x}" for i, (path, state) in enumerate(zip(paths, states, strict=True))})
    return clips


def build(root: Path, out: Path) -> tuple[int, float]:
    """The stage. Returns how many clips the manifest holds, and the seconds of processor time it took."""
    begun = time.process_time()
    from pipeline.data.build import build_manifest as stage
    from pipeline.params import parse
    from pipeline.storage import tables

    from .corpus import text_stream

    stage(
        parse(
            {
                "recipe": "benchmark",
                "corpus": {"name": "generic", "root": str(root), "options": {"table": "clips.csv"}},
                "streams": {"text": text_stream()},
                "fusion": {"name": "concat"},
            },
            "benchmark",
        ),
        out,
    )
    taken = time.process_time() - begun
    return tables.read(out / "manifest.parquet").height, taken


def measure(folder: Path, size: Size) -> list[Figure]:
    result = []
    for name, media in (("texts", False), ("sound files examined before", True)):
        root, cache = folder / ("media" if media else "text"), folder / "cache"
        table(root, size.clips, media)
        if media:
            apart.run(remember, root, size.clips, cache=cache, isolated=size.isolated)
        done = apart.run(build, root, folder / f"{root.name}.out", cache=cache, isolated=size.isolated)
        clips, processor = done.value
        if clips != size.clips:
            raise RuntimeError(f"{clips} clips in the manifest, expected {size.clips}")
        result += [
            Figure(
                f"{size.clips} rows of {name}",
                done.seconds,
                "s",
                "<= 20",
                "table to manifest, folds, truth and card; hashing excluded",
            ),
            Figure(
                f"{size.clips} rows of {name}, processor time",
                processor,
                "s",
                "",
                "what is left when other work waits its turn; imports counted in",
            ),
            Figure(
                f"{size.clips} rows of {name}, peak memory",
                done.anonymous,
                "MiB",
                "<= 1024",
                f"{done.resident:.0f} MiB with file pages",
            ),
        ]
    return result
