"""Find out fast whether the Hugging Face hub can be reached, without the retries of its client and without torch."""

from __future__ import annotations

import socket
from functools import lru_cache
from pathlib import Path
from time import monotonic

from treering_verify.errors import ModelError
from treering_verify.files import printable

_SECONDS = 5.0  # that the hub's host may take to accept a connection
_REMEMBERED = 60.0  # seconds for which an answer holds


def must_be_cached(name: str) -> bool:
    """Return whether a repository must be read from the cache, because the hub is offline or cannot be reached.

    Parameters
    ----------
    name : str
        Its hub id.

    Raises
    ------
    ModelError
        If the hub cannot be reached and the cache does not have the repository.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    elif not _reachable(constants.ENDPOINT, int(monotonic() / _REMEMBERED)):
        reason = f"{printable(constants.ENDPOINT)} cannot be reached"
    else:
        return False
    if not (Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir():
        raise ModelError(
            f"cannot fetch {printable(name)}: {reason}, and the cache does not have it; name a local folder or file, or "
            "check the connection (HF_HUB_OFFLINE=1 reads what was fetched before)"
        )
    return True


@lru_cache(maxsize=8)
def _reachable(endpoint: str, _: int) -> bool:
    """Return whether the host of an endpoint, or the proxy before it, accepts a connection."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    url = urlsplit(endpoint)
    proxy = getproxies().get(url.scheme)
    if proxy and url.hostname and not proxy_bypass(url.hostname):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        socket.create_connection((url.hostname or "", url.port or {"http": 80}.get(url.scheme, 443)), _SECONDS).close()
    except OSError:
        return False
    return True
