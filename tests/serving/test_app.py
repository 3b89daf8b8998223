"""The page that asks the model: for whom it answers, what it keeps (nothing), and how it is used in a real browser."""

import http.client
import json
import re
import tempfile
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.app.judge import Judge
from pipeline.app.page import Page
from pipeline.app.server import make_server
from pipeline.cli import app
from pipeline.errors import UserError
from pipeline.serving.predictor import Predictor
from pipeline.serving.show import plain
from tests.browser import Browser, find_axe

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required")


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.load(trained.params, trained.models)


@pytest.fixture(scope="module")
def server(predictor):
    spec = predictor.runs[0].model.spec
    page = Page("test", spec.classes, spec.dimensions, predictor.random)
    made = make_server(Judge(predictor, longest=10), page, 0, 1 << 20)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def ask(server, method="GET", path="/", body=None, **headers):
    """Status, headers and content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=300)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


@pytest.fixture(scope="module")
def token(server):
    return re.search(rb'data-token="([^"]+)"', ask(server)[2])[1].decode()


def test_a_film_gets_what_predict_says(server, token, trained, predictor):
    film, words = trained.folder / "corpus/clip0.mp4", trained.rows[0]["text"]
    status, _, content = ask(
        server, "POST", "/film?name=my%20film.mp4&text=I+saw+0+birds+today.", film.read_bytes(), X_Affectory=token
    )
    found = json.loads(content)
    assert status == 200 and found.pop("path") == "my film.mp4"
    expected = plain(predictor.predict(film, text=words))
    expected.pop("path")
    assert found == json.loads(json.dumps(expected))


def test_it_listens_on_this_machine_alone_and_nothing_of_others_runs(server):
    assert server.server_address[0] == "127.0.0.1"
    status, headers, content = ask(server)
    policy = headers["Content-Security-Policy"]
    assert (
        status == 200 and "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    )
    assert b"http://" not in content.replace(b'"http://www.w3.org/2000/svg"', b"") and b"https://" not in content
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_of_the_outside_is_refused(server, token, host):
    assert ask(server, Host=host)[0] == 403
    assert ask(server, "POST", "/forget", b"x", Host=host, X_Affectory=token)[0] == 403


@pytest.mark.parametrize("word", ["", "guessed"])
def test_another_page_of_the_browser_is_refused(server, word):
    status, _, content = ask(server, "POST", "/film?name=a.mp4", b"x", X_Affectory=word)
    assert status == 403 and "did not come from the page" in json.loads(content)["error"]


def test_mistakes_are_one_line_and_no_file_stays(server, token, tmp_path, trained, make_film, monkeypatch):
    before = set(Path(tempfile.gettempdir()).glob("affectory-*"))
    long = make_film(tmp_path / "long.mp4", seconds=12).read_bytes()
    for path, body, status, said in (
        ("/film?name=no.mp4", b"no film", 422, "no.mp4"),
        ("/film?name=../../etc/x.mp4", b"no film", 422, "x.mp4"),
        ("/film?name=long.mp4", long, 422, "it lasts 12 s; the page takes 10 s"),
        ("/film?name=big.mp4", bytes((1 << 20) + 1), 413, "more than 1 MB"),
        ("/film?name=empty.mp4", b"", 411, "empty"),
        ("/nowhere", b"x", 404, "/film"),
    ):
        got, _, content = ask(server, "POST", path, body, X_Affectory=token)
        error = json.loads(content)["error"]
        assert got == status and said in error and "\n" not in error and tempfile.gettempdir() not in error, error
    assert ask(server, path="/etc/passwd")[0] == 404
    assert set(Path(tempfile.gettempdir()).glob("affectory-*")) == before


def test_pieces_go_on_until_they_are_forgotten(server, token, trained):
    piece = (trained.folder / "corpus/clip1.mp4").read_bytes()
    ask(server, "POST", "/forget", b"", X_Affectory=token)
    steps = [json.loads(ask(server, "POST", "/piece?name=p.mp4", piece, X_Affectory=token)[2]) for _ in range(2)]
    assert steps[0]["start"] == 0 and steps[1]["start"] == steps[0]["end"] > 1
    assert sum(steps[0]["emotions"].values()) == pytest.approx(1, abs=1e-4)
    ask(server, "POST", "/forget", b"", X_Affectory=token)
    assert json.loads(ask(server, "POST", "/piece?name=p.mp4", piece, X_Affectory=token)[2])["start"] == 0


def test_a_port_that_is_taken_is_one_line(server, predictor):
    with pytest.raises(UserError, match="cannot be had .*--port 0"):
        make_server(Judge(predictor, 10), Page("test", (), (), ()), server.server_address[1], 1)
    assert CliRunner().invoke(app, ["app", "--port", "70000"]).exit_code == 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("browser"), *CAMERA)
    yield made
    made.close()


def wait(browser, expression, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := browser.ask(expression)):
        assert time.monotonic() < deadline, browser.ask("document.getElementById('state').textContent")
        time.sleep(0.2)
    return found


def test_a_film_is_chosen_and_its_answer_shown(browser, server, trained):
    browser.visit(f"http://127.0.0.1:{server.server_address[1]}/")
    browser.give("#film", trained.folder / "corpus/clip0.mp4")
    rows = wait(browser, "[...document.querySelectorAll('#emotions th')].map(e => e.textContent).join(' ')")
    assert {"joy", "sadness", "valence", "arousal"} <= set(rows.split())
    assert browser.ask("document.querySelectorAll('#lines polyline').length") == 2
    assert browser.ask("document.getElementById('streams').textContent").count("%") >= 2
    browser.give("#film", Path(__file__))
    assert "test_app.py" in wait(browser, "document.querySelector('#state.wrong')?.textContent")
    assert {re.match(r"https?://[^/]+|\w+:", one)[0] for one in browser.requests} <= {
        f"http://127.0.0.1:{server.server_address[1]}",
        "data:",
        "blob:",
    }
    if axe := find_axe():
        browser.ask(axe.read_text(encoding="utf-8") + ";0")
        assert browser.ask("axe.run().then(r => r.violations.map(v => v.id))") == []


def test_camera_and_microphone_are_judged_as_they_come(browser, server):
    browser.visit(f"http://127.0.0.1:{server.server_address[1]}/")
    browser.ask("document.getElementById('record').click()")
    wait(browser, "course.length >= 2")
    assert browser.ask("document.getElementById('record').getAttribute('aria-pressed')") == "true"
    first, second = browser.ask("course.slice(0, 2)")
    assert first["start"] == 0 and second["start"] == first["end"] > 0.5
    assert first["streams"]["video"]["status"] == first["streams"]["audio"]["status"] == "ok"
    browser.ask("document.getElementById('record').click()")
    assert browser.ask("recording === null && document.getElementById('record').getAttribute('aria-pressed') === 'false'")
