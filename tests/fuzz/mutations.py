"""More than 200 damaged, odd and misleading media files, made from a few sound ones.

`python tests/fuzz/mutations.py FOLDER` writes them for a look; the same seed gives the same files.
"""

from __future__ import annotations

import random
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

#: Where a file is cut, as shares of its length: header, tables, middle, nearly whole.
CUTS = (0.001, 0.01, 0.03, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.97, 0.999)
#: Share of bytes hit by bit flips.
FLIPS = (0.00005, 0.0005, 0.005, 0.05)


def film(
    path: Path,
    *,
    times=None,
    size=(96, 64),
    codec="libx264",
    sound="aac",
    rate=44100,
    seconds=1.0,
    rotation=0,
    options=None,
    pixels="yuv420p",
) -> Path:
    """A moving gradient with a tone; `times` are the frames' presentation times in seconds."""
    times = [i / 25 for i in range(25)] if times is None else times
    base = Fraction(1, {"mpeg4": 25, "gif": 100}.get(codec, 90000))
    with av.open(str(path), "w", container_options=options or {}) as container:
        stream = voice = None
        if codec:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, pixels
            stream.codec_context.time_base = base
            stream.codec_context.thread_count = 1
            if rotation:
                stream.set_display_rotation(rotation)
        if sound:
            voice = container.add_stream(sound, rate=rate, layout="mono")
        if stream is not None:
            row = np.arange(size[0], dtype=np.uint32)
            for i, at in enumerate(times):
                picture = np.broadcast_to(((row * 3 + i * 16) % 256).astype(np.uint8)[None, :, None], (size[1], size[0], 3))
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = round(at / base), base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if voice is not None:
            tone = (0.4 * np.sin(np.arange(round(seconds * rate)) * 0.06)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            resampler = av.AudioResampler(
                format=voice.codec_context.format, layout="mono", rate=rate, frame_size=voice.codec_context.frame_size or 1024
            )
            for part in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(voice.encode(part))
            container.mux(voice.encode(None))
    return path


def sound(path: Path, samples: np.ndarray, rate: int = 16000, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def sources(folder: Path) -> list[Path]:
    """Sound files of every container and codec family."""
    folder.mkdir(parents=True, exist_ok=True)
    tone = (0.4 * np.sin(np.arange(16000) * 0.1)).astype(np.float32)
    return [
        film(folder / "late_index.mp4"),
        film(folder / "early_index.mp4", options={"movflags": "faststart"}),
        film(folder / "fragments.mp4", options={"movflags": "frag_keyframe+empty_moov"}),
        film(folder / "matroska.mkv", sound="libopus", rate=48000),
        film(folder / "old.avi", codec="mpeg4", sound="libmp3lame"),
        film(folder / "stream.ts"),
        film(folder / "sound.mp3", codec=None, sound="libmp3lame"),
        sound(folder / "sound.wav", tone),
        sound(folder / "sound.flac", tone),
    ]


def odd(folder: Path) -> None:
    """Files that are legal but unusual, or not media at all."""
    rng = np.random.default_rng(0)
    tone = (0.4 * np.sin(np.arange(16000) * 0.1)).astype(np.float32)
    film(folder / "one_frame.mp4", times=[0.0], sound=None)
    film(folder / "one_frame_long_sound.mp4", times=[0.0], seconds=3)
    film(folder / "no_sound.mp4", sound=None)
    film(folder / "no_picture.mp4", codec=None)
    film(folder / "brief_sound.mp4", seconds=0.01)
    film(folder / "8k.mkv", times=[0.0, 0.04], size=(7680, 4320), codec="mjpeg", sound=None, pixels="yuvj420p")
    film(folder / "tiny.mkv", size=(2, 2), codec="mpeg4", sound=None)
    film(folder / "odd_size.mkv", size=(97, 61), codec="libx264", sound=None, pixels="yuv444p")
    film(folder / "odd_size_mpeg4.avi", size=(97, 61), codec="mpeg4", sound=None)
    film(folder / "ribbon.mkv", size=(2048, 16), codec="mpeg4", sound=None)
    film(folder / "lossless.mkv", codec="ffv1", sound="flac")
    film(folder / "ten_bit.mkv", pixels="yuv420p10le")
    film(folder / "picture.gif", codec="gif", sound=None, pixels="rgb8")
    film(folder / "turned.mp4", rotation=90)
    film(folder / "uneven.mkv", times=sorted({0.0, *np.round(rng.uniform(0, 1, 20), 3).tolist()}))
    film(folder / "hole.mkv", times=[0.0, 0.04, 5.0, 5.04])
    film(folder / "far_away.mkv", times=[0.0, 0.04, 3600.0], sound=None)
    film(folder / "late_picture.mp4", times=[0.8 + i / 25 for i in range(10)], seconds=1.2)
    packets(folder / "same_times.mkv", lambda i: i // 4 * 160)
    packets(folder / "backward_times.avi", lambda i: i, codec="mpeg4")
    packets(folder / "no_frames.mp4", lambda i: i, count=0)
    packets(folder / "no_frames.mkv", lambda i: i, count=0)
    for rate in (8000, 11025, 22050, 44100, 48000, 96000, 192000):
        sound(folder / f"rate_{rate}.wav", tone, rate)
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "GSM610"):
        sound(folder / f"wav_{subtype.lower()}.wav", tone, 8000, subtype)
    sound(folder / "six_channels.wav", np.repeat(tone[:, None], 6, 1))
    sound(folder / "10ms.wav", tone[:160])
    sound(folder / "one_sample.wav", tone[:1])
    sound(folder / "no_samples.wav", tone[:0])
    sound(folder / "no_samples.flac", tone[:0])
    sound(folder / "silent.wav", tone * 0)
    sound(folder / "clipped.wav", np.clip(tone * 100, -1, 1))
    sound(folder / "loud_float.wav", tone * 50, subtype="FLOAT")
    for name, value in {"nan": np.nan, "infinite": np.inf, "huge": 1e38}.items():
        broken = tone.copy()
        broken[::100] = value
        sound(folder / f"{name}.wav", broken, subtype="FLOAT")
    sound(folder / "all_nan.wav", np.full(16000, np.nan), subtype="DOUBLE")
    sound(folder / "odd_rate.wav", tone, 44099)
    wav = bytearray((folder / "rate_8000.wav").read_bytes())
    for name, at, value in (
        ("rate_0", 24, 0),
        ("rate_4g", 24, 2**32 - 1),
        ("channels_0", 22, 0),
        ("data_0", 40, 0),
        ("data_4g", 40, 2**32 - 1),
        ("bits_0", 34, 0),
        ("riff_0", 4, 0),
    ):
        size = 2 if at in (22, 34) else 4
        (folder / f"header_{name}.wav").write_bytes(wav[:at] + value.to_bytes(size, "little") + wav[at + size :])
    text = "A text that somebody renamed.\n" * 50
    for name in ("text.mp4", "text.wav", "text.flac", "text.mkv", "text.txt", "page.avi"):
        (folder / name).write_text(text if name != "page.avi" else f"<html><body>{text}</body></html>")
    for name, size in (
        ("nothing.mp4", 0),
        ("nothing.wav", 0),
        ("zeros.mp4", 1),
        ("zeros_long.mp4", 100_000),
        ("zeros.wav", 1000),
        ("zeros.mkv", 4096),
    ):
        (folder / name).write_bytes(bytes(size))
    for i in range(6):
        (folder / f"noise_{i}.{('mp4', 'wav', 'mkv', 'flac', 'avi', 'mp3')[i]}").write_bytes(rng.bytes(20_000))
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nno_sound.mp4\n")
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    (folder / "concat.mp4").write_text("ffconcat version 1.0\nfile no_sound.mp4\n")
    (folder / "endless_atom.mp4").write_bytes(struct.pack(">I4sQ", 1, b"ftyp", 2**62) + b"isom" * 20)
    hollow = struct.pack(">I4s", 16, b"ftyp") + b"isomisom" + struct.pack(">I4s", 8, b"moov") * 500
    (folder / "hollow_atoms.mp4").write_bytes(hollow)
    Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / "still.jpg")
    (folder / "still_as_film.mp4").write_bytes((folder / "still.jpg").read_bytes())
    for name, count in (("frames", 5), ("no_frames", 0), ("broken_frames", 5)):
        (folder / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / name / f"{i:03d}.png")
    (folder / "broken_frames" / "002.png").write_bytes((folder / "frames" / "002.png").read_bytes()[:300])
    (folder / "broken_frames" / "003.png").write_bytes(b"not a picture")
    (folder / "away.mp4").symlink_to(folder / "nowhere.mp4")


def packets(path: Path, time, count: int = 24, codec: str = "mjpeg") -> Path:
    """A film whose packets carry the times `time(i)`, in milliseconds, whatever the muxer thinks of them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        made = []
        for i in range(count):
            picture = np.full((64, 96, 3), i * 10, np.uint8)
            made += stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        if count:
            made += stream.encode(None)
        else:
            container.start_encoding()
        for i, packet in enumerate(made):
            packet.pts = packet.dts = time(i)
            container.mux(packet)
    return path


def damage(path: Path, folder: Path, rng: random.Random) -> None:
    """Truncations, bit flips, zeroed stretches, a lost head, doubled and shuffled bytes of one file."""
    whole = path.read_bytes()
    for share in CUTS:
        (folder / f"{path.stem}_cut{share:g}{path.suffix}").write_bytes(whole[: max(1, int(len(whole) * share))])
    for share in FLIPS:
        data = bytearray(whole)
        for _ in range(max(1, int(len(data) * share))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (folder / f"{path.stem}_flip{share:g}{path.suffix}").write_bytes(data)
    head = bytearray(whole)
    for _ in range(8):
        head[rng.randrange(min(400, len(head)))] = rng.randrange(256)
    (folder / f"{path.stem}_head{path.suffix}").write_bytes(head)
    for name, low, high in (("zeros", 0.4, 0.6), ("zerotail", 0.7, 1.0)):
        data = bytearray(whole)
        first, last = int(len(data) * low), int(len(data) * high)
        data[first:last] = bytes(last - first)
        (folder / f"{path.stem}_{name}{path.suffix}").write_bytes(data)
    (folder / f"{path.stem}_beheaded{path.suffix}").write_bytes(whole[64:])
    (folder / f"{path.stem}_twice{path.suffix}").write_bytes(whole + whole)
    (folder / f"{path.stem}_tail{path.suffix}").write_bytes(whole + rng.randbytes(5000))
    half = len(whole) // 2
    (folder / f"{path.stem}_swapped{path.suffix}").write_bytes(whole[half:] + whole[:half])
    other = ".wav" if path.suffix != ".wav" else ".mp4"
    (folder / f"{path.stem}_renamed{other}").write_bytes(whole)


def generate(folder: Path, seed: int = 0) -> list[Path]:
    """Write the whole collection below `folder`; returns every file and frame folder, sorted."""
    made = sources(folder / "sources")
    out = folder / "corpus"
    out.mkdir()
    odd(out)
    rng = random.Random(seed)
    for path in made:
        damage(path, out, rng)
    return sorted([*made, *out.iterdir(), out / "never_there.mp4"])


if __name__ == "__main__":
    sys.stdout.write(f"{len(generate(Path(sys.argv[1])))} files\n")
