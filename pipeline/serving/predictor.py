"""Prediction on raw media, through the code that made the training features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.data.decode.errors import DecodeError
from pipeline.devices import pick_devices
from pipeline.errors import UserError
from pipeline.features import transcribe
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Extractor, Missing, Turn
from pipeline.features.engine.entries import encode_batch
from pipeline.features.engine.forward import Forward
from pipeline.features.engine.reader import Job
from pipeline.features.engine.stats import Stats
from pipeline.params import Params, Stream
from pipeline.runs.ensemble import find_members
from pipeline.runs.folders import FUSED
from pipeline.runs.inputs import Before, Features
from pipeline.runs.predict import Estimate, average, average_looks, predict_inputs
from pipeline.runs.run import TrainedModel, load_run
from pipeline.storage.feature_store import Status

from .adapted import check_adapter
from .attention import write_attention
from .dialogue import ask, name_voices, read_turn
from .exported import open_exported
from .film import is_long, read_film
from .prediction import Prediction, StreamUse, describe
from .source import Source, Spoken, missing_reason

log = logging.getLogger(__name__)


@dataclass
class Predictor:
    """The trained models of one variant and fold (of the ensemble: of all its members), and the encoders they were trained on.

    Encoders are built when first needed and kept, so that many files cost one loading.
    """

    runs: list[TrainedModel]
    encoders: dict[str, Stream]
    params: Params
    device: str = "cpu"
    #: What each of `runs` is worth in the mean; None = all alike.
    weights: Sequence[float] | None = None
    _extractors: dict[tuple[str, str | None], Extractor] = field(default_factory=dict, repr=False)
    _forwards: dict[str, Forward] = field(default_factory=dict, repr=False)
    _recognise: Callable[[Sequence[np.ndarray]], list[str]] | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls,
        params: Params,
        models: str | Path = Path("models/runs"),
        device: str | None = None,
        *,
        variant: str = FUSED,
        fold: int = 0,
    ) -> Predictor:
        """Read the trained models.

        Args:
            params: for decoding and the device; the encoders are those the models were trained on.
            device: where encoders run; None takes `run.device`.

        Raises:
            StoreError: nothing was trained, no such variant or fold, or no ensemble was asked for.
            DeviceError: a GPU asked for is not there.
        """
        members = find_members(models, variant, fold)
        runs = [load_run(folder) for folder in members]
        encoders = {name: Stream.model_validate(spec) for run in runs for name, spec in run.config["encoders"].items()}
        return cls(runs, encoders, params, pick_devices(device or params.run.device)[0], list(members.values()))

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str | None = None) -> Predictor:
        """That of a folder that `export` wrote, or of the hub; see `exported.open_exported`."""
        runs, encoders, params, weights = open_exported(name)
        return cls(runs, encoders, params, pick_devices(device or params.run.device)[0], weights=weights)

    def predict(
        self,
        path: str | Path,
        text: str | None = None,
        start: float | None = None,
        end: float | None = None,
        *,
        speaker: str | None = None,
        context: Sequence[Turn] = (),
        attention: Path | None = None,
    ) -> Prediction:
        """Predict one media file. A modality it lacks is missing, as it would be in training.

        A model that predicts over time sees every frame of a film, however long, in windows; others see it as they saw clips.

        Args:
            path: media file, or a folder of frame images.
            text: what is said; without it, text streams that read recognised words (`asr.weights`) listen, others
                are missing.
            start, end: seconds of the file to look at.
            speaker, context: who speaks, and earlier turns of the dialogue, oldest first; for encoders that read them, and for
                a model with a context, which is given what the text streams make of their words.
            attention: file (.npz) to write to what the attention of the first model looks at.

        Raises:
            DecodeError: the file is not there, or no decoder can read it.
            UserError: an empty cut, or not one of the model's streams can be had from the file.
            WeightsError: the weights of an encoder or of the recogniser are not there.
        """
        source = self.source(path, Spoken(text, speaker, tuple(context)), start, end)
        duration = source.duration  # a file that is absent or no medium stops here, with one line
        film = is_long(source) and any(run.model.spec.base is not None for run in self.runs)
        features, use, heard = read_film(source, self.encoders, self.features) if film else (*self.features(source), source.heard)
        if not features:
            why = "; ".join(f"{name}: {one.reason}" for name, one in use.items())
            raise UserError(f"{path} has nothing this model can read ({why}).")
        before = self.recall(context, speaker)
        voice = 0 if speaker else -1
        looks = [features] if film else self.looks(source, features)
        output = average_looks([self.estimate(look, before, voice) for look in looks])
        if attention is not None:
            if film:
                raise UserError(f"{path} is too long for one look of the attention; cut it with --start and --end.")
            write_attention(attention, self.runs[0].model, ask(self.runs[0], features, before, voice))
        if output.shares is not None:
            shares = dict(zip(self.runs[0].model.spec.streams, output.shares.tolist(), strict=True))
            use = {name: replace(one, share=shares[name]) if one.status == Status.OK else one for name, one in use.items()}
        return describe(str(source.path), duration, output, use, self.random, len(self.runs), heard)

    @property
    def random(self) -> tuple[str, ...]:
        """Streams whose encoder has random weights, and `fusion` where its language model has."""
        held = any(run.model.spec.language and run.model.spec.language.weights.startswith("random:") for run in self.runs)
        streams = [name for name, stream in self.encoders.items() if stream.weights.startswith("random:")]
        return (*streams, *(["fusion"] if held else []))

    def estimate(self, features: dict[str, Features], before: Sequence[Before] = (), voice: int = -1) -> Estimate:
        """What the models say of one clip from the raw features of its streams, each of those it reads.

        Args:
            before: the turns before it, see `recall`. voice: who speaks, as in `History.voices`.
        """
        return average([predict_inputs(run, ask(run, features, before, voice)) for run in self.runs], self.weights)

    def recall(self, context: Sequence[Turn], speaker: str | None = None) -> list[Before]:
        """The turns before a clip as the model's context takes them: of each, what text streams make of its words.

        What was seen and heard then is not known here, so that the other streams are missing in them.
        """
        window = max(run.model.spec.turns[0] for run in self.runs)
        voices = name_voices(context, speaker)
        found = []
        for i in range(max(0, len(context) - window) if window else len(context), len(context)):
            read = partial(read_turn, context[: i + 1])
            each = {name: self.encode(read, f"turn {i + 1}", name) for name in self.encoders}
            found.append(Before({name: one for name, one in each.items() if not isinstance(one, StreamUse)}, voices[i]))
        return found

    def source(
        self,
        path: str | Path,
        spoken: Spoken = Spoken(),  # noqa: B008  frozen
        start: float | None = None,
        end: float | None = None,
    ) -> Source:
        """A file to be looked at as this model's training clips were."""
        return Source(Path(path), self.params, start, end, spoken, self.hear if self.params.asr.weights else None)

    def features(self, source: Source, names: Sequence[str] | None = None) -> tuple[dict[str, Features], dict[str, StreamUse]]:
        """Rows (T, ...) float32 and times (T, 2) of each stream (of `names`; None = all) that is there, and the use of all."""
        features: dict[str, Features] = {}
        use: dict[str, StreamUse] = {}
        for name in self.encoders if names is None else names:
            found = self.encode(source.clip, source.path.name, name)
            if isinstance(found, StreamUse):
                use[name] = found
            else:
                features[name], use[name] = found, StreamUse(Status.OK, len(found[0]))
        return features, use

    def views(self, source: Source, features: dict[str, Features]) -> dict[str, dict[str, Features]]:
        """Stream → view → rows and times, of the streams in `features`; a view that cannot be had is left out, with a line."""
        result: dict[str, dict[str, Features]] = {name: {} for name in features}
        for name in features:
            for view in self.encoders[name].views:
                found = self.encode(source.clip, source.path.name, name, view)
                if isinstance(found, StreamUse):
                    log.warning("%s: stream %s is without view %s (%s)", source.path, name, view, found.reason)
                else:
                    result[name][view] = found
        return result

    def looks(self, source: Source, features: dict[str, Features]) -> list[dict[str, Features]]:
        """What is predicted from: the plain features, then look k with the k-th view of every stream that has one."""
        views = [(name, list(seen.values())) for name, seen in self.views(source, features).items()]
        count = max((len(seen) for _, seen in views), default=0)
        return [features, *(features | {name: seen[k] for name, seen in views if k < len(seen)} for k in range(count))]

    def encode(self, read: Callable[[Stream], Clip], label: str, name: str, view: str | None = None) -> Features | StreamUse:
        """Rows (T, ...) float32 and times (T, 2) of one stream, or why it has none."""
        stream = self.encoders[name]
        try:
            prepared = self.extractor(name, view).prepare(read(stream))
        except (Missing, DecodeError) as error:
            status = Status.FAILED if isinstance(error, DecodeError) else Status.MISSING
            return StreamUse(status, reason=missing_reason(error))
        stats = Stats()
        # The network of a view is that of its stream.
        entry = encode_batch(self.forward(name), [(Job(label, name), prepared)], stats).get(name)
        if entry is None:
            return StreamUse(Status.FAILED, reason=stats.failures[name])
        if not len(entry.values):
            return StreamUse(Status.MISSING, reason="the encoder gave no row")
        return self.round(name, (entry.values, entry.times))

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
