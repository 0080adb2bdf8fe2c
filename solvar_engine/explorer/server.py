"""The server of the page: for the user of this computer alone, as long as somebody looks.

Other users of the computer can reach its loopback address too, and so can any web page that the user's browser has
open. So nothing of a run is given without a token of 256 bits, which the browser gets in the fragment of the address
(the part that is never sent) and sends in a header, which no foreign page can make it do. Requests that name another
host (DNS rebinding) or come from another origin are refused before the token is looked at. Paths are fixed words: none
is made into the name of a file.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.selections import (
    KINDS,
    PARTICLES,
    Selection,
    check_name,
    read_selection,
    selection_names,
    write_selection,
)
from solvar_engine.explorer.data import ExploredRun
from solvar_engine.explorer.page import CONTENT_TYPES, INDEX, page_file
from solvar_engine.explorer.volumes import HALF

LOOPBACK = "127.0.0.1"
IDLE_SECONDS = 30 * 60.0
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_BINARY, _JSON, _TEXT = "application/octet-stream", "application/json", "text/plain; charset=utf-8"
_SECONDS_PER_REQUEST = 60
_BYTES_BESIDE_ROWS = 1 << 20
_DIGITS = 12
_NUMBERS = (int, float)
_MADE_WITH = {"axes": str, "polygon": _NUMBERS, "vertices": _NUMBERS}

Answer = tuple[bytes, str]


class ExplorerServer(ThreadingHTTPServer):
    """Serves one run on a loopback port.

    Parameters
    ----------
    explored : ExploredRun
    port : int
        0 for a free one.

    Raises
    ------
    UserError
        If the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = True

    def __init__(self, explored: ExploredRun, port: int = 0) -> None:
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UserError(f"Port {port} cannot be used ({error.strerror}): give another --port, or none.") from error
        self.explored = explored
        self.token = secrets.token_urlsafe(32)
        self.when_opened: Callable[[], None] = lambda: None
        self.last_request = time.monotonic()
        self.packed = explored.basis.packed(HALF)
        self.max_body = 4 * len(explored) + _BYTES_BESIDE_ROWS

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Address of the page, with the token."""
        return f"http://{LOOPBACK}:{self.port}/#token={self.token}"

    @property
    def hosts(self) -> frozenset[str]:
        """What a browser that means this server puts into the header Host."""
        return frozenset({f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"})

    def serve_while_used(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Serve until there was no request with the token for a while."""
        self.timeout = min(0.5, idle_seconds)
        self.last_request = time.monotonic()
        while time.monotonic() - self.last_request < idle_seconds:
            self.handle_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about connections that break."""


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: ExplorerServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "solvar", ""
    timeout = _SECONDS_PER_REQUEST

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log: the address of a page may be in it."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is not even a request."""
        self.close_connection = True
        self._reply(code, HTTPStatus(code).phrase.encode(), _TEXT)

    def do_GET(self) -> None:
        """Give a file of the page, or something of the run."""
        path = self._address()
        name = INDEX if path == "/" else path[1:]
        if name in CONTENT_TYPES:
            if self._is_meant_for_us():  # program text only, so without token
                self._reply(HTTPStatus.OK, page_file(name), CONTENT_TYPES[name])
        elif self._is_allowed():
            self._answer(_READ, path)

    def do_POST(self) -> None:
        """Store a selection."""
        length, self.close_connection = self.headers.get("Content-Length", ""), True
        if not self._is_allowed():  # and nothing is read, which would be taken for the next request
            return
        if not length.isdecimal() or len(length) > _DIGITS or int(length) > self.server.max_body:
            self._reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"The request is too large.", _TEXT)
            return
        body = self.rfile.read(int(length))
        self._answer(_WRITE, self._address(), body)

    def _address(self) -> str:
        """Return what is asked for, nothing if that is no address."""
        try:
            return urlsplit(self.path).path
        except ValueError:
            return ""

    # ---------------------------------------------------------------- who asks

    def _is_meant_for_us(self) -> bool:
        hosts, origin = self.server.hosts, self.headers.get("Origin")
        is_ours = self.headers.get("Host") in hosts and (
            origin is None or origin in {f"http://{host}" for host in hosts}
        )
        if not is_ours:
            self._reply(HTTPStatus.FORBIDDEN, b"This address is not served here.", _TEXT)
        return is_ours

    def _is_allowed(self) -> bool:
        if not self._is_meant_for_us():
            return False
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, f"Bearer {self.server.token}".encode()):
            self._reply(HTTPStatus.UNAUTHORIZED, b"The token is missing or wrong.", _TEXT)
            return False
        self.server.last_request = time.monotonic()
        self.server.when_opened()
        return True

    # ---------------------------------------------------------------- answers

    def _answer(self, routes: Mapping[re.Pattern[str], Callable[..., Answer]], path: str, *body: bytes) -> None:
        for pattern, answer in routes.items():
            match = pattern.fullmatch(path)
            if match is not None:
                words = [unquote(word) for word in match.groups()]
                try:
                    content, kind = answer(self.server, *words, *body)
                except UserError as error:
                    self._reply(HTTPStatus.BAD_REQUEST, str(error).encode("utf-8", "replace"), _TEXT)
                except OSError as error:
                    sentence = f"The run cannot be read or written: {error.strerror}."
                    self._reply(HTTPStatus.INTERNAL_SERVER_ERROR, sentence.encode(), _TEXT)
                else:
                    self._reply(HTTPStatus.OK, content, kind)
                return
        self._reply(HTTPStatus.NOT_FOUND, b"There is nothing here.", _TEXT)

    def _reply(self, code: int, content: bytes, kind: str) -> None:
        self.send_response(code)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


# ---------------------------------------------------------------- what there is


def _as_json(content: Any) -> Answer:
    return json.dumps(content, allow_nan=False).encode(), _JSON


def _meta(server: ExplorerServer) -> Answer:
    return _as_json({**server.explored.meta(HALF), "canSave": True})


def _column(server: ExplorerServer, name: str) -> Answer:
    values = server.explored.columns.get(name)
    if values is None:
        raise UserError(f"The run has no column {name[:80]!r}.")
    return values.astype("<f4", copy=False).tobytes(), _BINARY


def _volumes(server: ExplorerServer) -> Answer:
    return server.packed, _BINARY


def _focus(server: ExplorerServer) -> Answer:
    return server.explored.focus(), _BINARY


def _state(server: ExplorerServer, number: str) -> Answer:
    return server.explored.state(int(number)), _BINARY


def _selections(server: ExplorerServer) -> Answer:
    run = server.explored.run
    return _as_json({kind: selection_names(run, (kind,)) for kind in KINDS})


def _read(server: ExplorerServer, name: str) -> Selection:
    explored = server.explored
    found = read_selection(explored.run, name, digest=explored.latents_sha256, particles=len(explored))
    if found.kind != PARTICLES and found.values.shape[1] != explored.rank:
        raise UserError(f"The selection {name} has another number of components than the run: select again.")
    return found


def _selection(server: ExplorerServer, name: str) -> Answer:
    found = _read(server, name)
    return _as_json({"kind": found.kind, "values": found.values.tolist(), **found.made_with})


def _star(server: ExplorerServer, name: str) -> Answer:
    """The particles of a stored selection as a STAR file."""
    found, star = _read(server, name), server.explored.star
    if found.kind != PARTICLES:
        raise UserError(f"The selection {name} holds {found.kind}, but a STAR file holds particles.")
    part = star.replace(star.particles, star.particles.only(found.values.tolist()))
    return part.text().encode("utf-8", "surrogateescape"), _TEXT


def _store(server: ExplorerServer, body: bytes) -> Answer:
    """Store a selection: a line of JSON that says what it is, then rows as uint32 or coordinates as float64."""
    head, _, rest = body.partition(b"\n")
    try:
        about = json.loads(head)
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or about.get("kind") not in KINDS:
        raise UserError("The request is not a selection.")
    name, kind, explored = check_name(about.get("name", "")), about["kind"], server.explored
    if len(rest) % (4 if kind == PARTICLES else 8 * max(explored.rank, 1)):
        raise UserError("The request is cut short.")
    if kind == PARTICLES:
        values = np.unique(np.frombuffer(rest, "<u4").astype(np.int64))
        if len(values) and values[-1] >= len(explored):
            raise UserError(f"The run has no particle of row {values[-1]}.")
    elif not explored.rank:
        raise UserError("The run has no components, so there are no points: save particles.")
    else:
        values = np.frombuffer(rest, "<f8").reshape(-1, explored.rank)
        if not np.isfinite(values).all():
            raise UserError("A point has coordinates that are not numbers.")
    made_with = {key: about[key] for key, form in _MADE_WITH.items() if _is_list(about.get(key), form)}
    if isinstance(about.get("tool"), str):
        made_with["tool"] = about["tool"]
    write_selection(explored.run, Selection(name, kind, values, explored.latents_sha256, made_with))
    return _as_json({"name": name, "count": len(values)})


def _is_list(value: Any, form: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, form) for item in value)


_READ: dict[re.Pattern[str], Callable[..., Answer]] = {
    re.compile("/api/meta"): _meta,
    re.compile("/api/volumes"): _volumes,
    re.compile("/api/focus"): _focus,
    re.compile("/api/column/([a-z0-9_]{1,40})"): _column,
    re.compile("/api/state/([0-9]{1,4})"): _state,
    re.compile("/api/selections"): _selections,
    re.compile("/api/selection/([A-Za-z0-9 _.%-]{1,200})"): _selection,
    re.compile("/api/star/([A-Za-z0-9 _.%-]{1,200})"): _star,
}
_WRITE: dict[re.Pattern[str], Callable[..., Answer]] = {re.compile("/api/selection"): _store}
