"""Quotes that open a cell of a CSV file and swallow the rows after it.

A parser takes line breaks within quotes as text, as it should. In a file whose quotes are text, of
titles say, a cell that begins with one then holds all rows up to the next quote, or to the end of
the file, and nothing says so.
"""

import re
from typing import Any

from onerec.datasets.file_problems import OpenQuoteError, shown

_BLANKS = re.compile(rb"[ \t]*")


class WithClosedQuotes:
    """A stream of bytes that ends in an error where a quote swallows rows.

    That is a cell over several lines after whose closing quote the cell goes on, or that is not
    closed at all.
    """

    closed = False

    def __init__(
        self, stream: Any, quote: str, delimiter: str, escape: str | None, longest: int
    ) -> None:
        """Look through a stream.

        Args:
            stream: Bytes in an encoding that writes these characters as ASCII does.
            quote: Around cells.
            delimiter: Between cells.
            escape: Before a quote within a cell.
            longest: Bytes that a row may have.
        """
        q, d = (re.escape(c.encode()) for c in (quote, delimiter))
        e = re.escape(escape.encode()) if escape else b""
        escaped = b"|" + e + b"." if e else b""
        doubled = b"" if escape == quote else b"|" + q + q
        one_line = b"(?:[^" + q + e + rb"\r\n]++" + doubled + escaped + b")*+"
        lines = b"(?:[^" + q + e + b"]++" + doubled + escaped + b")*+"
        within = b"(?<=[^" + d + rb"\r\n])" + q
        ended = q + one_line + q + b"(?=.)|" + q + lines + q + b"(?=[ \t]*[" + d + rb"\r\n])"
        self._stream, self._quote, self._has_escape = stream, quote.encode(), escape is not None
        self._fitting = re.compile(
            b"(?:[^" + q + e + b"]++|" + within + b"|" + ended + escaped + b")*+", re.DOTALL
        )
        self._cell = re.compile(q + lines, re.DOTALL)
        self._left, self._lines, self._longest = b"", 0, longest

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the stream, which are looked through.

        Raises:
            OpenQuoteError: They show that a quote swallows rows.
        """
        block = self._stream.read(size)
        if block or self._left:
            is_last = not block or len(self._left) > self._longest
            self._look_through(self._left + (block or b"\n"), is_last=is_last)
        return block

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Left to the owner of the stream."""

    def _look_through(self, text: bytes, *, is_last: bool) -> None:
        found = self._fitting.match(text) if self._quote in text else None
        done = len(text) if found is None else found.end()
        opened = self._cell.match(text, done)
        if opened is not None:  # it may go on in the next block, or stand at the very end
            after = _BLANKS.match(text, min(opened.end() + 1, len(text)))
            is_complete = is_last or (after is not None and after.end() < len(text))
            if is_complete and re.search(rb"[\r\n].*\S", opened[0], re.DOTALL):
                raise OpenQuoteError(self._about(text[:done], opened[0]))
        # what is kept begins with a character that tells whether a quote after it opens a cell
        if opened is None and done == len(text):
            done = max(len(text.rstrip(self._quote)) - 1, 0)
        self._lines += text.count(b"\n", 0, done)
        self._left = b"" if is_last else text[done:]

    def _about(self, before: bytes, cell: bytes) -> str:
        number = self._lines + before.count(b"\n") + 1
        swallowed = cell.rstrip(b"\r\n").count(b"\n") or cell.count(b"\r")
        quote, start = self._quote.decode(), cell[:400].decode(errors="replace")
        remedy = (
            "If quotes are text in this file, set quote: ''; else write it again, with each quote "
            "within a cell doubled"
        )
        if cell.endswith(b"\\") and not self._has_escape:
            remedy = "A backslash escapes its quotes: set escape: '\\'"
        return (
            f"line {number}: a quote {quote} opens a cell and does not end it, so that the next "
            f"{swallowed:,} line(s) would be its text: {shown(start)!r}. {remedy}"
        )
