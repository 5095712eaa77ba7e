"""Chunked request bodies, read in time proportional to their length. Skip it on a first reading."""

from __future__ import annotations

import re
from typing import Any

from waitress.receiver import ChunkedReceiver
from waitress.utilities import BadRequest

MOST_FRAMING = 32 * 1024  # bytes of chunk sizes, extensions and trailers in one body
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?")  # RFC 9112 section 7.1


class Chunks(ChunkedReceiver):
    """waitress's receiver of chunks, with a limit on bytes that are not data.

    Whenever a piece arrives, waitress searches an unfinished line from its start again, and copies
    the rest of the piece for each chunk in it. A client that never ends a line, or sends one byte
    per chunk, would keep the only thread that reads from connections busy.
    """

    completed: bool
    control_line: bytes
    all_chunks_received: bool
    validate_chunk_end: bool
    error: Any

    def __init__(self, buf: Any) -> None:
        super().__init__(buf)
        self._framing = 0

    def received(self, data: bytes) -> int:
        """Take a piece from the connection; return how many of its bytes belong to this body."""
        at, found = 0, []
        while at < len(data) and not self.completed and not self.error:
            if self.chunk_remainder:
                found.append(data[at : at + self.chunk_remainder])
                self.chunk_remainder -= len(found[-1])
                at += len(found[-1])
            else:
                at = self._take_line(data, at)
        if found:
            self.buf.append(b"".join(found))
        return len(data) if self.error else at

    def _take_line(self, data: bytes, at: int) -> int:
        """Take a line, or the part of it that has arrived; return where it ends."""
        end = data.find(b"\n", at) + 1 or len(data)
        self.control_line += data[at:end]
        self._framing += end - at
        if self._framing > MOST_FRAMING:
            self.error = BadRequest("Too many bytes of chunk sizes, extensions and trailers")
        elif self.control_line.endswith(b"\n"):
            line, self.control_line = self.control_line, b""
            self._read_line(line)
        return end

    def _read_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            self.error = BadRequest("A line does not end with CR LF")
        elif self.all_chunks_received:
            self.completed = line == b"\r\n"  # trailers are dropped
        elif self.validate_chunk_end:
            self.validate_chunk_end = False
            if line != b"\r\n":
                self.error = BadRequest("Chunk not properly terminated")
        elif size := _SIZE.fullmatch(line, 0, len(line) - 2):
            self.chunk_remainder = int(size[1], 16)
            self.validate_chunk_end = self.chunk_remainder > 0
            self.all_chunks_received = not self.validate_chunk_end
        else:
            self.error = BadRequest("Invalid chunk size or extension")
