"""URLs of an audit: which may be opened, and their bytes.

A list is data from anybody, so a URL may do little. Its protocol is one of `PROTOCOLS` or one that the user added. It is
never a chain of file systems (`a::b://c`), and never one of `NEVER`, which read local files or other URLs. `http_reader`
reads http and https, fsspec all else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from treering_verify.audit.inputs import http_reader
from treering_verify.audit.inputs.http_reader import UrlError
from treering_verify.errors import UsageError
from treering_verify.media.images import MAX_BYTES

PROTOCOLS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "https", "http")
"""Protocols that are opened without being allowed by name."""

NEVER = (
    *("file", "local", "asynclocal", "async_wrapper", "cached", "blockcache", "filecache", "simplecache", "generic"),
    *("dir", "dirfs", "reference", "lazy", "zip", "tar", "libarchive", "git", "arrow_hdfs", "data", "root"),
)
"""Protocols that nothing allows: they read local files, or other URLs than the one that is seen."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+")


def is_url(text: str) -> bool:
    """Return whether a text is a URL and not a local path; with `./` before it it is a path. `file:` URLs are paths."""
    return _URL.match(text) is not None


@dataclass(frozen=True)
class Access:
    """What URLs may reach.

    Attributes
    ----------
    allow_protocols : tuple of str
        Protocols of fsspec that may be opened besides `PROTOCOLS`.
    allow_private : bool
        URLs of http and https may lead to addresses that are not public: this machine, the local network.

    Raises
    ------
    UsageError
        If a protocol is no name of one, or one of `NEVER`.
    """

    allow_protocols: tuple[str, ...] = ()
    allow_private: bool = False

    def __post_init__(self) -> None:
        for name in self.allow_protocols:
            if _PROTOCOL.fullmatch(name) is None:
                raise UsageError(f"{name!r} is not a protocol: give the part of a URL before ://, such as ftp")
            if name in NEVER:
                raise UsageError(f"the protocol {name} is never opened from a URL: name local files by their paths")


def read(url: str, access: Access, seconds: float) -> bytes:
    """Return the bytes that a URL stands for, at most `MAX_BYTES` + 1 of them.

    Parameters
    ----------
    url : str
    access : Access
    seconds : float
        Time for connecting and reading by http and https.

    Raises
    ------
    UrlError
        url_refused, url_needs_library, url_not_readable, not_found, or too_large_file.
    """
    protocol, _, rest = url.partition("://")
    protocol = protocol.lower()
    if "::" in protocol or (protocol not in ("http", "https") and "::" in rest):
        raise UrlError("url_refused", "it is a chain of file systems: name the file itself")
    if protocol in NEVER or protocol not in {*PROTOCOLS, *access.allow_protocols}:
        advice = "" if protocol in NEVER else f"; if you trust the list: --allow-protocol {protocol}"
        raise UrlError("url_refused", f"only these protocols are opened: {', '.join(PROTOCOLS)}{advice}")
    if protocol in ("http", "https"):
        return http_reader.read(url, access.allow_private, seconds)
    return _read_by_fsspec(f"{protocol}://{rest}")


def _read_by_fsspec(url: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            return bytes(file.read(MAX_BYTES + 1))
    except FileNotFoundError as error:
        raise UrlError("not_found", "") from error
    except MemoryError:
        raise
    except ImportError as error:
        raise UrlError("url_needs_library", str(error)) from error
    except Exception as error:  # each file system has exceptions of its own
        raise UrlError("url_not_readable", f"{type(error).__name__}: {error}") from error
