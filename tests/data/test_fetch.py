"""Downloads from a local server: resumed, checked, unpacked without leaving the folder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.data import archive, download, fetch
from pipeline.errors import CorpusError

BODY = bytes(range(256)) * 40


@pytest.fixture
def server():
    """A server of `files`; `requests` are the ranges asked for; `cut` ends answers early; `ranges` off ignores them, `length`
    stands for the true one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.headers.get("Range"))
            body = self.server.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            if isinstance(body, str):
                self.send_response(302)
                self.send_header("Location", body)
                self.end_headers()
                return
            start = 0
            if self.headers.get("Range") and self.server.ranges:
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            length = self.server.length or str(len(body) - start)
            if length != "none":
                self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body[start:][: self.server.cut])
            self.server.cut = None

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.files, http.requests, http.cut, http.ranges, http.length = {"/a.bin": BODY}, [], None, True, None
    http.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """One attempt, unless a test asks for more."""
    monkeypatch.setattr(download, "PAUSES", ())


def sha(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(server, tmp_path, ranges):
    server.cut, server.ranges = 1000, ranges
    with pytest.raises(CorpusError, match="again to go on") as caught:
        fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin", sha(BODY))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.bin").exists() and (tmp_path / "a.bin.part").stat().st_size == 1000
    assert fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin", sha(BODY))
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.requests == [None, "bytes=1000-"]


def test_a_connection_that_ends_early_is_asked_again_for_what_is_missing(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    server.cut = 1000
    assert fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin", sha(BODY))
    assert (tmp_path / "a.bin").read_bytes() == BODY and server.requests == [None, "bytes=1000-"]
    assert f"ended after 1000 of {len(BODY)} bytes" in caplog.text and "Again in 0 s" in caplog.text


def test_what_will_not_pass_is_not_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    with pytest.raises(CorpusError, match="answers 404"):
        fetch.download(f"{server.url}/none", tmp_path / "none")
    assert len(server.requests) == 1


def test_what_is_there_is_not_fetched_again_and_damage_is_seen(server, tmp_path):
    path = tmp_path / "a.bin"
    assert fetch.download(f"{server.url}/a.bin", path)
    assert not fetch.download(f"{server.url}/a.bin", path)
    assert len(server.requests) == 1
    path.write_bytes(BODY[:-1] + b"x")
    with pytest.raises(CorpusError, match="does not match its checksum"):
        fetch.download(f"{server.url}/a.bin", path)


def test_a_part_that_is_whole_already_is_taken(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY)
    assert fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin", sha(BODY))


def test_a_wrong_checksum_drops_the_file(server, tmp_path):
    with pytest.raises(CorpusError, match="expected sha256:00"):
        fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin", "sha256:00")
    assert list(tmp_path.iterdir()) == []


def test_server_and_address_errors_are_one_line(server, tmp_path):
    with pytest.raises(CorpusError, match="answers 404"):
        fetch.download(f"{server.url}/none", tmp_path / "none")
    with pytest.raises(CorpusError, match="not an http address"):
        fetch.download("file:///etc/passwd", tmp_path / "none")
    with pytest.raises(CorpusError, match="kept; run the same command"):
        fetch.download("http://127.0.0.1:1/x", tmp_path / "none")


@pytest.mark.parametrize("length", ["abc", "-5", "none", "1e3", "12 34"])
def test_a_length_that_is_none_is_told(server, tmp_path, caplog, length):
    server.length = length
    assert fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert "does not say how long" in caplog.text
    caplog.clear()
    assert fetch.download(f"{server.url}/a.bin", tmp_path / "b.bin", sha(BODY)) and not caplog.messages


def test_too_much_is_refused_before_it_comes(server, tmp_path, monkeypatch):
    server.length = str(1 << 50)
    with pytest.raises(CorpusError, match=r"1073741824 MB or more; at most 262144 MB are fetched"):
        fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []
    server.length = "none"
    monkeypatch.setattr(download, "MOST", 5000)
    with pytest.raises(CorpusError, match="or more; at most 0 MB are fetched"):
        fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_the_publishers_checksum_is_asked_for(server, tmp_path):
    record = f"{server.url}/record"
    item = fetch.Source(f"{server.url}/a.bin", record=record)
    stated = {"files": [{"key": "a.bin", "checksum": f"md5:{hashlib.md5(BODY).hexdigest().upper()}"}, {"key": "b.bin"}]}
    server.files["/record"] = json.dumps(stated).encode()
    done = fetch.fetch("ravdess", tmp_path / "r", True, items=(item,))
    assert done.files[0].read_bytes() == BODY
    server.files["/a.bin"] = BODY[:-1] + b"x"
    with pytest.raises(CorpusError, match="the checksum is md5:.*, expected md5:"):
        fetch.fetch("ravdess", tmp_path / "s", True, items=(item,))
    assert not (tmp_path / "s/a.bin").exists()
    with pytest.raises(CorpusError, match=r"record states no checksum of b.bin; it has a.bin"):
        fetch.fetch("ravdess", tmp_path / "t", True, items=(fetch.Source(f"{server.url}/b.bin", record=record),))
    for answer in (b"not json", b"[]", b'{"files": [3]}', b'{"files": [{"checksum": "md5:0"}]}'):
        server.files["/record"] = answer
        with pytest.raises(CorpusError, match="the publisher's checksums cannot be had") as caught:
            fetch.fetch("ravdess", tmp_path / "u", True, items=(item,))
        assert "\n" not in str(caught.value)


def test_https_is_not_left_for_less(server, tmp_path):
    """Asked of the handler itself: a server with a certificate that is trusted cannot be had here."""
    asked = urllib.request.Request("https://example.org/a.zip")
    for place in ("http://example.org/a.zip", "ftp://example.org/a.zip"):
        with pytest.raises(urllib.error.URLError, match=f"from https to {place}"):
            download._Redirects().redirect_request(asked, None, 302, "Found", {}, place)
    assert download._Redirects().redirect_request(asked, None, 302, "Found", {}, "https://example.com/b.zip")
    server.files |= {"/moved": "/a.bin", "/out": "file:///etc/passwd"}
    assert fetch.download(f"{server.url}/moved", tmp_path / "a.bin", sha(BODY))
    with pytest.raises(CorpusError):
        fetch.download(f"{server.url}/out", tmp_path / "out")


def test_folders_and_files_in_each_others_place(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusError, match="cannot be made a folder"):
        fetch.fetch("ravdess", tmp_path / "file", True)
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(CorpusError, match="a.bin is a folder"):
        fetch.download(f"{server.url}/a.bin", tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(BODY)
    (tmp_path / "b.bin.sha256").write_text("")
    with pytest.raises(CorpusError, match="does not match its checksum"):
        fetch.download(f"{server.url}/a.bin", tmp_path / "b.bin")


def test_the_licence_is_shown_and_must_be_accepted(server, tmp_path):
    with pytest.raises(CorpusError, match="CC BY-NC-SA 4.0.*--accept-licence"):
        fetch.fetch("ravdess", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_corpus_is_fetched_and_unpacked_with_inner_archives(server, tmp_path):
    inner, outer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as pack:
        member = tarfile.TarInfo("train_splits/dia0_utt0.mp4")
        member.size = 4
        pack.addfile(member, io.BytesIO(b"film"))
    with zipfile.ZipFile(outer, "w") as pack:
        pack.writestr("MELD.Raw/train.tar.gz", inner.getvalue())
    server.files["/meld.zip"] = outer.getvalue()
    item = fetch.Source(f"{server.url}/meld.zip", sha(outer.getvalue()), ".", ("train.tar.gz",))
    done = fetch.fetch("meld", tmp_path / "m", True, items=(item,))
    assert (tmp_path / "m/MELD.Raw/train_splits/dia0_utt0.mp4").read_bytes() == b"film"
    assert any("2 files unpacked" in line for line in done.messages)
    again = fetch.fetch("meld", tmp_path / "m", True, items=(item,))
    assert again.messages[1:] == ("meld.zip: already here",)


def test_for_the_others_it_says_whom_to_ask(tmp_path):
    said = fetch.fetch("iemocap", tmp_path).messages[0]
    assert "USC SAIL" in said and "Session{1..5}" in said


@pytest.mark.parametrize("name", ["../out.txt", "/abs.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_member_leaves_the_folder(tmp_path, name, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as pack:
            pack.writestr("good.txt", "fine")
            pack.writestr(name, "bad")
    else:
        with tarfile.open(path, "w") as pack:
            for member in ("good.txt", name):
                pack.addfile(tarfile.TarInfo(member), io.BytesIO())
    with pytest.raises(CorpusError, match="leads out of the folder"):
        archive.unpack(path, tmp_path / "in" / "side")
    assert not (tmp_path / "in").exists() and not (tmp_path / "out.txt").exists()


def test_links_and_devices_are_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as pack:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        pack.addfile(link)
    with pytest.raises(CorpusError, match="link or a device"):
        archive.unpack(tmp_path / "x.tar", tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as pack:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        pack.writestr(member, "/etc")
    with pytest.raises(CorpusError, match="is a link"):
        archive.unpack(tmp_path / "x.zip", tmp_path / "in")


def test_damage_is_one_line_and_a_subfolder_can_be_taken(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"nothing")
    with pytest.raises(CorpusError, match="neither a zip nor a tar"):
        archive.unpack(tmp_path / "x.zip", tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as pack:
        pack.writestr("MELD-RAW/MELD.Raw/a.csv", "x")
        pack.writestr("other/b.csv", "y")
    assert archive.unpack(tmp_path / "y.zip", tmp_path / "out", under="MELD-RAW/MELD.Raw") == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.csv"]


def test_a_damaged_member_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as pack:
        pack.writestr("a.txt", "what was said in the clip")
    data = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(data.replace(b"what was said", b"what was paid", 1))
    with pytest.raises(CorpusError, match="x.zip cannot be unpacked: Bad CRC-32 for file 'a.txt'") as caught:
        archive.unpack(tmp_path / "x.zip", tmp_path / "in")
    assert "\n" not in str(caught.value)
    with tarfile.open(tmp_path / "x.tar", "w") as pack:
        member = tarfile.TarInfo("b.txt")
        member.size = 4096
        pack.addfile(member, io.BytesIO(bytes(4096)))
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:1500])
    with pytest.raises(CorpusError, match="x.tar cannot be unpacked: unexpected end"):
        archive.unpack(tmp_path / "x.tar", tmp_path / "in")


def packed(path, members, mode="w"):
    with tarfile.open(path, mode) as pack:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            pack.addfile(member, io.BytesIO(data))
    return path


NOISE = bytes(i * 7919 % 251 for i in range(60000))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_stream_is_one_line(tmp_path, kind, place, damage):
    path = packed(tmp_path / f"x.tar.{kind}", {"a.bin": NOISE, "b.bin": NOISE[::-1]}, f"w:{kind}")
    data = bytearray(path.read_bytes())
    at = int(len(data) * place)
    path.write_bytes(data[:at] if damage == "cut" else data[:at] + bytes(64) + data[at + 64 :])
    with pytest.raises(CorpusError, match=r"cannot be unpacked: \S|neither a zip nor a tar") as caught:
        archive.unpack(path, tmp_path / "in")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("place", [0.1, 0.4, 0.7])
def test_a_damaged_zip_is_one_line(tmp_path, method, place):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as pack:
        pack.writestr("a.bin", NOISE)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    at = int(len(data) * place)
    data[at : at + 24] = b"\xaa" * 24
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(CorpusError, match=r"cannot be unpacked: \S") as caught:
        archive.unpack(tmp_path / "x.zip", tmp_path / "in")
    assert "\n" not in str(caught.value)


def test_a_tar_cut_between_two_members_is_seen(tmp_path):
    path = packed(tmp_path / "x.tar", {"a.bin": NOISE[:1024], "b.bin": NOISE[:1024]})
    assert archive.unpack(path, tmp_path / "whole") == 2
    path.write_bytes(path.read_bytes()[: 512 + 1024])
    with pytest.raises(CorpusError, match="ends without the mark of its end"):
        archive.unpack(path, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_bomb_is_refused_before_anything_is_written(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archive, "SMALL", 1 << 20)
    members = {f"{i}.bin": bytes(1 << 20) for i in range(8)}
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
            for name, data in members.items():
                pack.writestr(name, data)
    else:
        packed(path, members, f"w:{kind[4:]}")
    with pytest.raises(CorpusError, match=r"would unpack to \d+ MB in .*Nothing was unpacked"):
        archive.unpack(path, tmp_path / "in")
    assert not (tmp_path / "in").exists()
    monkeypatch.setattr(archive, "SMALL", 16 << 20)
    assert archive.unpack(path, tmp_path / "in") == 8


def test_more_than_the_disk_holds_and_too_many_files(tmp_path, monkeypatch):
    path = packed(tmp_path / "x.tar", {f"{i}": b"x" for i in range(4)})
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    with pytest.raises(CorpusError, match=r"would unpack to 0 MB in 3 files"):
        archive.unpack(path, tmp_path / "in")
    monkeypatch.undo()
    # A directory that declares four gigabytes.
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as pack:
        pack.writestr("a.bin", b"x")
    data = (tmp_path / "y.zip").read_bytes()
    central = data.index(b"PK\x01\x02")
    (tmp_path / "y.zip").write_bytes(data[: central + 24] + (0xFFFFFFF0).to_bytes(4, "little") + data[central + 28 :])
    monkeypatch.setattr(archive, "SMALL", 1 << 40)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 30})())
    with pytest.raises(CorpusError, match="would unpack to 4095 MB, the disk has room for 1024 MB"):
        archive.unpack(tmp_path / "y.zip", tmp_path / "in")


def test_what_is_no_file_is_no_archive(tmp_path):
    (tmp_path / "folder.zip").mkdir()
    for name in ("folder.zip", "absent.zip"):
        with pytest.raises(CorpusError, match=f"{name} is not a file"):
            archive.unpack(tmp_path / name, tmp_path / "in")
