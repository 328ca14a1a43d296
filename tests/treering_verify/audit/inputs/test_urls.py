"""Audits of URLs: a real server of HTTP, whose images are there, gone, torn, or there the second time only."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.audits import audited, noisy_image, stored, summary

from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.audit.inputs.reading import read_url
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.inputs.urls import Access

SIZE = (128, 128)
PRIVATE = Access(allow_private=True)
LIMITS = Limits(readers=1, access=PRIVATE)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    noisy_image(seed).save(buffer, format="PNG")
    return buffer.getvalue()


@contextmanager
def served(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """Serve answers (status, body) by path; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_manifest_of_urls_has_a_row_for_each_and_what_was_out_of_order_is_tried_again(tmp_path: Path) -> None:
    answers = {
        "/a.png": (200, png(1)),
        "/later.png": (503, b"come back later"),
        "/text": (200, b"no image"),
        "/torn.png": (200, png(2)[:300]),
    }
    with served(answers) as address:
        names = ["/a.png", "/gone.png", "/later.png", "/text", "/torn.png"]
        (tmp_path / "list.csv").write_text("url\n" + "".join(f"{address}{name}\n" for name in names))
        inputs = Inputs(manifests=(str(tmp_path / "list.csv"),))
        rows = audited(inputs, tmp_path / "out", limits=LIMITS)
        assert [row.path for row in rows] == [address + name for name in names]
        assert [row.code for row in rows] == ["", "not_found", "url_not_readable", "not_an_image", "cut_short"]
        assert "503" in rows[2].reason
        answers["/later.png"] = (200, png(3))
        again = audited(inputs, tmp_path / "out", retry_errors=True, limits=LIMITS)
    assert [row.code for row in again] == ["", "not_found", "", "not_an_image", "cut_short"]
    assert again[0] == rows[0] and again[2].status == "ok" and again[2].sha256 != rows[0].sha256
    assert stored(tmp_path / "out") == again and summary(tmp_path / "out")["status"]["ok"] == 2


def test_what_is_not_there_is_told_from_what_cannot_be_reached() -> None:
    with served({"/forbidden": (403, b""), "/gone": (410, b"")}) as address:
        assert read_url(f"{address}/gone", SIZE, PRIVATE).code == "not_found"
        assert read_url(f"{address}/never", SIZE, PRIVATE).code == "not_found"
        found = read_url(f"{address}/forbidden", SIZE, PRIVATE)
        assert found.code == "url_not_readable" and "403" in found.reason
    refused = read_url(f"{address}/gone", SIZE, PRIVATE)  # the server is down
    assert refused.code == "url_not_readable" and "ConnectionRefusedError" in refused.reason


def test_a_missing_library_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import known_implementations

    monkeypatch.setitem(
        known_implementations, "cloud", {"class": "not_installed.Cloud", "err": "install not_installed"}
    )
    found = read_url("cloud://bucket/a.png", SIZE, Access(("cloud",)))
    assert (found.status, found.code) == ("error", "url_needs_library")
    assert "install it" in found.reason and "--retry-errors" in found.reason
    assert "install not_installed" in found.reason
