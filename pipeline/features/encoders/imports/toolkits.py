"""What the tables of well-known toolkits hold beside features: counters, clocks, marks of rows that count for nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Toolkit:
    """How a toolkit's tables are told, and what of them is no feature.

    Attributes:
        signs: columns that every such table has.
        apart: columns that are no features.
        start: column of seconds; empty for none.
        end: column of seconds a row ends at; empty for none.
        valid: column that is 0 where a row counts for nothing.
    """

    signs: frozenset[str]
    apart: frozenset[str]
    start: str = ""
    end: str = ""
    valid: str = ""


_OPENFACE = frozenset({"frame", "timestamp", "confidence", "success"})
TOOLKITS = (
    Toolkit(_OPENFACE, _OPENFACE | {"face_id"}, start="timestamp", valid="success"),
    Toolkit(frozenset({"name", "frameTime"}), frozenset({"frameTime", "frameIndex", "class"}), start="frameTime"),
    Toolkit(frozenset({"name", "frameIndex"}), frozenset({"frameIndex", "class"})),
    Toolkit(frozenset({"file", "start", "end"}), frozenset({"start", "end"}), start="start", end="end"),
)
#: Of other tables: what was joined to features and would tell a model the answer, or who speaks.
ANSWERS = frozenset(
    {"class", "label", "labels", "emotion", "emotions", "sentiment", "target", "speaker", "actor", "split", "fold"}
)
#: How pandas calls the index it writes beside a table.
_INDEX = re.compile(r"^(?:Unnamed: \d+)?$")


def find(columns: list[str]) -> Toolkit:
    """The toolkit that wrote a table of these columns; of others, one without clock or marks."""
    return next((kit for kit in TOOLKITS if kit.signs <= set(columns)), Toolkit(frozenset(), frozenset()))


def no_features(columns: list[str]) -> set[str]:
    """The columns that are taken for features only when `options.columns` names them."""
    kit = find(columns)
    return {name for name in columns if name in kit.apart or name.lower() in ANSWERS or _INDEX.match(name)}


def choose_face(table: pl.DataFrame) -> pl.DataFrame:
    """Of a file with several faces (OpenFace counts them in `face_id`) the one that is seen longest; others unchanged."""
    if "face_id" not in table.columns or find(table.columns).valid != "success":
        return table
    seen = table.filter(pl.col("success").cast(pl.Float64, strict=False) != 0)["face_id"].value_counts()
    if len(seen) < 2:
        return table
    # Of two seen equally long, the one that was found first.
    longest = seen.sort(["count", "face_id"], descending=[True, False])["face_id"][0]
    return table.filter(pl.col("face_id") == longest)
