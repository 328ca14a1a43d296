"""Read a URL of http or https, without reaching what is not public.

A name in a URL can lead to this machine, to the local network or to a cloud's metadata service, directly, by DNS or by a
redirect. So every connection, of every redirect too, goes to an address that was checked after the name was resolved. A
proxy would resolve the name itself; none is used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from treering_verify.errors import ImageError
from treering_verify.media.images import MAX_BYTES
from treering_verify.version import __version__

MAX_REDIRECTS = 5
_GONE = (404, 410)
_REDIRECTS = (301, 302, 303, 307, 308)
_BLOCK = 1 << 16
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# One sentence for a name that is private and for one that there is not: rows must not tell what a private network holds.
_NOT_PUBLIC = (
    "it leads to a host without a public address, or there is no such host; if you trust the list: --allow-private"
)


class UrlError(ImageError):
    """A URL cannot or must not be read; `code` is one of `reading.FAILED` or `images.CODES`, `reason` the detail."""


def read(url: str, allow_private: bool, seconds: float) -> bytes:
    """Return the body of the answer, at most `MAX_BYTES` + 1 bytes; redirects are followed.

    Parameters
    ----------
    url : str
    allow_private : bool
        Connect to addresses that are not public too.
    seconds : float
        Time for everything.

    Raises
    ------
    UrlError
        url_refused, url_not_readable, not_found or too_large_file.
    """
    deadline = time.monotonic() + seconds
    try:
        for _ in range(MAX_REDIRECTS + 1):
            body, url = _read_once(url, allow_private, deadline)
            if body is not None:
                return body
    except UrlError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no URL, or no name of a host
        raise UrlError("url_not_readable", f"{type(error).__name__}: {error}") from error
    raise UrlError("url_not_readable", f"it redirects more than {MAX_REDIRECTS} times")


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet, also if it is an IPv4 address within an IPv6 one."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        if found.ipv4_mapped:
            return is_public(str(found.ipv4_mapped))
        if found.sixtofour or found not in _GLOBAL_UNICAST:
            return False
    return found.is_global and not found.is_multicast


def _read_once(url: str, allow_private: bool, deadline: float) -> tuple[bytes | None, str]:
    """Return the body of a URL's answer, or None and the URL that it redirects to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UrlError("url_refused", "it redirects to another protocol than http and https, or names no host")
    if parts.username or parts.password:
        raise UrlError("url_refused", "it contains a name or password, which would appear in the rows")
    connection = _Connection(parts, allow_private, deadline)
    try:
        target = quote(parts.path or "/", safe="/%:=@!$&'()*+,;~") + (
            f"?{quote(parts.query, safe='/%:=@!$&()*+,;~?')}" if parts.query else ""
        )
        connection.request("GET", target, headers=_HEADERS)
        answer = connection.getresponse()
        place = answer.getheader("Location")
        if answer.status in _REDIRECTS and place:
            return None, urljoin(url, place)
        if answer.status in _GONE:
            raise UrlError("not_found", f"HTTP status {answer.status}")
        if answer.status != http.client.OK:
            raise UrlError("url_not_readable", f"HTTP status {answer.status}")
        return connection.body(answer), url
    finally:
        connection.close()


_HEADERS = {
    "User-Agent": f"treering-verify/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was checked."""

    def __init__(self, parts: SplitResult, allow_private: bool, deadline: float) -> None:
        name = (parts.hostname or "").rstrip(".")
        self._name = name if ":" in name else name.encode("idna").decode("ascii")
        self._tls = parts.scheme == "https"
        self._allow_private, self._deadline = allow_private, deadline
        super().__init__(self._name, parts.port or (443 if self._tls else 80))
        self.default_port = 443 if self._tls else 80  # another one stands in the header Host

    def connect(self) -> None:
        """Resolve the name, and connect to the first of its public addresses that answers."""
        plain = _connected(self._name, self.port, self._allow_private, self._deadline)
        self.sock = self._socket = plain
        if self._tls:
            self.sock = self._socket = ssl.create_default_context().wrap_socket(plain, server_hostname=self._name)

    def body(self, answer: http.client.HTTPResponse) -> bytes:
        """Return the body of an answer, up to the limits of size and time."""
        if (answer.length or 0) > MAX_BYTES:
            raise UrlError("too_large_file", "")
        data = bytearray()
        # Python 3.14 closes the answer, and the socket, with its last byte; others with the read after it.
        while len(data) <= MAX_BYTES and not answer.isclosed():
            self._socket.settimeout(_remaining(self._deadline))
            block = answer.read1(_BLOCK)
            if not block:
                if answer.length:
                    raise http.client.IncompleteRead(b"", answer.length)
                break
            data += block
        return bytes(data[: MAX_BYTES + 1])


def _connected(name: str, port: int, allow_private: bool, deadline: float) -> socket.socket:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        if allow_private:
            raise UrlError("url_not_readable", f"{type(error).__name__}: {error}") from error
        raise UrlError("url_refused", _NOT_PUBLIC) from error
    addresses = [(family, address) for family, _, _, _, address in found if allow_private or is_public(str(address[0]))]
    if not addresses:
        raise UrlError("url_refused", _NOT_PUBLIC)
    last: OSError | None = None
    for family, address in addresses:
        connecting = socket.socket(family, socket.SOCK_STREAM)
        try:
            connecting.settimeout(_remaining(deadline))
            connecting.connect(address)
            return connecting
        except OSError as problem:
            connecting.close()
            last = problem
    assert last is not None
    raise last


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the time limit")
    return remaining
