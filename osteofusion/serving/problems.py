"""Every refusal of the service as problem JSON (RFC 9457), without anything of the patient."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from osteofusion.serving.errors import InputError

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger(__name__)
_DETAILS = {
    404: "There is nothing at this address; the service describes itself at /openapi.json.",
    405: "This address does not take that method; the Allow header names those that it takes.",
}


class ProblemError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        code: Short name of the reason, for programs.
        detail: One sentence without anything of the patient.
        field: What of the request it is about.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.headers = headers

    def response(self) -> ProblemResponse:
        """The answer that says it."""
        content = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "field": self.field,
            "code": self.code,
        }
        return ProblemResponse(content, self.status, self.headers)


class ProblemResponse(JSONResponse):
    """An answer of the media type of problem JSON."""

    media_type = MEDIA_TYPE


class ProblemDetails(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="about:blank: the title is that of the status.")
    title: str
    status: int
    detail: str = Field(description="One sentence: what is wrong and what to do.")
    field: str | None = Field(description="Clinical value, part or parameter that it is about.")
    code: str = Field(description="Short name of the reason, for programs.")


def described(**examples: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses; `examples` has what leads to a status, by its name such as ``s422``."""
    return {
        int(name[1:]): {
            "description": why,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for name, why in examples.items()
    }


def unexpected(error: BaseException) -> ProblemError:
    """Log an error that is ours by its kind and place alone: its message may quote the input."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    _log.error("Unexpected %s at %s", type(error).__name__, where)
    return ProblemError(
        500,
        "unexpected",
        "Something went wrong in the service, and its log says where; whoever runs it can report "
        "that.",
    )


def register(app: FastAPI) -> None:
    """Let the application answer every error as problem JSON."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(InputError, _input)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _parameter)


def _problem(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ProblemError)
    return error.response()


def _input(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, InputError)
    return ProblemError(422, error.code, str(error), field=error.field).response()


def _http(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = _DETAILS.get(error.status_code, f"{status.phrase}.")
    code = status.name.lower()
    return ProblemError(error.status_code, code, detail, headers=error.headers).response()


def _parameter(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    detail = f"The parameter {name} cannot be used: {first['msg']}."
    return ProblemError(422, "invalid_parameter", detail, field=name).response()
