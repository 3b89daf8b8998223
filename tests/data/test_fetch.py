"""Downloads from a local server: resumed, checked, unpacked without leaving the folder."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.data import archive, fetch
from pipeline.errors import CorpusError

BODY = bytes(range(256)) * 40


@pytest.fixture
def server():
    """A server of `files`; `requests` are the ranges asked for; `cut` ends answers early; `ranges` off ignores them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.headers.get("Range"))
            body = self.server.files.get(self.path)
            if body is None:
                self.send_error(404)
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
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:][: self.server.cut])
            self.server.cut = None

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.files, http.requests, http.cut, http.ranges = {"/a.bin": BODY}, [], None, True
    http.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


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
