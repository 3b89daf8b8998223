"""The embedded corpus of drawn faces and synthetic voices, made by `pipeline.data.demo`."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from pipeline.data.demo import emotions
from pipeline.data.demo.generate import ANNOTATIONS, CLIPS, COLUMNS, generate
from pipeline.data.demo.options import Options as DemoOptions
from pipeline.errors import CorpusError

from .adapter import Adapter, Tables

_FRAME = ("id", "time", "valence", "arousal")


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a table with exactly those columns."""
    if not path.is_file():
        raise CorpusError(f"{path} is not there. Run `dvc repro corpus` to generate the demo corpus.")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, strict=True)
            if tuple(table.fieldnames or ()) != columns:
                raise CorpusError(f"{path}: the columns are not {', '.join(columns)}. Run `dvc repro -f corpus`.")
            return [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} is damaged ({error}). Run `dvc repro -f corpus`.") from error


def _clip(row: dict[str, str], root: Path, number: int) -> dict:
    try:
        clip: dict = {name: row[name] or None for name in COLUMNS}
        clip |= {name: float(row[name]) for name in ("valence", "arousal", "dominance")}
        return clip | {"corpus": "demo", "turn": int(row["turn"])}
    except (TypeError, ValueError) as error:
        raise CorpusError(f"{root / CLIPS}, line {number}: {error}. Run `dvc repro -f corpus`.") from error


def _annotation(row: dict[str, str], root: Path, number: int) -> dict:
    try:
        return {"id": row["id"]} | {name: float(row[name]) for name in _FRAME[1:]}
    except (TypeError, ValueError) as error:
        raise CorpusError(f"{root / ANNOTATIONS}, line {number}: {error}. Run `dvc repro -f corpus`.") from error


class Demo(Adapter):
    """Adapter of the generated corpus."""

    title = "Generated demo corpus (drawn faces, synthetic voices)"
    licence = "none needed: computed from a seed"
    homepage = "docs/architecture.md"
    layout = "clips.csv, annotations.csv, media/*.mp4; written by the stage `corpus`"
    classes = emotions.EMOTIONS
    checked = "all of it, it is made here"
    generated = True

    class Options(DemoOptions):
        """See `pipeline.data.demo.options`."""

    options: Options

    def prepare(self, out: Path) -> None:
        """Generate the corpus that `corpus.options` asks for into `out`."""
        generate(self.options, out)

    def read(self) -> Tables:
        """Read a generated corpus.

        Raises:
            CorpusError: a table is absent or damaged; the line names file and row.
        """
        root = Path(self.corpus.root)
        clips = [_clip(row, root, number) for number, row in _rows(root / CLIPS, COLUMNS)]
        annotations = [_annotation(row, root, number) for number, row in _rows(root / ANNOTATIONS, _FRAME)]
        if not clips:
            raise CorpusError(f"{root / CLIPS} holds no clips. Run `dvc repro -f corpus` to make the corpus anew.")
        notes = {
            "generated": "drawn faces, synthetic voices, templated text; truth by construction",
            "without text": sum(clip["text"] is None for clip in clips),
            "without sound": sum(clip["audio"] is None for clip in clips),
            "without picture": sum(clip["video"] is None for clip in clips),
            "clips per emotion": dict(sorted(Counter(clip["emotion"] for clip in clips).items())),
        }
        return Tables(clips=clips, annotations=annotations, notes=notes)
