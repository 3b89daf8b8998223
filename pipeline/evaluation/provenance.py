"""Where the numbers come from, for the report: streams and quarantine."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py

from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.reasons import REASONS
from pipeline.storage import tables
from pipeline.storage.feature_store import Status
from pipeline.storage.hdf5 import open_hdf5

from .intervals import FEW, Interval
from .svg import format_number

#: Rows of the quarantine shown on the page; the tables hold the rest.
SHOWN = 100


def read_json(path: Path) -> dict | list | None:
    """The JSON value of a file, None when the file is absent.

    Raises:
        StoreError: the file is not JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise StoreError(f"{path} is not valid JSON ({error}). Delete it and run `dvc repro`.") from error


def read_record(reports: Path) -> dict:
    """What `run.json` says of the run; empty when it is not there."""
    found = read_json(reports / "run.json")
    return found if isinstance(found, dict) else {}


def compare_figures(record: dict, now: Mapping[str, Interval]) -> list[dict[str, object]]:
    """Rows `metric`, `before`, `after`, `difference` and `p` of the figures that the last run and this one have in common;
    without the last two where nothing is paired."""
    last = record.get("before") or {}
    if paired := last.get("figures"):
        kinds = ("before", "after", "difference")
        return [
            {"metric": row["metric"], "p": tell_p(row["p"]), **{kind: Interval(**_fill(row[kind])) for kind in kinds}}
            for row in paired
        ]
    before = last.get("summary") or {}
    return [{"metric": name, "before": Interval(before[name]), "after": value} for name, value in now.items() if name in before]


def _fill(value: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if number is None else number for name, number in value.items()}


def tell_p(value: float | None) -> str:
    """
    >>> tell_p(0.0004), tell_p(0.25), tell_p(None)
    ('< 0.001', '0.250', '–')
    """
    return "–" if value is None else "< 0.001" if value < 0.001 else format_number(value)


def tell_intervals(record: dict) -> str:
    """What the intervals on the page are made of, in a sentence or two."""
    if "unit" not in record:
        return ""
    unit, groups, alone, seeds = record["unit"], record["groups"], record["alone"], len(record["seeds"])
    drawn = " and ".join([_count(groups, unit)] + ([f"{_count(alone, 'clip')} of no known {unit}"] if alone else []))
    if groups + alone < FEW:
        return (
            f"Only {drawn} tested: too few for an interval. Instead, the range of every single {unit} and seed is "
            "given, from … to …; it is no confidence interval."
        )
    runs = f" and {_count(seeds, 'seed')}" if seeds > 1 else ""
    text = f"95 % intervals: {drawn}{runs} drawn anew, with replacement."
    if unit == "clip":
        text += (
            " The corpus names no speakers, dialogues or sessions: should clips depend on each other, intervals are too narrow."
        )
    if seeds == 1:
        text += " There is one seed: how much another training run would differ is not in them."
    return text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Quarantined:
    """Clips left out: the rows shown (at most `SHOWN`), how many there are, (reason, how many, what it means)."""

    rows: list[dict]
    total: int
    reasons: list[tuple[str, int, str]]


def read_quarantine(data: Path, streams: Iterable[StreamFacts] = ()) -> Quarantined:
    """The `*quarantine.parquet` tables of `data` and the clips encoders failed on, by stage, reason and clip."""
    order = {"manifest": 0, "frames": 1, "audio": 2, "faces": 3}
    rows: list[dict] = []
    for path in sorted(data.glob("*quarantine.parquet")):
        rows += tables.read(path).select(list(tables.QUARANTINE)).to_dicts()
    rows += [
        {"id": clip, "media": "", "stage": f"extract@{stream.name}", "reason": "failed", "detail": reason}
        for stream in streams
        for clip, reason in stream.failures.items()
    ]
    rows = [{name: value or "" for name, value in row.items()} for row in rows]
    rows.sort(key=lambda row: (order.get(row["stage"], 9), row["stage"], row["reason"], row["id"], row["media"]))
    counted = Counter(row["reason"] for row in rows)
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return Quarantined(rows[:SHOWN], len(rows), [(name, count, REASONS.get(name, "")) for name, count in ranked])


@dataclass(frozen=True)
class StreamFacts:
    """One stream as it was used.

    Attributes:
        width: numbers per row, e.g. `512` or `4 × 384`.
        random: the weights were drawn at random, not learned by anyone.
        trouble: why the store could not be read, empty when it could.
    """

    name: str
    modality: str
    encoder: str
    weights: str
    random: bool
    sha256: str = ""
    width: str = ""
    rows: int = 0
    ok: int = 0
    missing: int = 0
    failed: int = 0
    float16_error: float | None = None
    failures: dict[str, str] = field(default_factory=dict)
    trouble: str = ""


def describe_streams(params: Params, features: Path) -> list[StreamFacts]:
    """The streams of the run, by name; a store that is not there says so."""
    return [_stream(name, params, features / f"{name}.h5") for name in sorted(params.streams)]


def name_stand_ins(params: Params, streams: list[StreamFacts]) -> list[str]:
    """What learned nothing: streams, and `fusion` where its language model is its own and drawn at random."""
    own = str(params.fusion.options.get("weights")).startswith("random:")
    brought = any(stream.encoder == "trunk" for stream in params.streams.values())
    return [stream.name for stream in streams if stream.random] + (["fusion"] if own and not brought else [])


def _read_failures(file: h5py.File) -> dict[str, str]:
    """Clip → why it failed, or of which of its views and why."""
    failures: dict[str, str] = {}
    for view in sorted(file.get("views", {})):
        for clip, reason in json.loads(file["views"][view].attrs.get("failures", "{}")).items():
            before = f"{failures[clip]}; " if clip in failures else ""
            failures[clip] = f"{before}view {view}: {reason}"
    return failures | json.loads(file.attrs.get("failures", "{}"))


def _stream(name: str, params: Params, path: Path) -> StreamFacts:
    spec = params.streams[name]
    facts = StreamFacts(name, spec.modality, spec.encoder, spec.weights, spec.weights.startswith("random:"))
    if not path.is_file():
        return replace(facts, trouble=f"{path.name} is not there")
    try:
        # The store's reader would load times and, when compressed, all values; a page needs neither.
        with open_hdf5(path) as file:
            identity = file.attrs.get("identity", "{}")
            identity = json.loads(identity if isinstance(identity, str) else identity.decode())
            source, digest = name_weights(identity, file.attrs.get("weights_sha256", ""))
            status = file["status"][:]
            values = file["values"].shape
            failures = _read_failures(file)
            error = file.attrs.get("float16_error") if file["values"].dtype == "float16" else None
    except (OSError, KeyError, ValueError) as problem:
        return replace(facts, trouble=f"{path.name} cannot be read ({problem})")
    count = Counter(status.tolist())
    return replace(
        facts,
        weights=source or spec.weights,
        random=(source or spec.weights).startswith("random:"),
        sha256=digest,
        width=" × ".join(str(n) for n in values[1:]),
        rows=values[0],
        ok=count[Status.OK],
        missing=count[Status.MISSING],
        failed=count[Status.FAILED],
        float16_error=None if error is None else float(error),
        failures=failures,
    )


def name_weights(identity: dict, fallback: object = "") -> tuple[str, str]:
    """Source and sha256 of the weights as an extractor's identity states them."""
    weights = identity.get("weights")
    if isinstance(weights, dict):
        return str(weights.get("source") or ""), str(weights.get("sha256") or fallback or "")
    return str(weights or ""), str(identity.get("sha256") or identity.get("weights_sha256") or fallback or "")
