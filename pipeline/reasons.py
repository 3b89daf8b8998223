"""Why a clip, a file or a line is in quarantine: one vocabulary for all stages, the report and the documentation."""

from __future__ import annotations

#: Reason as it stands in `data/*quarantine.parquet` → what it means.
REASONS: dict[str, str] = {
    # The annotation.
    "row": "a line of a table cannot be read",
    "label": "a label the corpus does not define",
    "name": "a file name the corpus does not define",
    "escape": "the path leads out of the corpus root",
    "duplicate": "the same id, or the same media and cut, as another clip",
    "known": "on the list of clips known to be damaged as distributed",
    "surplus": "media or a line that nothing is annotated for; no clip is lost",
    # What is there.
    "missing": "the media, or the annotation beside them, are not there",
    "empty": "the media hold no bytes, no frames or no samples, or the cut has no length",
    "stub": "a pointer of git-lfs stands in for the file",
    "no_modality": "neither picture nor sound where the annotation promises one",
    "no_video": "the media have no video stream",
    "no_audio": "the media have no audio stream",
    # Whether it can be decoded.
    "unreadable": "no decoder can make sense of the bytes",
    "truncated": "the media end well before the length they declare",
    "corrupt": "more than a tenth of the packets cannot be decoded",
    "not_finite": "the samples are NaN, infinite or absurdly large",
    "too_large": "a frame is larger than any video camera makes",
    "out_of_range": "the clip's start lies beyond the end of the media",
    "access": "the bytes could not be read: permission, disk or network",
    "changed": "the file is another one than `manifest` saw; run that stage again",
    "memory": "decoding needs more memory than there is",
    "timeout": "decoding took longer than run.timeout",
    "crash": "the decoder crashed",
    "error": "decoding failed in an unforeseen way",
    # Whether it is what the annotation says.
    "silent": "the loudest second of the sound stays below integrity.silence",
    "too_short": "shorter than integrity.min_duration",
    "too_long": "longer than integrity.max_duration, or than the hour of sound that is decoded at once",
    "drift": "the length differs from the annotation by more than integrity.max_drift",
    # What came of it.
    "no_fold": "the protocol has no fold for it; it is neither trained nor scored on",
    "lost_frames": "some pictures of a folder of frames cannot be read; the clip keeps the others",
    "few_faces": "the chosen face is in fewer of the clip's frames than faces.min_share; no clip is lost",
    "failed": "an encoder could not make features of it",
}

#: What is true of the bytes, wherever and whenever they are looked at; other reasons may be the machine's and pass.
OF_BYTES = frozenset(
    {
        "empty",
        "no_modality",
        "no_video",
        "no_audio",
        "unreadable",
        "truncated",
        "corrupt",
        "not_finite",
        "too_large",
        "out_of_range",
    }
)

#: Rows that tell of a file nobody asked for, or of a clip that is used all the same: not failures.
BENIGN = frozenset({"surplus", "few_faces", "lost_frames", "no_fold"})


def known(reason: str) -> str:
    """The reason itself.

    Raises:
        ValueError: it is not of the vocabulary, a mistake in the program.
    """
    if reason not in REASONS:
        raise ValueError(f"{reason!r} is no reason of pipeline.reasons")
    return reason
