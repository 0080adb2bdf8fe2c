"""Attacks on the server, and what it answers to its own page."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from solvar_engine.contract.selections import Selection, read_selection, write_selection
from solvar_engine.explorer import page
from solvar_engine.jobs import run_explore
from tests.explorer.serving import analysed_run, served
from tests.jobs.conftest import run_in_process
from tests.jobs.programs import engine_command, engine_environment, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    run, _ = analysed_run(tmp_path_factory.mktemp("served") / "run")
    with served(run) as made:
        yield made


@pytest.fixture
def ask(server):
    """Send one request; returns status, body and headers."""

    def send(path: str, body: bytes | None = None, token: str | None = None, **headers: str):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        given = {
            "Host": f"127.0.0.1:{server.port}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        connection.putrequest("GET" if body is None else "POST", path, skip_host=True)
        for name, value in given.items():
            if value:
                connection.putheader(name, value)
        if body is not None and "Content-Length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, dict(answer.getheaders())

    return send


def about(**changes: object) -> bytes:
    return json.dumps({"name": "a", "kind": "particles", **changes}).encode() + b"\n"


def test_token_has_256_bits_and_comes_in_the_fragment(server) -> None:
    address, _, token = server.url.partition("/#token=")
    assert address == f"http://127.0.0.1:{server.port}"
    assert len(token) == 43  # of 6 bits


@pytest.mark.parametrize(
    "path",
    [
        "/api/meta",
        "/api/volumes",
        "/api/column/z_1",
        "/api/selections",
        "/api/selection/a",
        "/api/star/a",
        "/api/none",
        "/x",
    ],
)
@pytest.mark.parametrize("token", [None, "", "x", "é"])
def test_nothing_without_the_token(ask, path, token) -> None:
    assert ask(path, token=token)[0] == 401


def test_part_of_the_token_or_one_in_the_address_will_not_do(server, ask) -> None:
    assert ask("/api/meta", token=server.token[:-1])[0] == 401
    assert ask(f"/api/meta?token={server.token}")[0] == 401
    assert ask("/api/selection", about(), token="wrong")[0] == 401
    assert ask("/api/meta", token=server.token)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
@pytest.mark.parametrize("path", ["/", "/api/meta"])
def test_other_names_of_the_host_are_refused(server, ask, host, path) -> None:
    assert ask(path, token=server.token, Host=host.format(port=server.port))[0] == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null", "http://localhost"])
def test_other_origins_are_refused(server, ask, origin) -> None:
    assert ask("/api/meta", token=server.token, Origin=origin)[0] == 403
    assert ask("/api/selection", about(), token=server.token, Origin=origin)[0] == 403


def test_own_origin_is_served_under_both_names(server, ask) -> None:
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}"):
        assert ask("/api/meta", token=server.token, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../data.py", "/%2e%2e/data.py", "/web/app.js", "/app.js/", "//etc/passwd", "/api/column/../../params.json",
        "/api/column/z_1/", "/api/column/", "/api/state/1e9", "/api/meta/x", "/index.html%00", "/api/selection/../a",
        "/api/star/%2e%2e%2fa/b",
    ],
)  # fmt: skip
def test_only_fixed_paths_lead_anywhere(server, ask, path) -> None:
    assert ask(path, token=server.token)[0] == 404


@pytest.mark.parametrize("name", ["%2e%2e%2f%2e%2e%2fparams", "..%2fx", ".x", "x%00"])
def test_names_in_addresses_lead_to_no_file(server, ask, name) -> None:
    status, content, _ = ask(f"/api/selection/{name}", token=server.token)
    assert status == 400 and b"cannot be the name of a selection" in content


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (about(name="../x"), "cannot be the name"),
        (about(name=5), "cannot be the name"),
        (about(kind="pickle"), "is not a selection"),
        (b"", "is not a selection"),
        (b"[" * 100_000, "is not a selection"),
        (b'{"kind": ', "is not a selection"),
        (about() + b"\x01", "cut short"),
        (about() + b"\xff\xff\xff\x7f", "no particle of row 2147483647"),
        (about(), "holds nothing"),
        (about(kind="points") + np.full(4, np.nan).tobytes(), "not numbers"),
        (about(name="CON") + b"\1\0\0\0", "cannot be the name"),
        (about(kind="points") + b"12345678", "cut short"),
    ],
)
def test_bad_selections_are_refused(server, ask, body, sentence) -> None:
    status, content, _ = ask("/api/selection", body, token=server.token)
    assert status == 400 and sentence in content.decode()
    assert not server.explored.run.selections.exists() or not list(server.explored.run.selections.iterdir())


def test_what_a_selection_was_made_with_is_words_and_numbers_only(server, ask) -> None:
    deep = b'{"name": "deep", "kind": "particles", "axes": [1], "tool": [2], "polygon": ' + b"[" * 900 + b"]" * 900
    assert ask("/api/selection", deep + b"}\n\1\0\0\0", token=server.token)[0] == 200
    assert json.loads(ask("/api/selection/deep", token=server.token)[1]) == {"kind": "particles", "values": [1]}
    for path in server.explored.run.selections.iterdir():
        path.unlink()


def test_two_that_store_the_same_name_at_once_do_not_mix(server, ask) -> None:
    def store(count: int) -> int:
        return ask("/api/selection", about(tool=str(count)) + np.arange(count, dtype="<u4").tobytes(),
                   token=server.token)[0]  # fmt: skip

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(store, range(1, 49))) == {200}
    found = read_selection(server.explored.run, "a")
    assert found.made_with["tool"] == str(len(found.values))
    for path in server.explored.run.selections.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "table", "sentence"),
    [
        ("particles", "row\n1\n300\n", b"has row 300, but the run has 300"),
        ("points", "z_1,z_2\n1,2\n3,4\n", b"another number of components"),
        ("points", "z_1,z_2,z_3,z_4\n1,2,3,4\n1,2,3,\n", b"something else than the numbers"),
    ],
)
def test_selections_that_were_edited_are_one_sentence(server, ask, kind, table, sentence) -> None:
    run, digest = server.explored.run, server.explored.latents_sha256
    write_selection(run, Selection("edited", kind, np.ones((2, 4) if kind == "points" else 2), digest))
    run.selection_table("edited").write_text(table)
    status, content, _ = ask("/api/selection/edited", token=server.token)
    assert status == 400 and sentence in content
    for path in run.selections.iterdir():
        path.unlink()


def test_many_slow_visitors_keep_nobody_waiting(server, ask) -> None:
    begun = time.monotonic()
    with ExitStack() as stack:
        for _ in range(100):  # each waits a second or more where the queue of the socket is full
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            slow.sendall(b"GET /api/meta HTTP/1.1\r\nHo")
        assert ask("/api/meta", token=server.token)[0] == 200
    assert time.monotonic() - begun < 8


def test_bodies_of_strangers_are_not_waited_for(server, ask) -> None:
    assert ask("/api/selection", b"", Content_Length=str(server.max_body))[0] == 401


@pytest.mark.parametrize("length", ["1099511627776", "-1", "x", "9" * 30, "9" * 5000])
def test_bodies_are_limited_before_they_are_read(server, ask, length) -> None:
    assert ask("/api/selection", b"", token=server.token, Content_Length=length)[0] == 413


def test_other_methods_and_broken_requests_are_refused(server) -> None:
    for request in (
        b"PUT /api/selection HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"GET /" + b"a" * 70_000,
        f"GET http://[/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.token}\r\n".encode(),
    ):
        with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
            connection.sendall(request + b"\r\n\r\n")
            reply = connection.recv(100)
            assert any(word in reply for word in (b" 501 ", b" 414 ", b"Bad Request", b" 404 "))


def test_every_answer_forbids_inline_code_framing_and_guessing(server, ask) -> None:
    for path in ("/", "/app.js", "/api/meta", "/api/none"):
        headers = ask(path, token=server.token)[2]
        policy = headers["Content-Security-Policy"]
        assert (
            "default-src 'none'" in policy
            and "script-src 'self'" in policy
            and "frame-ancestors 'none'" in policy
        )
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Python" not in headers["Server"]


def test_only_the_loopback_address_listens(server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_every_file_of_the_page_is_served_and_they_are_few_and_short() -> None:
    folder = Path(page.__file__).with_name("web")
    assert {path.name for path in folder.iterdir()} == set(page.CONTENT_TYPES)
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.iterdir()) <= 1500
    for position, name in enumerate(page.MODULES):  # the exported page needs them in this order
        text = page.page_file(name).decode()
        imported = set(re.findall(r'^import .* from "\./(.*)";$', text, re.MULTILINE))
        assert imported <= set(page.MODULES[:position])
        assert text.count("import ") == len(imported)


def test_selection_is_stored_and_given_back(server, ask) -> None:
    run, token = server.explored.run, server.token
    body = (
        about(name="b", tool="lasso", axes=["z_1", "z_2"], polygon=[0, 1, 2], other="x")
        + np.array([5, 2, 5], "<u4").tobytes()
    )
    assert json.loads(ask("/api/selection", body, token=token)[1]) == {"name": "b", "count": 2}
    found = read_selection(run, "b")
    assert found.values.tolist() == [2, 5]
    assert found.made_with == {"tool": "lasso", "axes": ["z_1", "z_2"], "polygon": [0, 1, 2]}
    assert json.loads(ask("/api/selection/b", token=token)[1])["values"] == [2, 5]
    assert json.loads(ask("/api/selections", token=token)[1]) == {
        "particles": ["b"],
        "points": [],
        "path": [],
    }
    lines = ask("/api/star/b", token=token)[1].decode().splitlines()
    assert [line.split()[0] for line in lines if "@" in line] == [
        "000003@particles.mrcs",
        "000006@particles.mrcs",
    ]
    assert stat.S_IMODE(run.selection("b").stat().st_mode) & 0o022 == 0
    for path in run.selections.iterdir():
        path.unlink()


# ---------------------------------------------------------------- the program


def start(run: Path, **environment: str) -> subprocess.Popen[str]:
    """Start the command as a child of a shell that waits, which stands for a viewer."""
    words = engine_command("explore", run, *(() if "BROWSER" in environment else ("--no-browser",)))
    viewer = [sys.executable, "-c", "import subprocess, sys; subprocess.call(sys.argv[1:])", *map(str, words)]
    return subprocess.Popen(
        viewer,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**engine_environment(), **environment},
    )


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def child_of(process: subprocess.Popen[str]) -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def test_program_ends_with_its_parent_shows_its_token_to_nobody_and_leaves_nothing(tmp_path) -> None:
    run, _ = analysed_run(tmp_path / "run")
    before = {path for path in run.path.rglob("*")}
    seen = tmp_path / "browser.txt"
    opener = tmp_path / "browser"
    opener.write_text(
        f'#!/bin/sh\necho "$@" >{seen}.part\nstat -c %a "${{1#file://}}" >>{seen}.part\nmv {seen}.part {seen}\n'
    )
    opener.chmod(0o755)
    viewer = start(run.path, BROWSER=f"{opener} %s", SSH_CONNECTION="1.2.3.4 5 6.7.8.9 22")
    try:
        assert viewer.stdout is not None and viewer.stderr is not None
        url = json.loads(viewer.stdout.readline())["url"]
        address, _, token = url.partition("/#token=")
        port = int(address.rpartition(":")[2])
        assert wait_until(seen.exists, 20)
        opened, mode = seen.read_text().split()
        assert token not in opened and mode == "600"
        (leading,) = (path for path in run.path.iterdir() if path.name.startswith(".explorer-"))
        assert url in leading.read_text()
        child = child_of(viewer)
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert token.encode() not in entry.read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/api/meta", headers={"Authorization": f"Bearer {token}"})
        assert connection.getresponse().status == 200
        connection.close()
        assert not leading.exists()
        viewer.kill()
        assert wait_until(lambda: is_refused(port), 5)
        assert wait_until(lambda: not Path(f"/proc/{child}").exists(), 30)  # Python itself may take its time to end
        errors = viewer.stderr.read()
        assert token not in errors and "ssh -N -L" in errors
        assert {path for path in run.path.rglob("*")} == before
    finally:
        viewer.kill()
        viewer.wait()
        viewer.stdout.close()
        viewer.stderr.close()


def test_pages_of_killed_servers_are_removed_and_those_of_living_ones_stay(tmp_path) -> None:
    run, _ = analysed_run(tmp_path / "run")
    abandoned, used = run.path / ".explorer-dead.html", run.path / ".explorer-used.html"
    abandoned.touch()
    opened: list[str] = []
    browser = SimpleNamespace(open=opened.append)
    with used.open("w") as held, served(run) as server:
        fcntl.flock(held, fcntl.LOCK_EX)
        with run_explore._opened(server, run.path, browser):
            assert wait_until(lambda: bool(opened), 5)
            leading = {path.as_uri() for path in run.path.glob(".explorer-*")}
            assert leading == {used.as_uri(), *opened}
            with run_explore._opened(server, run.path, browser):  # a second explorer of the same run
                assert {path.as_uri() for path in run.path.glob(".explorer-*")} > leading
    assert list(run.path.glob(".explorer-*")) == [used]


def test_server_ends_when_nobody_asks(tmp_path) -> None:
    run, _ = analysed_run(tmp_path / "run")
    with served(run) as server:
        begun = time.monotonic()
        server.serve_while_used(idle_seconds=0.3)
        assert 0.3 <= time.monotonic() - begun < 5


def test_port_that_is_taken_and_folder_that_is_no_run_are_one_sentence(tmp_path, server, capsys) -> None:
    run, _ = analysed_run(tmp_path / "run")
    for arguments, sentence in (
        ((run.path, "--port", server.port, "--no-browser"), f"Port {server.port} cannot be used"),
        ((tmp_path,), "is not a run folder"),
        (
            (run.path, "--export", tmp_path / "a.html", "--port", 5),
            "--port does not go together with --export",
        ),
    ):
        assert run_in_process("explore", *arguments) == 2
        assert sentence in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["run"]
