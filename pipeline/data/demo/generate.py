"""The whole corpus: media, tables and a page that says what they are."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import re
from functools import partial
from pathlib import Path

from pipeline.errors import CorpusError
from pipeline.stop import follow_parent, sparing_children
from pipeline.storage.atomic import write_text

from . import emotions, render, script
from .options import Options
from .script import Line

CLIPS, ANNOTATIONS, MEDIA, README = "clips.csv", "annotations.csv", "media", "README.md"
COLUMNS = ("id", "video", "audio", "text", "language", "speaker", "dialogue", "turn", "session", "emotion",
           "sentiment", "valence", "arousal", "dominance", "labels")  # fmt: skip
_OURS = re.compile(r"s\d\d_d\d\d_t\d\d\.mp4$")
#: Below this many clips, starting processes costs more than it saves.
_FEW = 24

_PAGE = """# Generated demo corpus

{clips} clips of drawn faces with synthetic voices: {speakers} speakers in {sessions} sessions, {dialogues} dialogues.
Everything here was computed from a seed. No person is shown, recorded or imitated, and no licence applies.

| file | what it is |
|---|---|
| `media/*.mp4` | H.264 {size}x{size} at {fps} fps, AAC mono at {rate} Hz; some lack one of the tracks |
| `clips.csv` | one row per clip: files, text, speaker, dialogue, turn, session, emotion, valence, arousal, dominance |
| `annotations.csv` | valence and arousal at each frame, seconds from clip start; clip labels are their means |

`labels` in `clips.csv` says what face, voice and words show. In {ambiguity:.0%} of the complete clips one of the
three shows another emotion than the one felt (or fits several), so each alone is only partly informative and the
three together are not. Results on this corpus show that the pipeline works, and nothing about people.

To listen and look: open any file of `media/` in a player. To make it anew: `dvc repro corpus`.
"""


def generate(options: Options, out: Path, workers: int | None = None) -> None:
    """Write the corpus into `out`.

    The tables come last, so a folder without `clips.csv` is an unfinished one. The bytes depend on
    `options` alone, never on `workers` (None: as many as the machine has processors, at most eight).

    Raises:
        CorpusError: `out` cannot be written to.
    """
    lines = script.write(options)
    try:
        _clear(out, {Path(line.media).name for line in lines})
        _render(lines, options, out, workers)
        write_text(out / ANNOTATIONS, _annotations(lines, options))
        write_text(out / README, _PAGE.format(clips=len(lines), speakers=2 * options.sessions, **options.model_dump()))
        write_text(out / CLIPS, _clips(lines, options))
    except OSError as error:
        raise CorpusError(f"The demo corpus cannot be written to {out}: {error.strerror or error}.") from error


def _clear(out: Path, wanted: set[str]) -> None:
    """Take the tables away and the clips of other options; leave files that are not ours."""
    (out / MEDIA).mkdir(parents=True, exist_ok=True)
    for name in (CLIPS, ANNOTATIONS, README):
        (out / name).unlink(missing_ok=True)
    for path in (out / MEDIA).iterdir():
        if _OURS.match(path.name) and path.name not in wanted:
            path.unlink()


def _render(lines: list[Line], options: Options, out: Path, workers: int | None) -> None:
    if workers is None:
        workers = 1 if len(lines) < _FEW else min(8, len(os.sched_getaffinity(0)))
    task = partial(_one, options=options, out=out)
    if workers == 1:
        for line in lines:
            task(line)
        return
    # Spawned, not forked: the caller may hold threads and native libraries.
    with sparing_children():
        started = multiprocessing.get_context("spawn").Pool(workers, follow_parent)
    with started as pool:
        for _ in pool.imap_unordered(task, lines, chunksize=4):
            pass


def _one(line: Line, options: Options, out: Path) -> None:
    render.render(line, options, out / line.media)


def _clips(lines: list[Line], options: Options) -> str:
    rows = []
    for line in lines:
        known = render.truth(line, options)
        valence, arousal = (round(float(value), 4) for value in known.affect.mean(axis=0))
        rows.append(
            (line.id, line.media if line.picture else None, line.media if line.sound else None, line.text,
             "en" if line.text else None, line.speaker.name, line.dialogue, line.turn, line.session, line.emotion,
             emotions.sentiment(line.emotion), valence, arousal, known.dominance, json.dumps(line.shown))
        )  # fmt: skip
    return _table(COLUMNS, rows)


def _annotations(lines: list[Line], options: Options) -> str:
    rows = []
    for line in lines:
        known = render.truth(line, options)
        rows += [
            (line.id, float(time), float(valence), float(arousal))
            for time, (valence, arousal) in zip(known.times, known.affect, strict=True)
        ]
    return _table(("id", "time", "valence", "arousal"), rows)


def _table(columns: tuple[str, ...], rows: list[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
