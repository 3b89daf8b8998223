"""A web server for one person on one machine: it listens on the loopback address, keeps no file and asks nobody for anything.

Other pages that are open in the same browser cannot use it: what is posted carries a word that only this page was given, and a
request that calls the machine by another name is refused (so that no name of the outside can be pointed here).
"""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pipeline.errors import UserError

from .judge import Judge
from .page import TOKEN, Page

log = logging.getLogger(__name__)
HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
#: Bytes read from a connection at a time.
BLOCK = 1 << 20
#: Endings that a name may lend the file a body is kept in, for what is told by it.
ENDINGS = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".wav", ".flac", ".mp3", ".ogg", ".m4a")


def make_server(judge: Judge, page: Page, port: int, largest: int) -> ThreadingHTTPServer:
    """A server that waits for `serve_forever`.

    Args:
        port: 0 takes one that is free. largest: bytes a file may have.

    Raises:
        UserError: the port is taken, or may not be used.
    """
    token = secrets.token_urlsafe(24)

    class Handler(_Handler):
        pass

    Handler.judge, Handler.content, Handler.token, Handler.largest = judge, page.render(token), token, largest
    Handler.policy = page.policy
    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"port {port} cannot be had ({reason}); give another, --port 0 takes one that is free.") from error


class _Handler(BaseHTTPRequestHandler):
    judge: Judge
    content: bytes
    policy: str
    token: str
    largest: int
    server_version, sys_version = "affectory", ""
    #: Seconds a connection may say nothing.
    timeout = 60

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        if urlsplit(self.path).path != "/":
            self._refuse(HTTPStatus.NOT_FOUND, "there is one page, /")
            return
        self._send(HTTPStatus.OK, self.content, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        # What is not read of a body would be taken for the next request.
        self.close_connection = True
        if not self._is_ours():
            return
        if not secrets.compare_digest(self.headers.get(TOKEN, ""), self.token):
            self._refuse(HTTPStatus.FORBIDDEN, "this did not come from the page; load it anew")
            return
        address = urlsplit(self.path)
        ways: dict[str, Callable[[Path], dict]] = {
            "/film": lambda path: self.judge.judge_film(path, " ".join(parse_qs(address.query).get("text", []))),
            "/piece": self.judge.judge_piece,
        }
        if address.path == "/forget":
            self.judge.forget()
            self._answer(HTTPStatus.OK, {})
        elif address.path in ways:
            self._judge(ways[address.path], parse_qs(address.query).get("name", [""])[0])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is /film, /piece and /forget")

    def _judge(self, ask: Callable[[Path], dict], name: str) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or not int(length):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "an empty file, or its length was not told")
            return
        if int(length) > self.largest:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {self.largest >> 20} MB (app --megabytes)")
            return
        ending = Path(name).suffix.lower()
        with tempfile.TemporaryDirectory(prefix="affectory-") as folder:
            path = Path(folder, f"film{ending if ending in ENDINGS else ''}")
            if not self._receive(path, int(length)):
                return
            try:
                found = ask(path)
            except UserError as error:
                said = str(error).replace(str(path), Path(name).name or "it").replace(path.name, Path(name).name or "it")
                self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, said)
                return
            except Exception:
                log.exception("The page asked for something that failed")
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "this failed; the terminal says how")
                return
        self._answer(HTTPStatus.OK, found | ({"path": Path(name).name} if "path" in found else {}))

    def _receive(self, path: Path, length: int) -> bool:
        with path.open("wb") as file:
            while length:
                part = self.rfile.read(min(BLOCK, length))
                if not part:
                    return False  # who sent it has gone
                file.write(part)
                length -= len(part)
        return True

    def _is_ours(self) -> bool:
        if self.headers.get("Host", "").rsplit(":", 1)[0] in NAMES:
            return True
        self.close_connection = True
        self._refuse(HTTPStatus.FORBIDDEN, f"this machine is called {NAMES[0]} here")
        return False

    def _refuse(self, status: HTTPStatus, line: str) -> None:
        self._answer(status, {"error": line})

    def _answer(self, status: HTTPStatus, values: dict) -> None:
        self._send(status, json.dumps(values, ensure_ascii=False, allow_nan=False).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"}
        headers |= {"Content-Security-Policy": self.policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *words: object) -> None:
        """A line per request would be of no use to anyone."""
