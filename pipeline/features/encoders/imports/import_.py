"""Ready-made features from a file (`encoder: import`, `weights: file:PATH`), joined by clip id, never by position.

Features that another tool computed (OpenFace action units, emotion2vec, COVAREP, a published
feature pack) enter the store like any other stream: same joining, same masks, same report. A clip
the file does not have, or has only as NaN, is a missing modality.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import pooling
from pipeline.features.encoders.encoder import Computed
from pipeline.features.encoders.extractor import Axis, Clip, Extractor, Missing, Prepared
from pipeline.features.encoders.family import Family
from pipeline.features.encoders.text import tokens
from pipeline.params import Stream
from pipeline.params.base import Group, Positive

from . import file_layout, files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepare:
    """Clip → `values` (T, ...) float32 as the file has them, rows with NaN left out.

    `sha256` tells one content of the file from another, so that no process serves a stale one.
    """

    path: str
    sha256: str
    layout: file_layout.Layout
    file_id: str | None
    clip_id: str | None
    fps: float | None
    axis: Axis | None = None

    def __call__(self, clip: Clip) -> Prepared:
        name = rename_clip(clip.id, self.clip_id)
        features = read_features(self)
        if name is None or name not in features:
            raise Missing(f"{Path(self.path).name} has no clip {name or clip.id}")
        values, times = features[name]
        if self.axis and values.ndim == 2:
            values, times = values[None], None
        if times is None:
            length = len(values) / self.fps if self.fps else tokens.seconds(clip)
            times = pooling.frame_times(len(values), len(values) / length if len(values) else 1.0)
        times = np.asarray(times, np.float32).reshape(len(values), 2)
        kept = np.isfinite(values.reshape(len(values), -1)).all(1)
        if not kept.any():
            raise Missing(f"{Path(self.path).name} holds no number for clip {name}")
        order = np.flatnonzero(kept)[np.argsort(times[kept].mean(1), kind="stable")]
        return Prepared({"values": np.ascontiguousarray(values[order])}, times[order], cost=float(len(order)))


def rename_clip(clip: str, pattern: str | None) -> str | None:
    """A clip id as the other side calls it: `stem`, or group 1 (or the whole match) of a regular expression.

    None when the expression does not match. `stem` is the last part of a path without its ending.
    """
    if pattern is None:
        return clip
    if pattern == "stem":
        return Path(clip).stem if Path(clip).suffix in file_layout.ENDINGS else Path(clip).name
    if (found := re.search(pattern, clip)) is None:
        return None
    return found.group(1) if found.re.groups else found.group()


@lru_cache(maxsize=4)
def read_features(prepare: Prepare) -> Renamed:
    """The file's features, under the names that clips are looked up by."""
    return _rename(files.read(Path(prepare.path), prepare.layout), prepare.path, prepare.file_id)


class Renamed(Mapping[str, file_layout.Rows]):
    """Features under the names the clips are looked up by."""

    def __init__(self, features: file_layout.Features, names: dict[str, str]) -> None:
        self._features, self._names = features, names
        #: Of a table: the columns that are read.
        self.columns = features.columns or []
        #: Of a table: the columns that are no features, as nobody asked for them.
        self.left = features.left

    def __getitem__(self, name: str) -> file_layout.Rows:
        return self._features[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _rename(features: file_layout.Features, path: str, pattern: str | None) -> Renamed:
    names: dict[str, str] = {}
    for own in features:
        name = rename_clip(own, pattern)
        if name is None:
            continue
        if name in names:
            raise ParamsError(
                f"{path}: {names[name]!r} and {own!r} both become clip {name!r}; make options.file_id tell them apart."
            )
        names[name] = own
    return Renamed(features, names)


class Import(Family):
    """Ready-made features; see the module."""

    title = "Ready-made features from a file"
    modalities = ("video", "face", "audio", "text")
    sources = ("file",)

    class Options(Group):
        """Of a stream: where things stand in the file (`file_layout.Layout`), and how its names meet the manifest's ids."""

        id_column: str | None = None
        columns: tuple[str, ...] | None = None
        start_column: str | None = None
        end_column: str | None = None
        key: str | None = None
        ids: str | None = None
        #: How the file's names and the manifest's ids become the same: null (as they are), `stem`, or a regular
        #: expression whose group 1 counts.
        file_id: str | None = None
        clip_id: str | None = None
        #: Rows per second of a file without times; null spreads the rows over the clip.
        fps: Positive | None = None
        #: What N is of arrays (T, N, D), or (N, D) of a whole clip: hidden layers or places of a picture. null = rows are (T, D).
        axis: Axis | None = None

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: the file is absent, damaged or of an unknown layout.
            ParamsError: a column, key or expression that is not there or not valid, a layer.
        """
        if stream.layer != -1:
            raise ParamsError("imported features have no layers; leave layer at -1.")
        for name, pattern in (("file_id", options.file_id), ("clip_id", options.clip_id)):
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise ParamsError(f"option {name} is no regular expression ({error}); or write stem.") from error
        layout = file_layout.Layout(
            options.id_column, options.columns or None, options.start_column, options.end_column, options.key, options.ids
        )
        path = weights.locate(stream.weights)
        read = [*files.files(path), *([Path(layout.ids)] if layout.ids and Path(layout.ids).is_file() else [])]
        sha256 = weights.sha256(read)
        prepare = Prepare(str(path), sha256, layout, options.file_id, options.clip_id, options.fps, options.axis)
        found = read_features(prepare)
        if not found:
            raise WeightsError(f"{path} holds no clip (file_id {options.file_id!r}); check options.file_id.")
        if found.left:
            log.info("%s: left out, as they are no features: %s (options.columns reads them)", path, ", ".join(found.left))
        placed = {
            key: value
            for key, value in options.model_dump(mode="json").items()
            if key != "ids" and (key, value) != ("axis", None)
        }
        identity = {
            "weights": {"source": f"file:{path.name}", "sha256": sha256},
            "preprocessing": placed,
        }
        notes = {"imported clips": len(found), "imported columns": found.columns, "imported names": sorted(found)[:3]}
        return Extractor(identity, prepare, Computed, budget=1e6, axis=options.axis, notes=notes)


def measure_coverage(extractor: Extractor, clips: Sequence[str]) -> dict[str, Any]:
    """How well the file covers the manifest's clips: counts, and a few names that met nobody on either side.

    Raises:
        ParamsError: clips are looked up by `stem`, and two have the same.
    """
    prepare = extractor.prepare
    if not isinstance(prepare, Prepare):
        raise TypeError("only imported features cover clips")
    features = read_features(prepare)
    wanted = {clip: rename_clip(clip, prepare.clip_id) for clip in clips}
    if prepare.clip_id == "stem" and len(set(wanted.values())) < len(wanted):
        seen: dict[str | None, str] = {}
        one, other = next((seen[name], clip) for clip, name in wanted.items() if seen.setdefault(name, clip) != clip)
        raise ParamsError(
            f"{Path(prepare.path).name}: clips {one!r} and {other!r} are both called {wanted[one]!r}; set options.clip_id "
            "and file_id to null, or to expressions that tell them apart."
        )
    absent = sorted(clip for clip, name in wanted.items() if name not in features)
    unused = sorted(set(features) - set(wanted.values()))
    return {
        "clips": len(clips),
        "covered": len(clips) - len(absent),
        "absent": absent[:5],
        "unused": len(unused),
        "unused names": unused[:5],
    }
