"""Lists and URLs of people who mean harm: nothing private is reached, nothing outside the root is read."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.audits import KEY, audited, fill, noisy_image

from treering_verify.audit.inputs import http_reader, urls
from treering_verify.audit.inputs.reading import read_url
from treering_verify.audit.inputs.sources import Inputs, list_inputs
from treering_verify.audit.inputs.urls import Access
from treering_verify.cli.main import main
from treering_verify.errors import UsageError
from treering_verify.media.conversion import encode_png
from treering_verify.media.images import MAX_BYTES

SIZE = (128, 128)
IMAGE = encode_png(noisy_image(1))


class Server(ThreadingHTTPServer):
    """A server that counts its requests; /to/URL redirects, /slow never ends, /huge says so, /short breaks off."""

    def __init__(self, host: str) -> None:
        self.asked: list[str] = []
        self.stopped = threading.Event()
        super().__init__((host, 0), Handler)
        self.daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = {"/huge": MAX_BYTES + 1, "/short": len(IMAGE) + 9, "/slow": len(IMAGE)}.get(self.path, len(IMAGE))
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.path == "/slow":
            while not self.server.stopped.wait(0.05):
                self.wfile.write(b"\x89")
        elif self.path != "/huge":
            self.wfile.write(IMAGE)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(host: str) -> Iterator[Server]:
    server = Server(host)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def private() -> Iterator[Server]:
    with serving("127.0.0.1") as server:
        yield server


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that stands for a public one: public.example resolves to it, and its address counts as public."""
    judged, resolved = http_reader.is_public, socket.getaddrinfo

    def lookup(name: str, port: int, **options: Any) -> Any:
        return resolved("127.0.0.2" if name == "public.example" else name, port, **options)

    monkeypatch.setattr(http_reader, "is_public", lambda address: address == "127.0.0.2" or judged(address))
    monkeypatch.setattr(http_reader.socket, "getaddrinfo", lookup)
    with serving("127.0.0.2") as server:
        yield server


def port_of(server: Server) -> int:
    return int(server.server_address[1])


def test_no_url_of_a_list_reaches_this_machine_leaks_the_environment_or_reads_a_file(
    private: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOP_SECRET", "canary")
    port, secret = port_of(private), tmp_path / "elsewhere" / "secret.png"
    secret.parent.mkdir()
    noisy_image(5).save(secret)
    folder = tmp_path / "lists"
    folder.mkdir()
    template = "{{u.__globals__[os].environ[TOP_SECRET]}}"
    reference = {
        "version": 1,
        "templates": {"u": "{{x}}"},
        "refs": {"a.png": [f"http://127.0.0.1:{port}/?{template}"], "b.png": [f"file://{secret}"]},
    }
    (folder / "ref.json").write_text(json.dumps(reference))
    hostile = [
        f"reference://a.png::file://{folder}/ref.json",
        f"reference://a.png::{folder}/ref.json",
        f"reference://a.png::http://127.0.0.1:{port}/ref.json",
        f"local://{secret}",
        f"LOCAL://{secret}",
        f"simplecache::file://{secret}",
        f"filecache::local://{secret}",
        f"blockcache::http://127.0.0.1:{port}/",
        f"zip://a.png::http://127.0.0.1:{port}/a.zip",
        f"dir://a::file://{secret.parent}",
        f"s3://a::http://127.0.0.1:{port}/",
        f"generic://file://{secret}",
        f"c://{secret}",
        f"file://elsewhere{secret}",
        f"http://127.0.0.1:{port}/",
        f"http://localhost:{port}/",
        f"http://2130706433:{port}/",
        f"http://0x7f.1:{port}/",
        f"http://[::1]:{port}/",
        f"http://[::ffff:127.0.0.1]:{port}/",
        f"http://0.0.0.0:{port}/",
        f"HTTP://user:word@127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        f"ftp://127.0.0.1:{port}/x",
        f"webhdfs://127.0.0.1:{port}/x",
        "github://a:b@main/x",
        "hf://datasets/a/b.png",
        "memory://x",
        "data:///x",
    ]
    (folder / "list").write_text("\n".join(hostile))
    rows = audited(Inputs(files_from=(str(folder / "list"),)), tmp_path / "out")
    assert [row.path for row in rows] == hostile
    assert {row.path: row.code for row in rows} == dict.fromkeys(hostile, "url_refused")
    assert {row.sha256 for row in rows} == {None} and private.asked == []
    assert not any("canary" in str(row) for row in rows)


def test_a_redirect_to_a_private_address_or_another_protocol_is_not_followed(private: Server, public: Server) -> None:
    address = f"http://public.example:{port_of(public)}"
    inside = f"http://127.0.0.1:{port_of(private)}"
    assert read_url(f"{address}/a b.png", SIZE).status == "ok"
    assert read_url(f"{address}/to/{address}/b.png", SIZE).status == "ok"
    for place in (f"{inside}/x", f"{address}/to/{inside}/x", "file:///etc/hostname", "ftp://127.0.0.1/x"):
        assert read_url(f"{address}/to/{place}", SIZE).code == "url_refused"
    assert private.asked == [] and "/a%20b.png" in public.asked
    assert read_url(f"{address}/to/{inside}/x", SIZE, Access(allow_private=True)).status == "ok"
    assert private.asked == ["/x"]


def test_redirects_come_to_an_end(public: Server) -> None:
    address = f"http://public.example:{port_of(public)}"
    assert "redirects" in read_url(f"{address}/to/" * 9, SIZE).reason
    assert len(public.asked) == http_reader.MAX_REDIRECTS + 1


def test_the_address_that_was_checked_is_connected_to(
    private: Server, public: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is checked, and private when it is looked up again, is looked up once."""
    lookups = []

    def rebinding(name: str, port: int, **options: Any) -> Any:
        lookups.append(name)
        address = "127.0.0.2" if len(lookups) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(http_reader.socket, "getaddrinfo", rebinding)
    assert read_url(f"http://public.example:{port_of(public)}/x", SIZE).status == "ok"
    assert lookups == ["public.example"] and public.asked == ["/x"] and private.asked == []


def test_rows_do_not_tell_what_a_private_network_holds(private: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(name: str, port: int, **options: Any) -> Any:
        if name == "absent.internal":
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if "." not in name else name, port))]

    monkeypatch.setattr(http_reader.socket, "getaddrinfo", lookup)
    hosts = [f"present:{port_of(private)}", "present:9", "absent.internal", "10.1.2.3", "192.168.0.1:8080"]
    found = [read_url(f"http://{host}/", SIZE) for host in hosts]
    assert len({(one.status, one.code, one.reason) for one in found}) == 1 and found[0].code == "url_refused"
    assert private.asked == []


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "172.16.5.4",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:0:0:0:0:80ff:fffe", "2001:db8::1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not http_reader.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_public(address: str) -> None:
    assert http_reader.is_public(address)


def test_size_and_time_are_bounded(public: Server) -> None:
    address = f"http://public.example:{port_of(public)}"
    assert read_url(f"{address}/huge", SIZE).code == "too_large_file"
    assert read_url(f"{address}/short", SIZE).code == "url_not_readable"
    started = time.monotonic()
    assert "TimeoutError" in read_url(f"{address}/slow", SIZE, seconds=0.5).reason
    assert time.monotonic() - started < 20


def test_protocols_are_added_by_name_but_never_those_that_read_other_files() -> None:
    for name in ("reference", "local", "file", "simplecache", "zip"):
        with pytest.raises(UsageError, match="never opened"):
            Access((name,))
    for name in ("", "c", "a::b", "a://"):
        with pytest.raises(UsageError, match="is not a protocol"):
            Access((name,))
    with pytest.raises(http_reader.UrlError) as caught:
        urls.read("ftp://example.org/x", Access(), 1.0)
    assert "--allow-protocol ftp" in caught.value.reason


def codes(tmp_path: Path, *lines: str, **more: Any) -> list[str]:
    """Return the codes of a list's entries; "" for those that are read."""
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    name = tmp_path / "lists" / "list"
    name.write_bytes(b"\0".join(os.fsencode(line) for line in lines))
    found = list(list_inputs(Inputs(files_from=(str(name),), null=True, **more), scratch))
    assert [entry.path for entry in found] == list(lines)
    return [entry.code for entry in found]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A list's folder with an image, beside a folder that is none of the list's business."""
    fill(tmp_path / "lists" / "in", 1)
    fill(tmp_path / "secret", 1)
    return tmp_path / "lists"


def test_paths_of_a_list_stay_in_its_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, secret = str(root / "in" / "000000.png"), str(tmp_path / "secret" / "000000.png")
    (root / "way").symlink_to(tmp_path / "secret")
    (root / "shown.png").symlink_to(secret)
    (root / "a.zip").symlink_to(secret)
    (root / "in.png!").mkdir()
    escapes = [
        *(secret, "/etc/hostname", "/dev/zero", f"{root}/in/../../secret/000000.png", f"{root}/way/000000.png"),
        *(f"{root}/way/", f"{root}/..", f"{root}/a.zip!/x", f"{root}/in.png!/../../secret/000000.png"),
        *("../secret/000000.png", f"{root}s/none.png"),
    ]
    monkeypatch.chdir(root)
    assert codes(tmp_path, *escapes) == ["outside_root"] * len(escapes)
    fine = ["in/000000.png", "gone.png", f"{root}/in/../in/../in/000000.png", str(root / "shown.png"), "a\nb"]
    assert codes(tmp_path, *fine) == [""] * len(fine)
    assert codes(tmp_path, inside, secret, root=str(tmp_path)) == ["", ""]
    assert codes(tmp_path, inside, secret, root="/") == ["", ""]
    assert codes(tmp_path, inside, secret, root=str(tmp_path / "secret")) == ["outside_root", ""]
    monkeypatch.chdir(tmp_path)
    assert codes(tmp_path, "secret/000000.png", "lists/in/000000.png") == ["outside_root", ""]


def test_what_lies_outside_the_root_is_not_read_and_its_row_says_what_to_do(root: Path, tmp_path: Path) -> None:
    secret = str(tmp_path / "secret" / "000000.png")
    (root / "shown.png").symlink_to(secret)
    (root / "list.csv").write_text(f"path\n{secret}\n{secret}.none\nfile://{secret}\n{root}/shown.png\n")
    rows = audited(Inputs(manifests=(str(root / "list.csv"),)), tmp_path / "out")
    assert [row.code for row in rows] == ["outside_root", "outside_root", "symlink"]  # file://X is X
    assert {row.sha256 for row in rows} == {None} and "--root" in (rows[0].reason or "")


def test_remote_lists_and_outputs_are_refused_by_name(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    KEY.save(key)
    for arguments in (["--files-from", "https://example.org/list"], ["--manifest", "s3://b/list.parquet"]):
        result = CliRunner().invoke(main, ["audit", *arguments, "--key", str(key), "--output", str(tmp_path / "out")])
        assert result.exit_code == 2 and "lists and manifests must be local files" in result.stderr
    asked = ["audit", str(tmp_path), "--key", str(key), "--output", "s3://bucket/out"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2 and "local folder" in result.stderr


def test_an_output_with_a_colon_in_its_name_is_written_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "in", 3)
    for name in ("out-2026-09-01T12:30", "s3:out"):
        rows = audited(Inputs(("in",)), Path(name), q_values=True)
        assert [row.status for row in rows] == ["ok"] * 3
        assert [row.path for row in audited(Inputs(("in",)), Path(name), q_values=True)] == [row.path for row in rows]
