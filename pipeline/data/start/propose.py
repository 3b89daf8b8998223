"""What could be done with a corpus: streams it has, protocol, task; and what is odd about it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from pipeline.data import leakage, split
from pipeline.data.card import histogram
from pipeline.data.checked import Checked
from pipeline.data.coverage import DIMENSIONS
from pipeline.errors import CorpusError, LeakageError, ParamsError
from pipeline.params import Protocol

#: Modality → stream of `conf/stream/` whose weights come with the installation.
STREAMS = {"video": "efficientnet_lite0", "audio": "whisper_tiny_en_steps", "text": "minilm"}
#: Modality → a larger stream, from the hub.
LARGER = {"video": "clip_base", "audio": "hubert_base", "text": "bert_base"}
#: A modality that fewer of the clips have is no stream.
FEW = 0.05
#: Different sentences as a share of the clips below which they are a script, not what somebody had to say.
SCRIPTED = 0.1
#: Clips of a class below which it is told; speakers below which folds are of single ones.
SMALL, SPEAKERS = 5, 5


@dataclass
class Survey:
    """What a corpus holds.

    Attributes:
        modalities: clips with it. classes, speakers: value → clips. lengths: least, mean, most in seconds; None without media.
        odd: sentences.
    """

    clips: int
    modalities: dict[str, int]
    both: int
    classes: dict[str, int]
    dimensions: dict[str, int]
    speakers: dict[str, int]
    lengths: tuple[float, float, float] | None
    odd: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(self.__dict__)


@dataclass
class Proposal:
    """A recipe for it: choices of groups in `conf/`, streams, and values beside them."""

    streams: dict[str, str]
    protocol: str
    task: str
    values: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def survey(found: Checked) -> Survey:
    """The clips that passed, and what is odd about them and the others."""
    table = found.table.filter("target")
    length = table["duration"].drop_nulls()
    classes = histogram(table, "emotion")
    result = Survey(
        clips=table.height,
        modalities={name: int(table[name].is_not_null().sum()) for name in ("video", "audio", "text")},
        both=int((table["video"].is_not_null() & table["audio"].is_not_null()).sum()),
        classes=classes,
        dimensions={name: n for name in DIMENSIONS if (n := int(table[name].count()))},
        speakers=histogram(table, "speaker"),
        lengths=(length.min(), length.mean(), length.max()) if len(length) else None,  # type: ignore[arg-type]
    )
    odd = result.odd
    for reason, rows in sorted(found.quarantine.partition_by("reason", as_dict=True).items()):
        first = rows.row(0, named=True)
        odd.append(f"{rows.height} × {reason[0]}, e.g. {first['media'] or first['id']}: {first['detail']}")
    if len(classes) == 1:
        odd.append(f"one class alone ({next(iter(classes))}): nothing can be told apart")
    if small := [f"{name} ({count})" for name, count in classes.items() if count < SMALL]:
        odd.append(f"classes of fewer than {SMALL} clips: {', '.join(small)}")
    if classes and (without := table["emotion"].null_count()):
        odd.append(f"{without} clips have no label")
    if 0 < len(result.speakers) < SPEAKERS:
        odd.append(f"{len(result.speakers)} speakers: figures will say little about other people")
    if result.speakers and (unknown := table["speaker"].null_count()):
        odd.append(f"{unknown} clips have no speaker")
    return result


def propose(found: Checked, seen: Survey) -> Proposal:
    """
    Raises:
        CorpusError: nothing that any stream reads passed.
    """
    streams = {name: STREAMS[name] for name, count in seen.modalities.items() if count and count >= FEW * seen.clips}
    if not streams:
        lost = Counter(found.quarantine["reason"].to_list())
        raise CorpusError(f"no clip is left that could be read ({', '.join(f'{n} {reason}' for reason, n in lost.items())}).")
    result = Proposal(streams, "none", "emotion")
    said = found.table.filter("target")["text"].drop_nulls().n_unique()
    if len(streams) > 1 and "text" in streams and said < SCRIPTED * seen.modalities["text"]:
        del streams["text"]
        result.told.append(f"the words are no stream: {said} sentences are said again and again")
    if seen.lengths and seen.lengths[2] > 60:
        longest = int(math.ceil(seen.lengths[2]))
        result.values["integrity"] = {"max_duration": float(longest)}
        result.told.append(f"clips may be {longest} s long; of each, {64} frames are looked at (decode.video.max_frames)")
    labelled = len(seen.classes) > 1
    if not labelled and not seen.dimensions:
        result.told.append("no labels to learn from: features only, the run ends at the index")
        return result
    result.task = "emotion" if not seen.dimensions else "multitask" if labelled else "dimensions"
    if seen.dimensions:
        result.values["task"] = {"dimensions": sorted(seen.dimensions, key=DIMENSIONS.index)}
    result.protocol, protocol, why = _choose_protocol(found.table.filter("target"), seen)
    result.told.append(why)
    if protocol:
        result.values["protocol"] = protocol
    if lacking := _find_lacking(found.table.filter("target"), _read_protocol(result.protocol, protocol), streams):
        result.values["training"] = {"unimodal": False}
        result.told.append(f"{lacking} is in too few clips for a model of its own; streams are not judged alone")
    return result


def _find_lacking(table: pl.DataFrame, protocol: Protocol, streams: dict[str, str]) -> str | None:
    """A modality that the labelled clips of some fold do not have, to learn from or to select on."""
    labelled = table.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in ("emotion", *DIMENSIONS)))
    rows = split.make_folds(table, protocol).filter(pl.col("role") != "test")
    counts = rows.join(labelled, on="id", how="left").group_by("fold", "role").agg(pl.col(name).count() for name in streams)
    return next((name for name in streams if (counts[name] == 0).any()), None)


def _choose_protocol(table: pl.DataFrame, seen: Survey) -> tuple[str, dict[str, Any], str]:
    """(file of `conf/protocol/`, values beside it, why): the first that can be had and does not leak."""
    number = len(seen.speakers)
    smallest = min(seen.classes.values(), default=table.height)
    folds = max(2, min(5, smallest))
    ways: list[tuple[str, dict[str, Any], str]] = []
    if {"train", "test"} <= set(table["split"].drop_nulls()) and not table["split"].null_count():
        ways.append(("official", {}, "the splits that the corpus names"))
    if number >= SPEAKERS:
        ways.append(("kfold_speaker", {}, f"five folds by speaker ({number} of them)"))
    elif number >= 3:
        ways.append(("lospo", {}, f"a fold for each of {number} speakers"))
    for column in ("session", "dialogue"):
        if table[column].n_unique() >= SPEAKERS and not table[column].null_count():
            ways.append(("kfold_speaker", {"group": column}, f"five folds by {column}"))
    # Better that people of a dialogue meet others of theirs than that a clip meets its neighbour.
    ways += [(name, values | {"on_leak": "report"}, f"{why}; what the parts share is told") for name, values, why in ways]
    people = "nobody says who speaks" if not number else f"{number} speakers cannot be held out"
    values = {"folds": folds} if folds < 5 else {}
    ways.append(("kfold_clip", values, f"{folds} folds clip by clip, for {people}: the same people are learned from and tested"))
    for way in ways:
        if _is_possible(table, *way[:2]):
            return way
    raise CorpusError(f"{table.height} clips are too few to be learned from and tested.")


#: What the files of `conf/protocol/` say, as far as it matters here.
_KINDS: dict[str, dict[str, Any]] = {
    "official": {"kind": "official", "on_leak": "report"},
    "kfold_speaker": {"kind": "kfold", "group": "speaker"},
    "lospo": {"kind": "leave_one_out", "group": "speaker", "on_leak": "report"},
    "kfold_clip": {"kind": "kfold", "group": "id", "on_leak": "report"},
}


def _read_protocol(name: str, values: dict[str, Any]) -> Protocol:
    return Protocol(**_KINDS[name] | values)


def _is_possible(table: pl.DataFrame, name: str, values: dict[str, Any]) -> bool:
    protocol = _read_protocol(name, values)
    try:
        leakage.enforce(leakage.find_leaks(table, split.make_folds(table, protocol), protocol.leakage), protocol)
    except (CorpusError, ParamsError, LeakageError):
        return False
    return True
