"""Transcripts by Whisper for clips that came without one.

`transcribe` writes `data/transcripts.parquet`; a text stream with `source: data/transcripts.parquet`
reads the manifest's own text and, where there is none, what was recognised. Human transcripts are
never replaced, and a clip in which nothing was recognised stays without text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.code import code_digest
from pipeline.errors import ParamsError, WeightsError, one_of
from pipeline.params import Params, Run
from pipeline.progress import track
from pipeline.storage import tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry, Status
from pipeline.storage.media_store import Media
from pipeline.threads import computing

from .encoders.audio import mel, sound, whisper
from .encoders.text import tokenizer_files

log = logging.getLogger(__name__)
#: What the stage writes; a text stream with this `source` reads recognised text where a clip has none.
TABLE = "data/transcripts.parquet"
#: Its columns.
TRANSCRIPTS: dict[str, pl.DataType] = {"id": pl.String(), "text": pl.String(), "weights": pl.String()}
#: Pieces of sound heard at a time.
BATCH = 8
#: (content, clip) of each clip that is heard together.
Batch = list[tuple[str, str]]
#: Rows without text, or with a blank one.
LACKS_TEXT = pl.col("text").str.strip_chars().fill_null("") == ""


@dataclass(frozen=True)
class Recogniser:
    """Whisper with its decoder; greedy, without timestamps.

    Attributes:
        weights: `hf:`, `local:` or `package:` of a whole Whisper checkpoint.
        language: for multilingual checkpoints, e.g. `en`; null lets the model guess. English-only
            checkpoints (`*.en`) take none.
        limit: most tokens of one piece of 30 s.
        threads: that the network computes with on a processor.
    """

    weights: str
    language: str | None = None
    limit: int = 200
    threads: int = 1

    def identity(self) -> dict[str, object]:
        """All that decides a transcript."""
        from pipeline import weights

        return {
            "kind": "asr",
            "code": code_digest(__name__),
            "language": self.language,
            "limit": self.limit,
            "threads": self.threads,
            "weights": weights.identity(self.weights),
        }

    def load(self, device: str = "cpu") -> Callable[[Sequence[np.ndarray]], list[str]]:
        """The network on `device`.

        Returns:
            A function of (S,) float32 waveforms at 16 kHz: one text each, empty where nothing was heard.

        Raises:
            WeightsError: absent, another architecture, or without a tokenizer.
            ParamsError: a language for an English-only checkpoint, or one that a checkpoint does not know.
        """
        import torch
        from transformers import WhisperForConditionalGeneration
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        from pipeline import weights
        from pipeline.weights import ctranslate2, pretrained

        folder = weights.locate(self.weights)
        if ctranslate2.is_folder(folder):
            raise WeightsError(
                f"{self.weights} is CTranslate2's and says little of how to transcribe; use openai/whisper-* of the hub."
            )
        config = weights.config(folder)
        pretrained.expect(self.weights, config, ("whisper",))
        front = whisper.read_front(weights.parse(self.weights), config, sound.front(folder))
        tokenizer = tokenizer_files.load_tokenizer(self.weights, folder)
        model = pretrained.load(WhisperForConditionalGeneration, self.weights).to(device)
        settings = model.generation_config
        multilingual = bool(getattr(settings, "is_multilingual", False))
        if self.language and not multilingual:
            raise ParamsError(f"{self.weights} knows English alone; set asr.language to null.")
        known = {token.strip("<|>") for token in getattr(settings, "lang_to_id", None) or ()}
        if self.language and TO_LANGUAGE_CODE.get(self.language, self.language) not in known:
            raise one_of(f"language of {self.weights}", self.language, known)
        options = {"task": "transcribe", "language": self.language} if multilingual else {}
        whole = front.frames * front.hop

        def hear(pieces: Sequence[np.ndarray]) -> list[str]:
            spectra = [
                mel.whisper(np.pad(wave, (0, whole - len(wave))), front.frames, front.size, front.hop, front.bank)
                for wave in pieces
            ]
            inputs = torch.from_numpy(np.stack(spectra)).to(device)
            mask = torch.ones(inputs.shape[::2], dtype=torch.long, device=device)
            with pretrained.quiet(), computing(self.threads):
                found = model.generate(
                    inputs, attention_mask=mask, max_new_tokens=self.limit, do_sample=False, num_beams=1, **options
                )
            return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found]

        @torch.inference_mode()
        def recognise(waveforms: Sequence[np.ndarray]) -> list[str]:
            pieces = [
                (i, wave[start : start + whole]) for i, wave in enumerate(waveforms) for start in range(0, len(wave), whole)
            ]
            texts: list[list[str]] = [[] for _ in waveforms]
            for low in range(0, len(pieces), BATCH):
                some = pieces[low : low + BATCH]
                for (i, _), text in zip(some, hear([wave for _, wave in some]), strict=True):
                    texts[i].append(text)
            return [" ".join(part for part in text if part) for text in texts]

        return recognise


def make_recogniser(params: Params, rate: int) -> Recogniser:
    """The recogniser of a run whose sound was decoded at `rate`.

    Raises:
        ParamsError: no weights are set, or Whisper hears another rate.
    """
    if not params.asr.weights:
        raise ParamsError("asr.weights is null; name the weights of a whole Whisper checkpoint.")
    if rate != whisper.RATE:
        raise ParamsError(f"Whisper hears {whisper.RATE} Hz; set decode.audio.rate to {whisper.RATE}.")
    return Recogniser(params.asr.weights, params.asr.language, threads=params.asr.threads)


def transcribe(
    params: Params,
    manifest: str | Path = "data/manifest.parquet",
    audio: str | Path = "data/audio.h5",
    out: str | Path = TABLE,
) -> Path:
    """Stage `transcribe`: recognise what is said in clips that have sound and no text.

    With `asr.weights: null` nothing is recognised and the table is empty.

    Raises:
        WeightsError, ParamsError: see `Recogniser.load`.
        StoreError: the manifest or the decoded sound is not there.
    """
    table = tables.read(manifest).sort("id")
    rows: list[dict[str, object]] = []
    if params.asr.weights:
        media = Media(audio)
        recogniser = make_recogniser(params, media.rate)
        wanted = [
            row
            for row in table.filter(LACKS_TEXT).select("id", "content").to_dicts()
            if row["id"] in media.position and media.status[media.position[row["id"]]] == Status.OK
        ]
        with ClipCache("asr", {**recogniser.identity(), "decode": media.identity}) as cache:
            _compute(recogniser, media, wanted, cache, params)
            for row in wanted:
                text = bytes(found.values).decode() if (found := cache.get(row["content"])) else ""
                rows.append({"id": row["id"], "text": text or None, "weights": params.asr.weights})
        log.info(
            "transcribe: %d clips had no text; speech was recognised in %d",
            len(wanted),
            sum(row["text"] is not None for row in rows),
        )
    tables.write(tables.frame(rows, TRANSCRIPTS), out)
    return Path(out)


def _compute(recogniser: Recogniser, media: Media, wanted: list[dict[str, str]], cache: ClipCache, params: Params) -> None:
    missing = cache.missing(row["content"] for row in wanted)
    todo = list({row["content"]: row["id"] for row in wanted if row["content"] in missing}.items())
    if not todo:
        return
    batches = [todo[low : low + BATCH] for low in range(0, len(todo), BATCH)]
    with track(len(todo), "transcribe") as advance:
        for texts in _recognise(recogniser, media, batches, params.run):
            cache.put({content: _entry(text) for content, text in texts.items()})
            advance(len(texts))


def _recognise(recogniser: Recogniser, media: Media, batches: list[Batch], options: Run) -> Iterator[dict[str, str]]:
    """Content → text, batch by batch; here, or on a cluster."""
    if options.engine == "ray":
        from .heard_there import recognise_there

        yield from recognise_there(recogniser, str(media.path), batches, options)
        return
    from pipeline.devices import pick_devices

    recognise = recogniser.load(pick_devices(options.device)[0])
    for batch in batches:
        yield dict(zip(dict(batch), recognise([media.waveform(clip) for _, clip in batch]), strict=True))


def _entry(text: str) -> Entry:
    data = np.frombuffer(text.encode(), np.uint8)
    return Entry(data, np.zeros((0, 2), np.float32))


def fill_texts(table: pl.DataFrame, transcripts: str | Path) -> pl.DataFrame:
    """The manifest with recognised text where it has none of its own.

    Raises:
        StoreError: the transcripts are not there.
    """
    heard = tables.read(transcripts).select("id", pl.col("text").alias("heard"))
    joined = table.join(heard, on="id", how="left", maintain_order="left")
    return joined.with_columns(
        pl.when(LACKS_TEXT & pl.col("heard").is_not_null()).then(pl.col("heard")).otherwise(pl.col("text")).alias("text")
    ).drop("heard")
