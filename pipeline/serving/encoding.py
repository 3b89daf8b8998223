"""Raw files through the encoders that a model was trained on, with the code that made the training features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from pipeline.data.decode.errors import DecodeError
from pipeline.features import transcribe
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Extractor, Missing
from pipeline.features.engine.batcher import batches
from pipeline.features.engine.entries import encode_batch
from pipeline.features.engine.forward import Forward
from pipeline.features.engine.reader import Job
from pipeline.features.engine.stats import Stats
from pipeline.params import Params, Stream
from pipeline.runs.inputs import Features
from pipeline.runs.run import TrainedModel
from pipeline.storage.feature_store import Status

from .adapted import check_adapter
from .kept import Kept
from .looks import Looks
from .prediction import StreamUse
from .source import Source, missing_reason
from .spoken import Spoken

log = logging.getLogger(__name__)
#: Rows (T, ...) float32 and times (T, 2) of a stream, or why there are none.
Found: TypeAlias = Features | StreamUse
#: Stream → view → rows and times.
Views: TypeAlias = dict[str, dict[str, Features]]


@dataclass
class Encoding:
    """Encoders, built when first needed and kept, and so are the processes that decode: many files cost one loading.

    Attributes:
        runs: the models that learned from the encoders' features.
        kept: where features of files stay, for another time; None = nowhere.
    """

    runs: list[TrainedModel]
    encoders: dict[str, Stream]
    params: Params
    device: str = "cpu"
    kept: Kept | None = None
    looks: Looks = field(default_factory=Looks, repr=False)
    _extractors: dict[tuple[str, str | None], Extractor] = field(default_factory=dict, repr=False)
    _forwards: dict[str, Forward] = field(default_factory=dict, repr=False)
    _recognise: Callable[[Sequence[np.ndarray]], list[str]] | None = field(default=None, repr=False)

    def source(
        self,
        path: str | Path,
        spoken: Spoken = Spoken(),  # noqa: B008  frozen
        start: float | None = None,
        end: float | None = None,
    ) -> Source:
        """A file to be looked at as this model's training clips were."""
        hear = self.hear if self.params.asr.weights else None
        return Source(Path(path), self.params, start, end, spoken, hear, looks=self.looks)

    def features(self, source: Source, names: Sequence[str] | None = None) -> tuple[dict[str, Features], dict[str, StreamUse]]:
        """Rows (T, ...) float32 and times (T, 2) of each stream (of `names`; None = all) that is there, and the use of all."""
        return self.features_of([source], names)[0]

    def features_of(
        self, sources: Sequence[Source], names: Sequence[str] | None = None
    ) -> list[tuple[dict[str, Features], dict[str, StreamUse]]]:
        """The same of each file, encoded in batches."""
        result: list[tuple[dict[str, Features], dict[str, StreamUse]]] = [({}, {}) for _ in sources]
        for name in self.encoders if names is None else names:
            for (features, use), found in zip(result, self.encode_files(sources, name), strict=True):
                if isinstance(found, StreamUse):
                    use[name] = found
                else:
                    features[name], use[name] = found, StreamUse(Status.OK, len(found[0]))
        return result

    def views_of(
        self, sources: Sequence[Source], features: Sequence[dict[str, Features]]
    ) -> list[dict[str, dict[str, Features]]]:
        """Of each file: stream → view → rows and times, of the streams in `features`; a view that cannot be had is left out,
        with a line."""
        result: list[Views] = [{name: {} for name in one} for one in features]
        for name, stream in self.encoders.items():
            here = [place for place, one in enumerate(features) if name in one]
            for view in stream.views:
                for place, found in zip(here, self.encode_files([sources[i] for i in here], name, view), strict=True):
                    if isinstance(found, StreamUse):
                        log.warning("%s: stream %s is without view %s (%s)", sources[place].path, name, view, found.reason)
                    else:
                        result[place][name][view] = found
        return result

    def looks_of(self, sources: Sequence[Source], features: Sequence[dict[str, Features]]) -> list[list[dict[str, Features]]]:
        """What each file is predicted from: the plain features, then look k with the k-th view of every stream that has one."""
        result = []
        for plain, seen in zip(features, self.views_of(sources, features), strict=True):
            views = {name: list(one.values()) for name, one in seen.items()}
            count = max(map(len, views.values()), default=0)
            result.append([plain, *(plain | {name: one[k] for name, one in views.items() if k < len(one)} for k in range(count))])
        return result

    def encode(self, read: Callable[[Stream], Clip], label: str, name: str, view: str | None = None) -> Found:
        """One stream of one clip."""
        return self._encode([(label, read)], name, view)[0]

    def encode_files(self, sources: Sequence[Source], name: str, view: str | None = None) -> list[Found]:
        """One stream of each file, in batches; what was encoded before and kept is not encoded again."""
        kept = self.kept
        found: list[Found | None] = [kept.get(name, view, source) if kept else None for source in sources]
        todo = [place for place, one in enumerate(found) if one is None]
        fresh = self._encode([(sources[place].path.name, sources[place].clip) for place in todo], name, view)
        for place, one in zip(todo, fresh, strict=True):
            found[place] = one
        if kept:
            kept.put(name, view, [(sources[place], one) for place, one in zip(todo, fresh, strict=True)])
        return [one for one in found if one is not None]

    def _encode(self, clips: Sequence[tuple[str, Callable[[Stream], Clip]]], name: str, view: str | None) -> list[Found]:
        stream, prepared = self.encoders[name], []
        found: dict[int, Found] = {}
        for place, (label, read) in enumerate(clips):
            try:
                clip = read(stream)  # first: where it is missing, no encoder is asked for
                prepared.append((Job(label, str(place)), self.extractor(name, view).prepare(clip)))
            except (Missing, DecodeError) as error:
                status = Status.FAILED if isinstance(error, DecodeError) else Status.MISSING
                found[place] = StreamUse(status, reason=missing_reason(error))
        stats = Stats()
        for batch in batches(prepared, self.extractor(name).budget) if prepared else ():
            # The network of a view is that of its stream.
            entries = encode_batch(self.forward(name), batch, stats)
            for job, _ in batch:
                if (entry := entries.get(job.content)) is None:
                    found[int(job.content)] = StreamUse(Status.FAILED, reason=stats.failures[job.content])
                elif not len(entry.values):
                    found[int(job.content)] = StreamUse(Status.MISSING, reason="the encoder gave no row")
                else:
                    found[int(job.content)] = self.round(name, (entry.values, entry.times))
        return [found[place] for place in range(len(clips))]

    def round(self, name: str, found: Features) -> Features:
        """Rows as the store of a stream would give them back: the model was trained on those."""
        values, times = found
        return values.astype(self.encoders[name].store.dtype).astype(np.float32), times.astype(np.float32)

    def hear(self, waveform: np.ndarray) -> str:
        """What is said in (S,) samples at `decode.audio.rate`; `asr.weights` must be set."""
        if self._recognise is None:
            self._recognise = transcribe.make_recogniser(self.params, self.params.decode.audio.rate).load(self.device)
        return self._recognise([waveform])[0]

    def extractor(self, name: str, view: str | None = None) -> Extractor:
        """That of a stream, made once."""
        if (name, view) not in self._extractors:
            built = registry.build(self.encoders[name], view)
            check_adapter(name, self.encoders[name], built, self.runs)
            self._extractors[name, view] = built
        return self._extractors[name, view]

    def forward(self, name: str) -> Forward:
        """The network of a stream, loaded once."""
        if name not in self._forwards:
            self._forwards[name] = Forward(self.extractor(name), self.device)
        return self._forwards[name]
