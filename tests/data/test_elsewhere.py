"""Corpora from elsewhere: mirrored by fsspec, from a stand-in of the Hugging Face hub, from a stand-in of Kaggle's package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from pipeline.data import elsewhere, mirror
from pipeline.errors import CorpusError, ParamsError

FILES = {"clips.csv": b"id,emotion\na,joy\n", "media/a.wav": bytes(range(256)) * 8000, "media/deep/b.wav": b"sound"}


@pytest.fixture
def bucket():
    """An address in memory with `FILES`."""
    system = fsspec.filesystem("memory")
    for name, content in FILES.items():
        system.pipe_file(f"/bucket/films/{name}", content)
    yield "memory://bucket/films"
    system.rm("/bucket", recursive=True)


def read(folder):
    names = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


def test_a_folder_elsewhere_is_mirrored_and_only_what_changed_comes_again(bucket, tmp_path):
    assert mirror.mirror(bucket, tmp_path) == (3, 3) and read(tmp_path) == FILES
    assert mirror.mirror(bucket, tmp_path) == (3, 0)
    fsspec.filesystem("memory").pipe_file("/bucket/films/clips.csv", b"id,emotion\na,sadness\n")
    (tmp_path / "media/deep/b.wav").unlink()
    assert mirror.mirror(bucket, tmp_path) == (3, 2)
    assert read(tmp_path) == FILES | {"clips.csv": b"id,emotion\na,sadness\n"}
    assert not list(tmp_path.rglob("*.part"))


def test_a_copy_that_was_interrupted_goes_on_where_it_ended(bucket, tmp_path, monkeypatch):
    whole, asked = fsspec.filesystem("memory"), []

    class Breaking:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def seek(self, place):
            asked.append(place)
            self.file.seek(place)

        def read(self, size):
            if self.file.tell() >= 2**20 and len(asked) < 3:
                raise OSError("the line went dead")
            return self.file.read(size)

    opened = type(whole).open
    monkeypatch.setattr(type(whole), "open", lambda self, *a, **k: Breaking(opened(self, *a, **k)))
    with pytest.raises(CorpusError, match=r"memory://bucket/films/media/a.wav: the line went dead. What has come is kept"):
        mirror.mirror(bucket, tmp_path)
    assert asked == [0, 0] and "media/a.wav" not in read(tmp_path)
    assert mirror.mirror(bucket, tmp_path) == (3, 2) and read(tmp_path) == FILES  # clips.csv was there
    assert asked == [0, 0, 2**20, 0]


def test_of_a_web_server_and_of_a_folder(tmp_path):
    origin = tmp_path / "origin"
    for name, content in FILES.items():
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_bytes(content)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(origin))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        found = elsewhere.fetch_address(f"http://127.0.0.1:{http.server_port}/", tmp_path / "web")
        http.shutdown()
        thread.join()
    assert read(tmp_path / "web") == FILES and len(found.files) == 3
    told = elsewhere.fetch_address(f"file://{origin}", tmp_path / "copy").messages
    assert read(tmp_path / "copy") == FILES
    assert told[0] == f"{tmp_path / 'copy'}: 3 files, 3 of them new; 2.0 MB, from file://{origin}"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://bucket/nothing", "memory://bucket/nothing: "),
        ("s4://bucket", "s4://bucket: Protocol not known: s4"),
        ("hf:films", "a data set of Hugging Face is named OWNER/NAME, not 'films'"),
        ("kaggle:a/b/c", "a data set of Kaggle is named OWNER/NAME, not 'a/b/c'"),
        ("kaggle:owner/films", "kaggle:owner/films needs the package kaggle and an account there: pip install kaggle"),
        ("hf:owner/films", "hf:owner/films is on the web, and HF_HUB_OFFLINE is set"),
        ("http://127.0.0.1:1/films/", "http://127.0.0.1:1/films/: "),
    ],
)
def test_what_cannot_be_had_is_one_line(tmp_path, monkeypatch, address, said):
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    with pytest.raises(CorpusError) as caught:
        elsewhere.fetch_address(address, tmp_path / "out")
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_listed_is_no_empty_one(bucket, tmp_path, monkeypatch):
    system, listed = fsspec.filesystem("memory"), type(fsspec.filesystem("memory")).ls

    def ls(self, path, **options):
        if path.endswith("deep"):
            raise PermissionError("not yours")
        return listed(self, path, **options)

    monkeypatch.setattr(type(system), "ls", ls)
    with pytest.raises(CorpusError, match="memory://bucket/films: not yours"):
        mirror.mirror(bucket, tmp_path)


def test_one_file_is_a_mirror_too(bucket, tmp_path):
    assert mirror.mirror(f"{bucket}/media/deep/b.wav", tmp_path) == (1, 1) and read(tmp_path) == {"b.wav": b"sound"}


def test_no_file_leaves_the_folder(tmp_path, monkeypatch):
    system = fsspec.filesystem("memory")
    monkeypatch.setattr(type(system), "ls", lambda *_, **__: [{"name": "/x/../../evil", "type": "file"}])
    with pytest.raises(CorpusError, match="would leave"):
        mirror.mirror("memory://x", tmp_path / "out")


def test_the_package_of_a_protocol_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(CorpusError, match=r"^s3://bucket/films: .*s3fs"):
        elsewhere.fetch_address("s3://bucket/films", tmp_path)


def test_an_address_as_the_root_says_what_to_do(fabricate):
    with pytest.raises(ParamsError, match=r"corpus.root: .*python -m pipeline corpus fetch s3://bucket/films FOLDER"):
        fabricate(clips=10).params(corpus={"root": "s3://bucket/films"})


def test_a_data_set_of_the_hub_comes_with_its_folders(tmp_path):
    """The library against a server that answers as the hub does."""
    commit = "a" * 40

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, whole):
            about, files = "/api/datasets/owner/films", f"/datasets/owner/films/resolve/{commit}/"
            if self.path.startswith(f"{about}/tree/"):
                tree = [{"type": "file", "path": name, "size": len(body), "oid": "1"} for name, body in FILES.items()]
                body = json.dumps(tree).encode()
            elif self.path.startswith(about):
                body = json.dumps({"_id": "1", "id": "owner/films", "sha": commit, "siblings": []}).encode()
            elif self.path.startswith(files):
                body = FILES[self.path.removeprefix(files)]
            else:
                self.send_error(404)
                return
            self.send_response(200)
            for name, value in {"ETag": f'"{len(body)}"', "X-Repo-Commit": commit, "Content-Length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if whole:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        run = "from pipeline.data.elsewhere import fetch_address as get; print(*get('hf:owner/films', 'out').messages, sep='\\n')"
        given = {"HF_ENDPOINT": f"http://127.0.0.1:{http.server_port}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        given |= {"PYTHONPATH": os.getcwd(), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        done = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, env=os.environ | given, capture_output=True, text=True)
        http.shutdown()
        thread.join()
    assert done.returncode == 0, done.stderr
    assert "out: data set owner/films of Hugging Face; 2.0 MB, from hf:owner/films" in done.stdout
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES
    assert "licence: that of whoever gives it away" in done.stdout


KAGGLE = """
import os, shutil
class KaggleApi:
    def authenticate(self):
        if not os.environ.get("KAGGLE_KEY"):
            print("no key"); exit(1)
    def dataset_download_files(self, dataset, path=None, unzip=False, quiet=True):
        assert dataset == "owner/films" and not unzip
        shutil.copy("{archive}", os.path.join(path, "films.zip"))
"""


def test_a_data_set_of_kaggle_is_unpacked_once_and_an_account_is_asked_for(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as file:
        for name, content in FILES.items():
            file.writestr(name, content)
    api = tmp_path / "site/kaggle/api"
    api.mkdir(parents=True)
    for path in (api.parent / "__init__.py", api / "__init__.py"):
        path.write_text("")
    (api / "kaggle_api_extended.py").write_text(KAGGLE.replace("{archive}", str(tmp_path / "made.zip")))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    try:
        monkeypatch.delenv("KAGGLE_KEY", raising=False)
        with pytest.raises(CorpusError, match="kaggle:owner/films: no account is configured"):
            elsewhere.fetch_address("kaggle:owner/films", tmp_path / "out")
        monkeypatch.setenv("KAGGLE_KEY", "a key")
        told = elsewhere.fetch_address("kaggle:owner/films", tmp_path / "out").messages
        assert read(tmp_path / "out") == FILES and "data set owner/films of Kaggle; 2.0 MB" in told[0]
        (tmp_path / "made.zip").unlink()  # a second time nothing is asked for
        assert len(elsewhere.fetch_address("kaggle:owner/films", tmp_path / "out").files) == 3
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "kaggle"]:
            del sys.modules[name]
