"""`check`: everything a run needs, looked at before it begins; all that is missing is said at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import CorpusError, UserError, WeightsError
from pipeline.params import Params, Stream

if TYPE_CHECKING:
    import polars as pl

    from pipeline.data.corpora import Adapter, Tables
    from pipeline.parts import Parts


@dataclass(frozen=True)
class Line:
    """What was looked at, what was found, and whether a run can begin with it."""

    subject: str
    found: str
    ok: bool = True

    def __str__(self) -> str:
        return f"{'ok   ' if self.ok else 'WRONG'} {self.subject}: {self.found}"


def check_weights(params: Params) -> None:
    """
    Raises:
        WeightsError: weights of streams, faces or speech recognition are not there or do not fit; all of them in one line.
    """
    wrong = [line for line in weights_of(params) if not line.ok]
    if wrong:
        raise WeightsError("; ".join(f"{line.subject}: {line.found.rstrip('.')}" for line in wrong))


def weights_of(params: Params, *, random: bool = False) -> Iterator[Line]:
    """A line for each stream, and for what faces and speech recognition load.

    Args:
        random: build stand-ins too, which need no weights.
    """
    for name, stream in params.streams.items():
        if random or not stream.weights.startswith("random:"):
            yield _look(f"stream {name}", partial(_build, stream))
    if any(stream.modality == "face" for stream in params.streams.values()):
        yield _look("faces", lambda: _detector(params))
    if params.asr.weights:
        yield _look("asr", lambda: _recogniser(params))


def _look(subject: str, look: Callable[[], str]) -> Line:
    try:
        return Line(subject, look())
    except UserError as error:
        return Line(subject, str(error), ok=False)


def _build(stream: Stream) -> str:
    from pipeline.features.encoders import registry

    # An adapter that is yet to be learned is none that is lacking.
    looked = stream.bare if stream.adapt else stream
    for view in (None, *stream.views):
        registry.build(looked, view)
    return f"{stream.encoder}, {stream.weights}"


def _detector(params: Params) -> str:
    from pipeline.data.faces import detect

    detect.identity(params.faces)
    return params.faces.detector


def _recogniser(params: Params) -> str:
    from pipeline.features.transcribe import Recogniser

    Recogniser(str(params.asr.weights), params.asr.language).identity()
    return str(params.asr.weights)


class Preflight:
    """One look at everything, in the order in which a run would meet it."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def lines(self) -> Iterator[Line]:
        yield Line("recipe", self.params.recipe)
        yield _look("device", self._device)
        corpus = _look(f"corpus {self.params.corpus.name}", self._corpus)
        yield corpus
        if corpus.ok and self.tables is not None:
            yield _look(f"protocol {self.params.protocol.kind}", self._protocol)
            yield from self._modalities()
            if self.params.task.emotion and self.params.task.classes:
                yield _look("classes", self._classes)
        yield _look("network", self._network)
        yield from weights_of(self.params, random=True)
        if corpus.ok:
            yield _look("disk", self._disk)

    def _device(self) -> str:
        from pipeline.devices import pick_devices

        if self.params.run.engine == "ray":
            return f"Ray at {self.params.run.ray_address or 'a cluster of its own'}"
        return ", ".join(pick_devices(self.params.run.device, encodes=True))

    def _network(self) -> str:
        """Names and options of the parts that are chosen by name."""
        from pipeline.models.registry import CONTEXTS, FUSIONS, HEADS, LOSSES, TEMPORALS
        from pipeline.parts import read_options
        from pipeline.runs.folders import FUSED
        from pipeline.training.curricula.base import CURRICULA
        from pipeline.training.samplers.base import SAMPLERS
        from pipeline.training.together import check_processes
        from pipeline.training.variants import Variant

        params, training = self.params, self.params.training
        chosen: list[tuple[Parts, str, object, str]] = [
            (FUSIONS, params.fusion.name, params.fusion.options, "fusion"),
            (TEMPORALS, params.temporal.kind, params.temporal.options, "temporal"),
        ]
        chosen += [(CONTEXTS, one.name, one.options, "context") for one in [params.context] if one]
        chosen += [(HEADS, one.name, one.options, f"heads.{name}") for name, one in params.heads.items()]
        chosen += [(LOSSES, one.name, one.options, f"loss.{name}") for name, one in params.loss.items()]
        chosen += [(CURRICULA, one.name, one.options, "training.curriculum") for one in [training.curriculum] if one]
        chosen += [(SAMPLERS, one.name, one.options, "training.sampler") for one in [training.sampler] if one]
        for parts, name, options, where in chosen:
            read_options(parts.find(name).Options, options, f"{where}.options")
        check_processes(params, Variant(FUSED, params.inputs, params.fusion))
        return f"{params.fusion.name} of {', '.join(params.streams)}"

    @cached_property
    def adapter(self) -> Adapter:
        from pipeline.data.corpora import open_corpus

        return open_corpus(self.params.corpus)

    @cached_property
    def tables(self) -> Tables | None:
        """What the adapter reads; None where the corpus is yet to be generated."""
        if self.adapter.generated and not Path(self.params.corpus.root).is_dir():
            return None
        return self.adapter.read()

    @cached_property
    def table(self) -> pl.DataFrame:
        """The clips as a manifest without examination."""
        from pipeline.storage import tables

        assert self.tables is not None  # noqa: S101  asked for where there are tables
        unique = {clip["id"]: clip for clip in self.tables.clips}
        return tables.frame([clip | {"content": clip["id"], "duration": clip.get("expected")} for clip in unique.values()])

    def _corpus(self) -> str:
        if self.tables is None:
            return f"will be generated in {self.params.corpus.root}"
        if not self.tables.clips:
            raise CorpusError(
                f"{self.params.corpus.root} holds no clips of {self.adapter.title}. Expected {self.adapter.layout}."
            )
        problems = f", {len(self.tables.problems)} lines or files that became none" if self.tables.problems else ""
        return f"{len(self.tables.clips)} clips in {self.params.corpus.root}{problems}"

    def _protocol(self) -> str:
        from pipeline.data import coverage, leakage, split
        from pipeline.training.data.rotation import check_rotation

        protocol = self.params.protocol
        folds = split.make_folds(self.table, protocol)
        if protocol.kind == "none":
            return "features only, nothing is trained"
        coverage.check_labels(self.table, folds)
        if self.params.training.rotate:
            check_rotation(folds, "data/folds.parquet")
        leaks = leakage.find_leaks(self.table, folds, tuple(column for column in protocol.leakage if column != "content"))
        leakage.enforce(leaks, protocol)
        if split.is_single(folds):
            return f"by {protocol.group}" if protocol.kind in ("official", "split") else f"{folds['name'][0]}, one split"
        by = {"file": f"of {protocol.file}", "cross": "by corpus"}.get(protocol.kind, f"by {protocol.group}")
        return f"{folds['fold'].n_unique()} folds {by}"

    def _modalities(self) -> Iterator[Line]:
        """Streams that no clip has anything for."""
        for name, stream in self.params.streams.items():
            column = "video" if stream.modality == "face" else stream.modality
            heard = stream.modality == "text" and self.params.asr.weights
            # Sound may be inside a film, which is seen when it is opened.
            inside = stream.modality == "audio" and self.table["video"].is_not_null().any()
            if not (self.table[column].is_not_null().any() or heard or inside or stream.encoder == "import"):
                yield Line(f"stream {name}", f"no clip has {column}; drop it with -S '~stream@streams.{name}'", ok=False)

    def _classes(self) -> str:
        known = set(self.table["emotion"].drop_nulls())
        if lacking := [name for name in self.params.task.classes if name not in known]:
            raise CorpusError(f"task.classes: no clip is {', '.join(lacking)}; there are {', '.join(sorted(known))}.")
        return ", ".join(self.params.task.classes)

    def _disk(self) -> str:
        """Decoded media take about the room of the media; DVC's cache may hold a copy of them."""
        from rich.filesize import decimal

        root = Path(self.params.corpus.root)
        clips = self.tables.clips if self.tables else []
        media: set[str] = {clip[m] for clip in clips for m in ("video", "audio") if clip.get(m)}
        needed = 2 * sum(path.stat().st_size for name in media if (path := root / name).is_file())
        free = shutil.disk_usage(".").free
        if free < needed:
            raise CorpusError(f"{decimal(free)} are free here, and about {decimal(needed)} will be needed.")
        return f"{decimal(free)} free, about {decimal(needed)} needed"
