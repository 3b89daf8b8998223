"""What a run says of clips it has not learned from, kept in its folder: nobody has to ask the network again, or to have torch.

No truth of held-out clips is in it. `<run>/answers/` holds `clips.parquet`, `looks.parquet`, `paths.parquet`, of what is
predicted over time also `tokens.parquet`, and `facts.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import polars as pl

from pipeline.errors import StoreError
from pipeline.storage.atomic import atomic_folder, write_json

FOLDER, FACTS = "answers", "facts.json"
#: With more streams, not every set of them is predicted.
MOST_STREAMS = 4
#: Columns of `Answers.looks`, and of `Answers.paths`.
LOOKS = {"id": pl.String(), "consistency": pl.Float64(), "found": pl.Float64()}
PATHS = {"id": pl.String(), "time": pl.Float64(), "x": pl.Float64(), "y": pl.Float64(), "share": pl.Float64()}


@dataclass(frozen=True)
class Answers:
    """What one run says.

    Attributes:
        clips: of held-out clips `id`, `predicted`, `p_<class>`, a column per dimension, `share_<stream>`, and `kept`, the
            streams it was left with ("audio+text"); first all clips with all streams.
        tokens: of held-out clips `id`, `time` (centre of a token of the base stream, seconds), `pred_<dimension>` and perhaps
            `sd_<dimension>`; None where nothing is predicted over time.
        looks: of held-out clips `id`, `consistency` (mean cosine of what follows on each other; null for fewer than two
            tokens) and `found` (whether the clip's halves find each other, see `runs.embed.compare_halves`; null without a
            projection). paths: the way of each through the embedding, on its two principal axes, and their share of the
            variance. Both of the fused model alone, and empty where nothing is predicted over time.
        temperature: see `training.answers.calibration`; None where there is nothing to fit on.
        speakers: of the fused model, `speakers` that the probe was asked of and whether it named them `before` and `after`; or
            `reason` why it was asked nothing.
    """

    clips: pl.DataFrame
    tokens: pl.DataFrame | None
    looks: pl.DataFrame
    paths: pl.DataFrame
    temperature: float | None
    speakers: Mapping[str, object]

    @property
    def whole(self) -> pl.DataFrame:
        """Of `clips` what is said with all streams, without `kept`."""
        return self.clips.filter(pl.col("kept") == self.clips["kept"].first()).drop("kept")


def label_kept(streams: Iterable[str]) -> str:
    """What stands in `kept`.

    >>> label_kept({"text", "audio"})
    'audio+text'
    """
    return "+".join(sorted(streams))


def subsets(streams: Iterable[str], largest: int = MOST_STREAMS) -> list[frozenset[str]]:
    """Sets of streams to keep, the whole set first and none last; with more than `largest` streams, only leave-one-out.

    >>> [sorted(kept) for kept in subsets(["text", "audio"])]
    [['audio', 'text'], ['audio'], ['text'], []]
    """
    names = sorted(streams)
    if len(names) > largest:
        return [frozenset(c) for size in (len(names), len(names) - 1) for c in combinations(names, size)]
    least = 0 if len(names) > 1 else 1  # what a single stream's model says without it is of no use to anyone
    return [frozenset(c) for size in range(len(names), least - 1, -1) for c in combinations(names, size)]


def write_answers(folder: str | Path, answers: Answers, code: str) -> None:
    """Keep them in a run's folder, all or none.

    Args:
        code: of what asked, see `are_kept`.
    """
    tables = {"clips": answers.clips, "tokens": answers.tokens, "looks": answers.looks, "paths": answers.paths}
    with atomic_folder(Path(folder) / FOLDER) as made:
        for name, table in tables.items():
            if table is not None:
                table.write_parquet(made / f"{name}.parquet", compression="zstd", statistics=False)
        write_json(made / FACTS, {"code": code, "temperature": answers.temperature, "speakers": dict(answers.speakers)})


def are_kept(folder: str | Path, code: str) -> bool:
    """Whether answers are in a run's folder, and this code gave them."""
    path = Path(folder) / FOLDER / FACTS
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["code"] == code


def read_answers(folder: str | Path) -> Answers:
    """The answers in a run's folder.

    Raises:
        StoreError: there are none, or they cannot be read.
    """
    place = Path(folder) / FOLDER
    try:
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
        tables = {path.stem: pl.read_parquet(path) for path in place.glob("*.parquet")}
        return Answers(
            tables["clips"], tables.get("tokens"), tables["looks"], tables["paths"], facts["temperature"], facts["speakers"]
        )
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"{folder} holds no predictions, or they cannot be read. Run `dvc repro -f -s train`.") from error
