"""The two parts of a request for a prediction, read into memory and never onto the disk."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any, NoReturn

from anyio import fail_after
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from osteofusion.serving.limits import Settings
from osteofusion.serving.problems import ProblemError

_VALUES_BYTES = 32 << 10
_HEADER_BYTES = 4 << 10  # of one part
_OVERHEAD = 64 << 10  # of a request beside the image
_PARTS = ("image", "values")


@dataclass
class Upload:
    """What was sent of a patient.

    Attributes:
        image: A whole file; None if none was sent.
        image_name: What the client calls it.
        values: Clinical value by name.
    """

    image: bytes | None = None
    image_name: str = ""
    values: dict[str, object] = field(default_factory=dict)


async def read_upload(request: Request, settings: Settings) -> Upload:
    """Read a multipart request as it comes in.

    Raises:
        ProblemError: It is too large or too slow, of another type, malformed, or holds other parts.
    """
    form = _Form(_boundary(request), settings.max_upload)
    limit = settings.max_upload + _OVERHEAD
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        _too_large("image", settings.max_upload)
    seen = 0
    try:
        with fail_after(settings.timeout):
            async for chunk in request.stream():
                seen += len(chunk)
                if seen > limit:
                    _too_large("image", settings.max_upload)
                form.feed(chunk)
    except TimeoutError:
        raise ProblemError(
            408,
            "slow_upload",
            f"The upload took longer than {settings.timeout} seconds; send it again.",
            headers={"Connection": "close"},
        ) from None
    return form.upload()


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise ProblemError(
            415,
            "wrong_content_type",
            "Send multipart/form-data with the parts image (a file) and values (a JSON object).",
            field="Content-Type",
        )
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProblemError(
            415,
            "wrong_content_encoding",
            "Send the request without a content encoding.",
            field="Content-Encoding",
        )
    boundary = options.get(b"boundary", b"")
    if not boundary:
        _malformed("its Content-Type names no boundary")
    return boundary


class _Form:
    """Takes a multipart body apart as it comes in."""

    def __init__(self, boundary: bytes, max_image: int) -> None:
        self._limits = {"image": max_image, "values": _VALUES_BYTES}
        self._parts: dict[str, io.BytesIO] = {}
        self._image_name = ""
        self._part = ""
        self._key, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._named,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            _malformed("its boundary cannot be used")

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            _malformed("its parts cannot be told apart")

    def upload(self) -> Upload:
        """What the parts say, once all has come in."""
        if not self._ended:
            _malformed("it ends before its last boundary")
        image = self._parts.get("image")
        values = self._parts.get("values")
        return Upload(
            image=image.getvalue() if image is not None else None,
            image_name=self._image_name,
            values=parse_values(values.getvalue()) if values is not None else {},
        )

    def _begin(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]
        self._bound_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bound_header()

    def _bound_header(self) -> None:
        if len(self._key) + len(self._value) > _HEADER_BYTES or len(self._headers) > 8:
            _malformed("the header of a part is too long")

    def _header_end(self) -> None:
        self._headers[bytes(self._key).lower()] = bytes(self._value)
        self._key, self._value = bytearray(), bytearray()

    def _named(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        part = options.get(b"name", b"").decode("latin-1")
        if part not in _PARTS:
            raise ProblemError(
                422,
                "unknown_part",
                "The request has a part that the service does not read; it reads image and values.",
            )
        if part in self._parts:
            raise ProblemError(
                422, "duplicate_part", f"The part {part} was sent twice; send it once.", field=part
            )
        if part == "image":
            self._image_name = options.get(b"filename", b"").decode("latin-1")
        self._part = part
        self._parts[part] = io.BytesIO()

    def _data(self, data: bytes, start: int, end: int) -> None:
        held = self._parts[self._part]
        if held.tell() + end - start > self._limits[self._part]:
            _too_large(self._part, self._limits[self._part])
        held.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def parse_values(text: bytes) -> dict[str, object]:
    """Clinical values of a JSON object: names once each, single values, numbers that are finite.

    Raises:
        ProblemError: It is something else.
    """
    try:
        values = json.loads(
            text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_not_a_number
        )
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):  # no UTF-8, no JSON, too deep, or too many digits
        raise ProblemError(
            400, "invalid_json", "The part values is not valid JSON.", field="values"
        ) from None
    if not isinstance(values, dict):
        raise ProblemError(
            422,
            "not_an_object",
            'The part values must be a JSON object of clinical values, such as {"age": 61}.',
            field="values",
        )
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ProblemError(
            422,
            "duplicate_value",
            "The part values names a clinical value twice; give each once.",
            field="values",
        )
    return found


def _not_a_number(_: str) -> NoReturn:
    raise ProblemError(
        400,
        "invalid_json",
        "The part values holds NaN or Infinity, which JSON does not have; leave out what is "
        "missing.",
        field="values",
    )


def _too_large(part: str, limit: int) -> NoReturn:
    size = f"{limit / 2**20:g} MB" if limit >= 2**20 else f"{limit / 2**10:g} KB"
    raise ProblemError(
        413, "too_large", f"The part {part} is larger than {size}; send a smaller one.", field=part
    )


def _malformed(reason: str) -> NoReturn:
    raise ProblemError(
        400, "malformed_multipart", f"The request cannot be read: {reason}."
    ) from None
