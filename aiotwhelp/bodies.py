"""Request bodies that may have to be sent more than once.

aiohttp closes an open file after each request, and sends what is left of a stream without a
word: a second attempt would arrive with half a body, or none. Measured with aiohttp 3.14.5.
"""

from __future__ import annotations

import copy
import io
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
from aiohttp import payload

_PLAIN = (type(None), bytes, bytearray, memoryview, str, int, float)


class Body:
    """What a caller passed as ``data``; asked for once per attempt."""

    __slots__ = ("_data", "_files", "_starts")

    def __init__(self, data: Any) -> None:
        # A ready form makes its parts once, and can be asked no second time.
        self._data = data() if isinstance(data, aiohttp.FormData) else data
        self._files: dict[int, _KeptFile] = {}
        #: In-memory files, which aiohttp leaves open, and where they stood.
        self._starts: list[tuple[io.IOBase, int]] = []
        for each in _parts(self._data):
            if isinstance(each, (io.BytesIO, io.StringIO)):
                self._starts.append((each, each.tell()))
            elif _is_seekable(each):
                self._files[id(each)] = _KeptFile(each)

    def data(self) -> Any:
        """Return what to hand to aiohttp for the next attempt, from its beginning."""
        for file, start in self._starts:
            if not file.closed:
                file.seek(start)
        if isinstance(self._data, aiohttp.MultipartWriter):
            return self._ready_form(self._data)
        if not self._files:
            return self._data
        if isinstance(self._data, io.IOBase):
            return self._view(self._data)
        return [(name, self._view(value)) for name, value in _pairs(self._data)]

    @property
    def can_be_sent_again(self) -> bool:
        """Whether a body that was sent, or partly, can be sent once more and whole."""
        return all(id(each) in self._files or _is_replayable(each) for each in _parts(self._data))

    def close(self) -> None:
        """Close open files at the end of the call, as aiohttp does."""
        for kept in self._files.values():
            kept.file.close()

    def _view(self, value: Any) -> Any:
        kept = self._files.get(id(value))
        return value if kept is None else _View(kept)

    def _ready_form(self, form: aiohttp.MultipartWriter) -> aiohttp.MultipartWriter:
        """Return the same form, whose files are read by this attempt alone.

        One that was sent counts as used up, so that aiohttp takes it along on no redirect.
        """
        again = aiohttp.MultipartWriter(_subtype(form), boundary=form.boundary)
        again.headers.update(form.headers)
        for part, *_ in form:
            if isinstance(part, aiohttp.MultipartWriter):
                again.append_payload(self._ready_form(part))
                continue
            one = copy.copy(part)
            if isinstance(one, payload.IOBasePayload):
                one._value = self._view(one._value)  # noqa: SLF001 - aiohttp has no other way in
            again.append_payload(one)
        return again


class _KeptFile:
    """A file that stays open between attempts."""

    __slots__ = ("file", "lock", "start")

    def __init__(self, file: Any) -> None:
        self.file = file
        self.start: int = file.tell()
        self.lock = threading.Lock()


class _View(io.IOBase):
    """One attempt's reading of a file, at a position of its own.

    The thread of an attempt that was broken off may still be reading when the next one begins.
    """

    def __init__(self, kept: _KeptFile) -> None:
        self._kept = kept
        self._at = kept.start
        name = getattr(kept.file, "name", None)
        if isinstance(name, str):
            self.name = name

    def read(self, size: int = -1) -> bytes:
        with self._kept.lock:
            self._kept.file.seek(self._at)
            data: bytes = self._kept.file.read(size)
        self._at += len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            with self._kept.lock:
                offset = self._kept.file.seek(offset, whence)
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def fileno(self) -> int:
        return int(self._kept.file.fileno())

    def close(self) -> None:
        """Leave the file open: the call closes it when no attempt is left."""


def _parts(data: Any) -> Iterable[Any]:
    """Return the values of a form, or the body itself."""
    if isinstance(data, aiohttp.MultipartWriter):
        return [_value(part) for part, *_ in data]
    return [value for _, value in _pairs(data)] if _is_form(data) else [data]


def _value(part: payload.Payload) -> Any:
    """Return the file that a part of a ready form is read from, or the part itself."""
    return part._value if isinstance(part, payload.IOBasePayload) else part  # noqa: SLF001


def _subtype(form: aiohttp.MultipartWriter) -> str:
    return form.content_type.partition(";")[0].partition("/")[2]


def _is_form(data: Any) -> bool:
    if isinstance(data, Mapping):
        return True
    return isinstance(data, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in data
    )


def _pairs(data: Any) -> Iterable[tuple[Any, Any]]:
    return data.items() if isinstance(data, Mapping) else data


def _is_seekable(data: Any) -> bool:
    return isinstance(data, io.IOBase) and not isinstance(data, io.TextIOBase) and data.seekable()


def _is_replayable(data: Any) -> bool:
    if isinstance(data, aiohttp.MultipartWriter):
        return all(_is_replayable(part) for part, *_ in data)
    if isinstance(data, (io.BytesIO, io.StringIO)):
        return not data.closed
    return isinstance(data, (*_PLAIN, payload.BytesPayload, payload.BytesIOPayload))
