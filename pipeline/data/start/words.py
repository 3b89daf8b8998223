"""Words by which columns, folders and parts of file names are known."""

from __future__ import annotations

import re

#: Manifest column → names that tables give it, small letters without signs.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "clipid", "clip", "videoid", "uttid"),
    "media": ("media", "file", "filename", "path", "filepath", "clippath", "mediapath", "name"),
    "video": ("video", "videopath", "videofile", "film"),
    "audio": ("audio", "audiopath", "audiofile", "sound", "wav", "wavfile"),
    "text": ("text", "transcript", "transcription", "utterance", "sentence", "words", "said", "subtitle"),
    "speaker": ("speaker", "speakerid", "spk", "actor", "actorid", "subject", "subjectid", "participant", "person", "who"),
    "emotion": ("emotion", "emotions", "label", "class", "emo", "category", "affect"),
    "sentiment": ("sentiment", "polarity"),
    "valence": ("valence", "val", "v", "pleasure"),
    "arousal": ("arousal", "aro", "activation", "a"),
    "dominance": ("dominance", "dom", "d"),
    "split": ("split", "set", "partition", "subset"),
    "session": ("session", "sessionid"),
    "dialogue": ("dialogue", "dialog", "dialogueid", "dialogid", "conversation", "conversationid"),
    "turn": ("turn", "turnid", "utteranceid"),
    "start": ("start", "starttime", "begin", "onset", "from"),
    "end": ("end", "endtime", "stop", "offset", "to"),
    "language": ("language", "lang"),
}
#: Emotions, in the forms in which corpora spell them.
EMOTIONS = frozenset(
    """neutral neu calm happy happiness hap joy joyful sad sadness angry anger ang fear fearful fea fearfulness disgust
    disgusted dis surprise surprised sur surp excited excitement exc frustrated frustration fru bored boredom contempt
    anxiety anxious worried worry pride proud shame amusement amused content contentment relief tender tenderness
    confused interest interested love hate pain positive negative ps""".split()
)
#: Names of folders that are parts of a corpus.
SPLITS = frozenset("train training val valid validation dev development test testing".split())
_SPEAKER = re.compile(r"(actor|speaker|spk|subject|subj|participant|person|sub|s|p)[ _-]?\d+", re.IGNORECASE)
_SESSION = re.compile(r"(session|sess|ses)[ _-]?\d+", re.IGNORECASE)


def plain(name: str) -> str:
    """`Clip_ID` → `clipid`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_emotion(word: str) -> bool:
    return word.strip().lower() in EMOTIONS


def is_speaker(word: str) -> bool:
    return bool(_SPEAKER.fullmatch(word.strip()))


def is_session(word: str) -> bool:
    return bool(_SESSION.fullmatch(word.strip()))
