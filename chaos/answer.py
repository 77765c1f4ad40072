"""One HTTP answer, taken apart as its bytes come in."""

_HEAD_LIMIT = 65_536


class BadAnswer(Exception):
    """The bytes are no HTTP answer; to a browser that is a network error."""


class Answer:
    """The answer to one request (RFC 9112): status, headers, and the body without its framing.

    Attributes:
        status: 0 until the head is complete.
        headers: by lower-case name.
        ended: the body is complete, which a lost connection never makes it.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._raw = b""
        self._chunked = False
        # Bytes of the body or of the present chunk still to come; None: until the connection closes.
        self._left: int | None = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body that are in `data`.

        Raises:
            BadAnswer: no HTTP.
        """
        if not self.status:
            self._raw += data
            head, separator, rest = self._raw.partition(b"\r\n\r\n")
            if not separator:
                if len(self._raw) > _HEAD_LIMIT:
                    raise BadAnswer("no end of the head")
                return b""
            self._raw = b""
            self._read_head(head.decode("latin-1"))
            data = rest
        if self.ended:
            return b""
        return self._unchunk(data) if self._chunked else self._counted(data)

    def eof(self) -> None:
        """The connection was closed in order: that completes a body without a length."""
        if self.status and not self._chunked and self._left is None:
            self.ended = True

    def _read_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise BadAnswer(f"{first[:40]!r} is no status line")
        self.status = int(rest[:3])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        if self.status == 204:
            self._left = 0
        elif not self._chunked:
            self._left = None if length is None else int(length)
        self.ended = not self._chunked and self._left == 0

    def _counted(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        body = data[: self._left]
        self._left -= len(body)
        self.ended = self._left == 0
        return body

    def _unchunk(self, data: bytes) -> bytes:
        data = self._raw + data
        self._raw = b""
        parts: list[bytes] = []
        position = 0
        left = self._left or 0  # of a chunk, with the line end behind it
        while position < len(data):
            if left:
                portion = data[position : position + left]
                parts.append(portion[: max(0, left - 2)])
                position += len(portion)
                left -= len(portion)
                continue
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                self._raw = data[position:]
                break
            try:
                size = int(data[position:line_end].split(b";")[0], 16)
            except ValueError:
                raise BadAnswer(f"{data[position : position + 20]!r} is no size of a chunk") from None
            position = line_end + 2
            if size == 0:
                self.ended = True
                break
            left = size + 2
        self._left = left
        return b"".join(parts)
