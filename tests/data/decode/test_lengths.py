"""A track is as long as it is found to be, whatever its container declares; a file cut short is found out."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from pipeline.data.decode.audio import measure, read_waveform
from pipeline.data.decode.errors import DecodeError
from pipeline.data.decode.video import read_frames
from pipeline.data.fact import examine_file
from pipeline.params import DecodeVideo

RATE = 16000
SPEC = DecodeVideo(fps=5, size=None, max_frames=64)
#: Containers without lengths of streams, and with them.
KINDS = {
    "a.mkv": {},
    "mp3.mkv": {"audio": "libmp3lame"},
    "live.mkv": {"container_options": {"live": "1"}},
    "a.webm": {"video": "libvpx", "audio": "libopus"},
    "a.wmv": {"video": "wmv2", "audio": "wmav2"},
    "a.flv": {},
    "mp3.flv": {"video": "flv", "audio": "libmp3lame", "rate": 44100},
    "a.avi": {"video": "mpeg4", "audio": "libmp3lame"},
    "pcm.avi": {"audio": "pcm_s16le"},
    "a.mp4": {},
    "parts.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "a.mov": {},
    "a.3gp": {"video": "mpeg4"},
    "a.ts": {},
    "a.mpg": {"video": "mpeg2video", "audio": "mp2", "format": "mpeg"},
}


def reason(function, *args):
    with pytest.raises(DecodeError) as error:
        function(*args)
    return error.value.reason


def sound(path, *cut):
    return len(read_waveform(path, RATE, *cut)) / RATE


def picture(path, *cut):
    return float(read_frames(path, SPEC, *cut).times[-1, 1])


@pytest.mark.parametrize("name", KINDS)
def test_sound_that_ends_before_the_picture(tmp_path, make, name):
    path = make.tracks(tmp_path / name, 4.0, 3.0, **KINDS[name])
    fact = examine_file(str(path))
    assert (fact.video, fact.audio, fact.lost) == (True, True, {}) and fact.duration == pytest.approx(4.0, abs=0.09)
    assert sound(path) == pytest.approx(3.0, abs=0.1) and picture(path) == pytest.approx(4.0, abs=0.09)
    assert sound(path, 2.1, 3.6) == pytest.approx(0.9, abs=0.1) and picture(path, 2.1, 3.6) == pytest.approx(1.5)
    assert reason(read_waveform, path, RATE, 3.3, 3.8) == "out_of_range"


@pytest.mark.parametrize("name", KINDS)
def test_a_picture_that_ends_before_the_sound(tmp_path, make, name):
    path = make.tracks(tmp_path / name, 3.2, 4.0, **KINDS[name])
    fact = examine_file(str(path))
    assert (fact.video, fact.audio, fact.lost) == (True, True, {}) and fact.duration == pytest.approx(4.0, abs=0.1)
    assert sound(path) == pytest.approx(4.0, abs=0.1) and picture(path) == pytest.approx(3.2, abs=0.09)
    assert sound(path, 2.1, 3.6) == pytest.approx(1.5) and picture(path, 2.1, 3.6) == pytest.approx(1.1, abs=0.09)
    found = read_frames(path, SPEC, 2.1, 3.1)
    assert [make.number(j) for j in found.jpegs] == pytest.approx([55, 60, 65, 70, 75], abs=2)  # pictures may be told 80 ms late
    assert reason(read_frames, path, SPEC, 3.5, 3.9) == "out_of_range"


@pytest.mark.parametrize("name", ["a.mkv", "mp3.mkv", "a.webm", "a.wmv", "a.flv", "mp3.flv", "a.avi", "pcm.avi", "parts.mp4"])
@pytest.mark.parametrize("seconds", [(4.0, 4.0), (4.0, 3.0)])
def test_half_a_file_is_told_from_a_short_track(tmp_path, make, name, seconds):
    path = make.tracks(tmp_path / name, *seconds, **KINDS[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(examine_file, str(path)) == reason(read_waveform, path, RATE) == reason(read_frames, path, SPEC) == "truncated"


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.wmv", "a.avi"])
def test_a_file_whose_second_half_was_never_filled(tmp_path, make, name):
    path = make.tracks(tmp_path / name, 4.0, 4.0, **KINDS[name])
    half = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:half] + bytes(half))
    assert reason(examine_file, str(path)) == "truncated"


def test_a_matroska_header_that_tells_twice_the_length(tmp_path, make):
    path = make.tracks(tmp_path / "a.mkv", 4.0, 3.0)
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88") + 3  # Duration, eight bytes
    patched(path, (at, struct.pack(">d", 2 * struct.unpack(">d", data[at : at + 8])[0])))
    fact = examine_file(str(path))
    assert fact.lost == {} and fact.duration == pytest.approx(4.0, abs=0.05)
    assert sound(path) == pytest.approx(3.0, abs=0.05) and picture(path) == pytest.approx(4.0, abs=0.05)


def test_a_subtitle_longer_than_the_film(tmp_path):
    path = Path(__file__).parent / "long_subtitle.mkv"  # 4 s of both, a line of text until 9 s
    fact = examine_file(str(path))
    assert fact.video and fact.audio and fact.duration == pytest.approx(4.0, abs=0.05)
    assert sound(path) == pytest.approx(4.0, abs=0.05) and picture(path) == pytest.approx(4.0, abs=0.05)
    (tmp_path / "half.mkv").write_bytes(path.read_bytes()[:21560])
    assert reason(examine_file, str(tmp_path / "half.mkv")) == "truncated"


def test_a_font_beside_the_film_changes_nothing(tmp_path, make):
    with av.open(str(tmp_path / "font.mkv"), "w") as container, av.open(str(make.tracks(tmp_path / "a.mkv", 2.0, 1.0))) as given:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in given.streams}
        container.add_attachment("a.ttf", "application/x-truetype-font", b"a font" * 100)
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    fact = examine_file(str(tmp_path / "font.mkv"))
    assert fact.lost == {} and fact.duration == pytest.approx(2.0, abs=0.05)
    assert sound(tmp_path / "font.mkv") == pytest.approx(1.0, abs=0.05)


def released(content: bytes, frames: int, *, index: bool = True) -> bytes:
    """An AVI whose headers tell of another number of frames; without its index and its lengths as when the writer died."""
    data = bytearray(content)
    for mark, at in ((b"avih", 24), (b"strh", 40)):
        struct.pack_into("<I", data, data.index(mark) + at, frames)
    if index:
        return bytes(data)
    data = data[: data.rindex(b"idx1")]
    for at in (4, data.index(b"movi") - 4):
        struct.pack_into("<I", data, at, 0)
    return bytes(data)


@pytest.mark.parametrize(
    "change", [{"frames": 300}, {"frames": 20}, {"frames": 0, "index": False}, {"frames": 900, "index": False}]
)
@pytest.mark.parametrize("audio", ["libmp3lame", "pcm_s16le"])
def test_an_avi_whose_header_is_wrong(tmp_path, make, change, audio):
    path = make.tracks(tmp_path / "a.avi", 4.0, 3.0, video="mpeg4", audio=audio)
    path.write_bytes(released(path.read_bytes(), **change))
    fact = examine_file(str(path))
    assert fact.video and fact.audio and fact.duration == pytest.approx(4.0, abs=0.09)
    assert sound(path) == pytest.approx(3.0, abs=0.1) and picture(path) == pytest.approx(4.0, abs=0.09)


@pytest.mark.parametrize("factor", [30, 2, 1 / 3])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_media_headers_that_tell_another_length(tmp_path, make, factor, name):
    path = make.tracks(tmp_path / name, 4.0, 4.0)
    data = bytearray(path.read_bytes())
    for mark, at in ((b"mvhd", 20), (b"mdhd", 20)):
        place = -1
        while (place := data.find(mark, place + 1)) >= 0:
            (length,) = struct.unpack_from(">I", data, place + at)
            struct.pack_into(">I", data, place + at, int(length / factor))
    path.write_bytes(data)
    assert examine_file(str(path)).duration == pytest.approx(4.0, abs=0.03)
    assert sound(path) == pytest.approx(4.0, abs=0.03) and picture(path) == pytest.approx(4.0, abs=0.03)
    assert sound(path, 2.1, 3.3) == pytest.approx(1.2) and picture(path, 2.1, 3.3) == pytest.approx(1.2)
    assert [make.number(j) for j in read_frames(path, SPEC, 2.1, 3.3).jpegs] == [55, 60, 65, 70, 75, 80]


@pytest.mark.parametrize("audio", ["libmp3lame", "aac"])
def test_a_film_whose_start_cannot_be_sought(tmp_path, make, audio):
    """FLV with sound, whose first picture comes after 0."""
    path = make.tracks(tmp_path / "a.flv", 4.0, 4.0, video="flv", audio=audio, rate=44100, late=1)
    every = DecodeVideo(fps=25, size=None, max_frames=200)
    numbers = [make.number(j) for j in read_frames(path, every).jpegs]
    assert sorted(set(numbers)) == list(range(100))
    assert examine_file(str(path)).lost == {} and sound(path) == pytest.approx(4.0, abs=0.1)
    assert [make.number(j) for j in read_frames(path, SPEC, 2.1, 3.1).jpegs] == pytest.approx([54, 59, 64, 69, 74], abs=2)
    assert sound(path, 2.1, 3.1) == 1.0


def patched(path: Path, *edits: tuple[int, bytes]) -> Path:
    data = bytearray(path.read_bytes())
    for at, content in edits:
        data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


def check_scale(path, make, seconds=6, start=400.0):
    assert examine_file(str(path)).duration == pytest.approx(seconds, abs=0.06)
    assert sound(path) == pytest.approx(seconds, abs=0.06)
    for second in range(seconds):
        wave = read_waveform(path, RATE, second + 0.25, second + 0.75)
        assert len(wave) == RATE // 2 and make.pitch(wave, RATE) == pytest.approx(start + 100 * second, abs=8)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF])
def test_wav_whose_length_nobody_wrote(tmp_path, make, length, both, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, make.scale(6, RATE), RATE, subtype=subtype)
    at = path.read_bytes().index(b"data") + 4
    patched(path, (at, struct.pack("<I", length)), *([(4, struct.pack("<I", min(length + 36, 2**32 - 1)))] if both else []))
    check_scale(path, make)


@pytest.mark.parametrize("length", [0, 2**64 - 1, 0xFFFFFFFF])
def test_long_kinds_of_wav_whose_length_nobody_wrote(tmp_path, make, length):
    wide = struct.pack("<Q", length)
    soundfile.write(tmp_path / "a.rf64", make.scale(6, RATE), RATE, format="RF64", subtype="PCM_16")
    at = (tmp_path / "a.rf64").read_bytes().index(b"ds64") + 8
    check_scale(patched(tmp_path / "a.rf64", (at, wide * 3)), make)
    soundfile.write(tmp_path / "a.w64", make.scale(6, RATE), RATE, format="W64", subtype="PCM_16")
    check_scale(tmp_path / "a.w64", make)
    at = (tmp_path / "a.w64").read_bytes().index(b"data\xf3\xac") + 16
    check_scale(patched(tmp_path / "a.w64", (16, wide), (at, wide)), make)


def test_an_empty_wav_is_empty(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), RATE)
    note = b"LIST" + struct.pack("<I", 18) + b"INFOISFT" + struct.pack("<I", 6) + b"sox 1\0"
    (tmp_path / "note.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:44] + note)
    for name in ("a.wav", "note.wav"):
        assert reason(read_waveform, tmp_path / name, RATE) == reason(examine_file, str(tmp_path / name)) == "empty"


def test_half_a_wav_is_truncated_whatever_its_kind(tmp_path, make):
    for name, options in {"a.wav": {}, "a.rf64": {"format": "RF64"}, "a.w64": {"format": "W64"}, "a.flac": {}}.items():
        path = tmp_path / name
        soundfile.write(path, make.scale(6, RATE), RATE, subtype="PCM_16", **options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert reason(read_waveform, path, RATE) in ("truncated", "corrupt")
        assert reason(examine_file, str(path)) in ("truncated", "corrupt")


@pytest.mark.parametrize("channels", [1, 2])
def test_flac_whose_length_nobody_wrote(tmp_path, make, channels):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([make.scale(6, 48000)] * channels, 1), 48000)
    check_scale(patched(path, (21, bytes([path.read_bytes()[21] & 0xF0])), (22, bytes(4))), make)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.aac", "aac", {}), ("a.mp3", "libmp3lame", {"write_xing": "0"}), ("xing.mp3", "libmp3lame", {})],
)
def test_coded_sound_at_a_rate_that_varies(tmp_path, make, name, codec, options):
    """Noise first: from the bytes of its beginning the file looks far shorter than it is."""
    wave = make.scale(6, 44100) / 10
    wave[:88200] = np.random.default_rng(0).uniform(-0.9, 0.9, 88200)
    with av.open(str(tmp_path / name), "w", options=options) as container:
        voice = container.add_stream(codec, rate=44100, layout="mono", options={"q": "2"} if codec != "aac" else {})
        for packet in make.spoken(voice, wave, 44100):
            container.mux(packet)
    path = tmp_path / name
    fact, heard = examine_file(str(path)), sound(path)
    assert fact.duration == pytest.approx(heard, abs=0.03) == pytest.approx(6.0, abs=0.06)
    for second in range(2, 6):
        wave = read_waveform(path, RATE, second + 0.25, second + 0.75)
        assert make.pitch(wave, RATE) == pytest.approx(400 + 100 * second, abs=8)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if "xing" in name:
        assert reason(examine_file, str(path)) == "truncated"
    else:
        assert examine_file(str(path)).duration == pytest.approx(sound(path), abs=0.03)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_files_one_behind_the_other(tmp_path, make, subtype):
    path, scale = tmp_path / "chain.ogg", make.scale(6, 48000)
    with open(path, "wb") as chain:
        for low, high in ((0, 2), (2, 5), (5, 6)):
            soundfile.write(tmp_path / "a.ogg", scale[low * 48000 : high * 48000], 48000, format="OGG", subtype=subtype)
            chain.write((tmp_path / "a.ogg").read_bytes())
    check_scale(path, make)
    assert reason(read_waveform, path, RATE, 7.0, 8.0) == "out_of_range"
    shutil.copy(tmp_path / "a.ogg", path)
    assert examine_file(str(path)).duration == pytest.approx(1.0, abs=0.02)


def test_a_hole_of_hours_is_no_memory(tmp_path, make):
    path = make.tracks(tmp_path / "a.mkv", 2.0, 2.0, leap=7200)
    fact = examine_file(str(path))
    assert fact.duration == pytest.approx(7202, abs=0.1) and fact.level == pytest.approx(-13.5, abs=0.2)
    assert reason(read_waveform, path, RATE) == "too_long"
    assert sound(path, 0.2, 0.9) == pytest.approx(0.7) and sound(path, 7201.2, 7201.9) == pytest.approx(0.7)
    brief = make.tracks(tmp_path / "b.mkv", 2.0, 2.0, leap=20)
    wave = read_waveform(brief, RATE)
    assert len(wave) / RATE == pytest.approx(22.0, abs=0.1) and not wave[2 * RATE : 20 * RATE].any()


def test_hours_are_measured_piece_by_piece(tmp_path):
    """Two hours of sound are too long to be decoded at once, not to be looked at."""
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 8000, 1) as file:
        for _ in range(120):
            file.write(np.full(8000 * 60, 0.25, np.float32))
    assert measure(tmp_path / "a.flac") == (7200.0, pytest.approx(-12.04, abs=0.01))
    assert reason(read_waveform, tmp_path / "a.flac", 8000) == "too_long"
    assert sound(tmp_path / "a.flac", 7000.0, 7001.0) == 1.0
