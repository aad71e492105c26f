"""What is not answered, in the shape of OpenAI's errors, which its client turns into exceptions."""

from collections.abc import Awaitable, Callable

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

RETRY_SECONDS = "1"


class ApiError(Exception):
    """Becomes an answer with OpenAI's error body."""

    def __init__(
        self, status: int, message: str, kind: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = {"Retry-After": RETRY_SECONDS} if status in (429, 503) else {}


def bad(message: str, param: str | None = None) -> ApiError:
    """The request itself cannot be answered."""
    return ApiError(400, message, "invalid_request_error", None, param)


def stopped() -> ApiError:
    """The server ends, or its engine made an error in the middle of it."""
    said = "the answer was not finished: the server is stopping, or its log says what went wrong"
    return ApiError(503, said, "server_error", "stopping")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, error.headers)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return await _api_error(request, bad(f"{where or 'body'}: {first['msg']}", where or None))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    made = ApiError(error.status_code, str(error.detail), "invalid_request_error")
    made.headers |= dict(error.headers or {})
    return await _api_error(request, made)


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    ApiError: _api_error,
    RequestValidationError: _not_valid,
    HTTPException: _http_error,
}
