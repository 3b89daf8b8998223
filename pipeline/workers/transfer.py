"""Passing arrays between processes without copying them through a pipe.

Objects travel as pickle protocol 5. Array bytes beyond `INLINE` go out of band: into anonymous
memory (`memfd`) whose descriptor is passed over the socket and mapped by the receiver. The kernel
frees it with its last user, so a killed process leaves nothing behind, unlike named shared memory.
"""

from __future__ import annotations

import mmap
import os
import pickle
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

#: Bytes of array data from which shared memory beats a pipe.
INLINE = 1 << 17

_ALIGN = 64


def send(connection: Connection, value: object) -> None:
    """Send `value` over a duplex `Pipe()`."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [b.raw() for b in buffers]
    if sum(v.nbytes for v in views) < INLINE or not hasattr(os, "memfd_create"):
        connection.send_bytes(pickle.dumps((body, [bytes(v) for v in views], None), protocol=5))
        return
    spans, position = [], 0
    for view in views:
        spans.append((position, view.nbytes))
        position += -(-view.nbytes // _ALIGN) * _ALIGN
    descriptor = os.memfd_create("clip", os.MFD_CLOEXEC)
    try:
        os.truncate(descriptor, max(1, position))
        with mmap.mmap(descriptor, max(1, position)) as shared:
            for view, (low, size) in zip(views, spans, strict=True):
                shared[low : low + size] = view
        connection.send_bytes(pickle.dumps((body, None, (spans, position)), protocol=5))
        reduction.send_handle(connection, descriptor, None)
    finally:
        os.close(descriptor)


def receive(connection: Connection) -> Any:
    """Receive what `send` sent. Arrays are writable and private to the receiver.

    Raises:
        EOFError, OSError: the other side is gone.

    >>> import multiprocessing
    >>> ours, theirs = multiprocessing.Pipe()
    >>> send(ours, {"clip": "a", "rows": [1, 2]})
    >>> receive(theirs)
    {'clip': 'a', 'rows': [1, 2]}
    """
    body, parts, shared = pickle.loads(connection.recv_bytes())
    if shared is None:
        return pickle.loads(body, buffers=[bytearray(p) for p in parts])
    spans, size = shared
    descriptor = reduction.recv_handle(connection)
    try:
        mapped = mmap.mmap(descriptor, max(1, size), access=mmap.ACCESS_COPY)
    finally:
        os.close(descriptor)
    view = memoryview(mapped)
    return pickle.loads(body, buffers=[view[low : low + length] for low, length in spans])
