"""What a decoder process runs: it sets its limits, then decodes one file after another."""

from __future__ import annotations

import json
import math
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from treering_verify.errors import ImageError, UsageError
from treering_verify.media.animations import Animation, Frame, distinct_frames
from treering_verify.media.images import MAX_BYTES, open_image
from treering_verify.media.isolation.child_process import limit_process, receive
from treering_verify.media.truncated.notes import KEYS
from treering_verify.media.videos import open_video

_GRACE = 5  # seconds beyond the limit after which the process ends itself, in case its parent is gone


def serve(connection: Connection, facts: list[Any]) -> None:
    """Answer requests until the connection ends; see `decoding.decode_frames`."""
    seconds, memory = facts
    limit_process(memory)
    connection.send_bytes(b'"ready"')
    while True:
        request = receive(connection)
        data = connection.recv_bytes(MAX_BYTES)
        signal.alarm(math.ceil(seconds) + _GRACE)
        try:
            answer, images = _decoded(request, data)
        except MemoryError:
            connection.send_bytes(b'{"code": "reader_memory"}')
            os._exit(0)
        except ImageError as error:
            if isinstance(error.__cause__, MemoryError):
                connection.send_bytes(b'{"code": "reader_memory"}')
                os._exit(0)
            answer, images = {"code": error.code, "reason": error.reason}, []
        except UsageError as error:
            answer, images = {"usage": str(error)}, []
        connection.send_bytes(json.dumps(answer).encode())
        for image in images:
            connection.send_bytes(image.tobytes())
        signal.alarm(0)


def _decoded(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Any]]:
    """Return the answer to a request, and the images that follow it."""
    if request["kind"] == "video":
        video = open_video(data, request["frames"], tuple(request["size"]))
        distinct = video.frames[: video.given]  # a short video repeats its last frame
        return {"given": video.given, "note": video.note, "size": list(video.size)}, distinct
    animation = distinct_frames(data) if request["kind"] == "frames" else None
    shown = (animation or Animation((Frame(1, open_image(data)),), 0)).frames
    sizes = [[one.number, *one.image.size, *(one.image.info.get(key) for key in KEYS)] for one in shown]
    return {"frames": sizes, "total": animation.total if animation else 0}, [one.image for one in shown]
