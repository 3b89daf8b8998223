"""Small faithful replicas of the corpora as they are distributed: same folders, names and syntax, tiny generated media.

Each function fills a folder and returns what a run over it must find.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

RATE = 16000


@dataclass(frozen=True)
class Expected:
    """What a replica holds.

    Attributes:
        clips: clips of the manifest.
        lacking: stream → clips that lack it; a stream that is not named is in every clip.
        labels: what `emotion` may be, None where a turn has none; empty when it must be null.
        overrides: parameters of the recipe that a replica has to change, and why beside them.
    """

    clips: int
    lacking: dict[str, int] = field(default_factory=dict)
    labels: tuple[str | None, ...] = ()
    overrides: tuple[str, ...] = ()


def wave(seconds: float, pitch: float, rate: int = RATE) -> np.ndarray:
    """(S,) float32: a tone with two overtones."""
    time = np.arange(round(seconds * rate)) / rate
    return (sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)) * 0.2).astype(np.float32)


class Media:
    """Writes films and sounds below a folder, no two alike, nor like those of a folder of another name."""

    def __init__(self, root: Path) -> None:
        self.root, self.count, self.lowest = root, 0, 150 + zlib.crc32(root.name.encode()) % 11

    def path(self, name: str) -> Path:
        self.count += 1
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def sound(self, name: str, seconds: float = 0.5) -> None:
        path = self.path(name)
        soundfile.write(path, wave(seconds, self.lowest + 11 * self.count), RATE)

    def text(self, name: str, text: str) -> None:
        self.path(name).write_text(text, encoding="utf-8")

    def pictures(self, count: int) -> list[np.ndarray]:
        """(48, 64, 3) frames: a patch that moves over a colour of its own."""
        colour = np.random.default_rng(self.count).integers(0, 200, 3)
        frames = np.broadcast_to(colour, (count, 48, 64, 3)).astype(np.uint8)
        for i, frame in enumerate(frames := frames.copy()):
            frame[12:36, 2 * i : 2 * i + 20] = 230
        return list(frames)

    def film(self, name: str, frames: int = 8, fps: int = 16) -> None:
        """A film with sound, in what the suffix asks for."""
        path = self.path(name)
        codec, voice, rate = {".mp4": ("mpeg4", "aac", 16000), ".avi": ("mpeg4", "mp3", 16000), ".flv": ("flv", "mp3", 22050)}[
            path.suffix
        ]
        with av.open(str(path), "w") as container:
            video, audio = container.add_stream(codec, rate=fps), container.add_stream(voice, rate=rate)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            audio.layout = "mono"
            for picture in self.pictures(frames):
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(video.encode())
            samples = av.AudioFrame.from_ndarray(wave(frames / fps, self.lowest + 11 * self.count, rate)[None], "fltp", "mono")
            samples.sample_rate = rate
            container.mux(audio.encode(samples))
            container.mux(audio.encode())


def meld(root: Path) -> Expected:
    """Three split folders whose clip names repeat; the same people in all."""
    media = Media(root)
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    feelings = (("joy", "positive"), ("neutral", "neutral"), ("anger", "negative"))
    for table, place, dialogues in (
        ("train/train_sent_emo.csv", "train/train_splits", 3),
        ("dev_sent_emo.csv", "dev_splits_complete", 1),
        ("test_sent_emo.csv", "output_repeated_splits_test", 1),
    ):
        lines = [header]
        for dialogue in range(dialogues):
            for turn, (emotion, sentiment) in enumerate(feelings):
                lines.append(
                    f'{len(lines)},"That?s line {turn} of scene {dialogue}, {place[:3]}",{("Ross", "Monica")[turn % 2]},'
                    f'{emotion},{sentiment},{dialogue},{turn},1,{dialogue + 1},"00:01:00,000","00:01:00,500"\n'
                )
                media.film(f"{place}/dia{dialogue}_utt{turn}.mp4")
        media.text(table, "".join(lines))
    media.film("dev_splits_complete/dia66_utt9.mp4")
    return Expected(15, labels=("joy", "neutral", "anger"))


def hlm12erc(root: Path) -> Expected:
    """MELD, and a few word vectors; no detector finds a face in these pictures, and the tiny mosaic looks at whole frames."""
    expected = meld(root)
    rng = np.random.default_rng(0)
    vectors = (f"{word} {' '.join(f'{x:.4f}' for x in rng.normal(size=50))}" for word in ("line", "scene", "of"))
    (root / "glove.txt").write_text("\n".join(vectors) + "\n")
    faces = ("streams.faces.modality=face", "streams.faces.source=data/faces.h5", "+streams.faces.options.place=true")
    changed = (f"streams.words.weights=file:{root}/glove.txt", "faces.detector=whole", *faces)
    return Expected(expected.clips, labels=expected.labels, overrides=changed)


def iemocap(root: Path) -> Expected:
    """Five sessions of one dialogue, its sentences apart and whole with film; a turn without majority in each."""
    media = Media(root)
    for session in range(1, 6):
        name, place = f"Ses0{session}F_impro01", f"Session{session}"
        blocks, spoken = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], []
        for at, (turn, code) in enumerate((("F000", "neu"), ("M000", "exc"), ("F001", "xxx"), ("M001", "ang"))):
            start, end = 0.5 * at, 0.5 * at + 0.5
            blocks += [
                f"[{start:.4f} - {end:.4f}]\t{name}_{turn}\t{code}\t[{2 + at / 2:.4f}, 2.5000, 3.0000]",
                "C-E2:\tNeutral;\t()",
                "",
            ]
            spoken.append(f"{name}_{turn} [{start:08.4f}-{end:08.4f}]: Turn {at} of session {session} is said.")
            media.sound(f"{place}/sentences/wav/{name}/{name}_{turn}.wav")
        media.sound(f"{place}/dialog/wav/{name}.wav", seconds=2.0)
        media.film(f"{place}/dialog/avi/DivX/{name}.avi", frames=32)
        media.text(f"{place}/dialog/EmoEvaluation/{name}.txt", "\n".join(blocks))
        media.text(f"{place}/dialog/transcriptions/{name}.txt", "\n".join(spoken))
    return Expected(20, labels=("neutral", "happy", "angry", None))


def afew_va(root: Path) -> Expected:
    """Folders of frames with the genuine nested JSON, landmarks in it; one clip as JPG with flattened JSON."""
    media = Media(root)
    for clip in range(1, 13):
        entries = {}
        for number, picture in enumerate(media.pictures(8)):
            Image.fromarray(picture).save(media.path(f"{clip:03}/{number:05}.{'jpg' if clip == 12 else 'png'}"))
            box = [[2 * number + 20 * (p % 5) / 4, 12 + 24 * (p % 7) / 6] for p in range(68)]
            entries[f"{number:05}"] = {"valence": clip % 5 - number, "arousal": number, "landmarks": box}
        value = {"video_id": f"{clip:03}", "actor": f"Actor {clip % 6}", "frames": entries}
        if clip == 12:
            value = {name: [entry["valence"], entry["arousal"]] for name, entry in entries.items()}
        media.text(f"{clip:03}/{clip:03}.json", json.dumps(value))
    return Expected(12, {"face": 1})


def afew_va_cached(root: Path) -> Expected:
    """The same; the stream looks at faces, and nobody says where they are in clip 012."""
    return afew_va(root)


def _sentiment(scale: float, text: str):
    def fill(root: Path) -> Expected:
        media = Media(root)
        lines = ["video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"]
        for video, mode in (("aqgy3", "train"), ("aqgy4", "train"), ("video_0001", "valid"), ("video_0002", "test")):
            for clip, (share, said) in enumerate(((-0.8, "Negative"), (0, "Neutral"), (0.6, "Positive")), 1):
                score = share * scale
                lines.append(f"{video},{clip:04},{text}{video[-1]} {clip},{score},{score},{score},{score},{said},{mode}")
                media.film(f"Raw/{video}/{clip:04}.mp4")
        media.text("label.csv", "\n".join(lines))
        return Expected(12)

    return fill


def crema_d(root: Path) -> Expected:
    """Sound of every take, film of every other."""
    media = Media(root)
    for actor in range(1001, 1007):
        for emotion in ("ANG", "NEU"):
            media.sound(f"AudioWAV/{actor}_DFA_{emotion}_XX.wav")
        media.film(f"VideoFlash/{actor}_DFA_ANG_XX.flv")
    return Expected(12, {"video": 6}, ("angry", "neutral"))


def emo_db(root: Path) -> Expected:
    media = Media(root)
    for speaker in ("03", "08", "09", "10"):
        for emotion in "WNF":
            media.sound(f"wav/{speaker}a01{emotion}a.wav")
    return Expected(12, labels=("anger", "neutral", "happiness"))


def ravdess(root: Path) -> Expected:
    """Sound as the archive unpacks, one film, and the table of action units, which lacks one take."""
    media = Media(root)
    lines = ["clip,AU01_r,AU02_r,AU45_c"]
    for actor in range(1, 7):
        for emotion in (3, 4):
            take = f"01-{emotion:02}-01-01-01-{actor:02}"
            media.sound(f"Actor_{actor:02}/03-{take}.wav")
            if (actor, emotion) != (6, 4):
                lines.append(f"01-{take},{0.1 * actor:.2f},{0.3 * emotion:.2f},1")
    media.film("Actor_01/01-01-03-01-01-01-01.mp4")
    media.text("au_mean.csv", "\n".join(lines))
    return Expected(12, {"video": 1}, ("happy", "sad"))


def msp_improv(root: Path) -> Expected:
    """Three dyads: sound of every turn, film of the first."""
    media, lines = Media(root), []
    for session in (1, 2, 3):
        for at, (sex, code) in enumerate((("F", "A"), ("M", "N"), ("F", "X"), ("M", "H")), 1):
            name = f"MSP-IMPROV-S01A-{sex}0{session}-P-FM0{at}"
            lines += [
                f"{name.replace('MSP', 'UTD')}.avi; {code}; A:{at}.000000; V:2.500000; D:3.0 ; N:NaN;",
                "WORKER00000001; Angry; Angry; A:3.000000; V:2.000000; D:4.000000; N:2.000000;",
                "",
            ]
            media.sound(f"Audio/session{session}/S01A/P/{name}.wav")
            if at == 1:
                media.film(f"Video/session{session}/S01A/P/{name}.avi")
            media.text(f"Human_transcripts/{name}.txt", f"HOW ARE YOU\nTODAY NUMBER {at} OF {session}\n")
    media.text("Evalution.txt", "\n".join(lines))
    return Expected(12, {"video": 9}, ("angry", "neutral", "happy", None))


def msp_podcast(root: Path) -> Expected:
    """Sentences of three partitions, most with a transcript."""
    media = Media(root)
    rows = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    for i, part in enumerate(("Train",) * 6 + ("Development",) * 3 + ("Test1",) * 3):
        rows.append(f"MSP-PODCAST_0001_{i:04}.wav,{'ANH'[i % 3]},{1 + i % 7},{7 - i % 7},4,{part[0]}{i % 2},Male,{part}")
        media.sound(f"Audios/MSP-PODCAST_0001_{i:04}.wav")
        if i != 4:
            media.text(f"Transcripts/MSP-PODCAST_0001_{i:04}.txt", f"this is sentence number {i} of a podcast\n")
    media.text("Labels/labels_consensus.csv", "\n".join(rows))
    return Expected(12, {"text": 1}, ("angry", "neutral", "happy"))


def mer2023(root: Path) -> Expected:
    """Tables beside the folders of films; a transcript that lacks one clip. Of two test sets the first is tested on."""
    media, spoken = Media(root), ["name,sentence"]
    for part, first, count in (("train", 0, 8), ("test1", 8, 2), ("test3", 10, 2)):
        rows = ["name,discrete" + ("" if part == "test3" else ",valence")]
        for i in range(first, first + count):
            name = f"sample_{i:08}"
            emotion = ("happy", "sad", "worried", "neutral")[i % 4]
            rows.append(f"{name},{emotion}" + ("" if part == "test3" else f",{(-1) ** i * (i % 5):.1f}"))
            media.film(f"{part}/{name}.mp4")
            if i:
                spoken.append(f"{name},我今天说的是第{i}句话")
        media.text(f"{part}-label.csv", "\n".join(rows))
    media.text("transcription.csv", "\n".join(spoken))
    # The recipe hears what has no text with Whisper, and looks for faces; here is no voice and no face.
    return Expected(10, {"text": 1}, ("happy", "sad", "worried", "neutral"), ("asr.weights=null", "faces.detector=whole"))


def merr(root: Path) -> Expected:
    media, records = Media(root), {}
    for i in range(10):
        records[f"sample_{i:08}"] = {"pseu_emotion": ("happy", "doubt")[i % 2], "text": f"第{i}个句子在这里", "peak_index": i}
        media.film(f"video/sample_{i:08}.mp4")
    media.text("MERR_fine_grained.json", json.dumps(records, ensure_ascii=False))
    return Expected(10, labels=("happy", "doubt"))


def generic(root: Path) -> Expected:
    """A table of films, sounds and texts: every clip lacks something."""
    media, rows = Media(root), ["id,media,text,speaker,emotion"]
    for i in range(12):
        name, said = f"m/{i}.{('mp4', 'wav')[i % 2]}", "" if i % 3 == 0 else f"What was said in clip {i}"
        rows.append(f"{i},{name},{said},{'abcd'[i % 4]},{('calm', 'tense')[i % 2]}")
        (media.sound if i % 2 else media.film)(name)
    media.text("clips.csv", "\n".join(rows))
    return Expected(12, {"video": 6, "text": 4}, ("calm", "tense"))


def demo(root: Path) -> Expected:
    """Nothing to put in place: the stage `corpus` generates it."""
    options = {"sessions": 5, "dialogues": 5, "turns": 3, "size": 48, "fps": 8}
    return Expected(
        15,
        {"video": 1, "audio": 1, "text": 1},
        overrides=(
            *(f"corpus.options.{name}={value}" for name, value in options.items()),
            "+corpus.options.shortest=0.6",
            "+corpus.options.longest=0.7",
            *(f"+corpus.options.no_{name}=0.067" for name in ("text", "sound", "picture")),
        ),
    )


def joined(root: Path) -> Expected:
    """Two corpora in one folder; CREMA-D is angry, neutral and happy, RAVDESS happy and sad."""
    parts = crema_d(root / "crema_d"), ravdess(root / "ravdess")
    media = Media(root / "crema_d")
    media.count = 100  # no sound that is there already
    for actor in range(1001, 1007):
        media.sound(f"AudioWAV/{actor}_DFA_HAP_XX.wav")
    return Expected(sum(part.clips for part in parts) + 6, labels=("anger", "neutral", "joy", "sadness"))


#: Recipe → what fills its corpus folder.
REPLICAS = {
    "afew_va": afew_va,
    "afew_va_cached": afew_va_cached,
    "ch_sims": _sentiment(1, "我觉得这个很好看"),
    "crema_d": crema_d,
    "demo": demo,
    "emo_db": emo_db,
    "generic": generic,
    "hlm12erc": hlm12erc,
    "iemocap": iemocap,
    "joined": joined,
    **dict.fromkeys(("meld", "meld_llama", "meld_llama2_7b", "meld_tinyllama"), meld),
    "mer2023": mer2023,
    "merr": merr,
    "mosei": _sentiment(3, "I THOUGHT IT WAS FUN "),
    "mosi": _sentiment(3, "I THOUGHT IT WAS OK "),
    "msp_improv": msp_improv,
    "msp_podcast": msp_podcast,
    "ravdess": ravdess,
}
