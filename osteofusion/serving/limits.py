"""What the service lets in: who may ask, from where, how many at once and for how long."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from anyio import fail_after
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from osteofusion.serving.problems import ProblemError, unexpected

_Result = TypeVar("_Result")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE = ("/", "/static/")  # nothing of a patient, and a browser cannot send a key for it
_PROBES = ("/health", "/ready")
BUSY = {"Retry-After": "1"}


@dataclass(frozen=True)
class Settings:
    """How a service is run.

    Attributes:
        host: Address to bind.
        api_key: What every request must carry; None if nothing.
        max_upload: Bytes of an image.
        timeout: Seconds that an upload may take, and again those of its answer.
        queue: Requests that wait while all threads are busy; more are refused.
        threads: That decode and predict.
    """

    host: str = "127.0.0.1"
    api_key: str | None = None
    max_upload: int = 64 << 20
    timeout: int = 30
    queue: int = 32
    threads: int = os.cpu_count() or 1

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means the machine itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """Refuses what must not reach the application, and lets no error out but as problem JSON.

    Without a key the service answers to the machine's own names alone: a page of another site
    whose name is re-bound to 127.0.0.1 (DNS rebinding) comes with that name. With a key it answers
    to any name, since such a page has no key. What another site makes a browser send is refused
    either way: a multipart form needs no preflight.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = False

        async def protected(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(Headers(scope=scope), scope["path"])
            await self._app(scope, receive, protected)
        except ClientDisconnect:
            pass  # nobody is left to be told
        except ProblemError as problem:
            await problem.response()(scope, receive, protected)
        except Exception as error:
            ours = unexpected(error)
            if not started:
                await ours.response()(scope, receive, protected)

    def _check(self, headers: Headers, path: str) -> None:
        host = headers.get("host", "")
        if self._settings.api_key is None and not _names_this_machine(host):
            raise ProblemError(
                421,
                "wrong_host",
                "This service has no API key and so answers to the names of its own machine alone, "
                "such as 127.0.0.1 or localhost.",
            )
        if path == _PAGE[0] or path.startswith(_PAGE[1]):
            return
        if _from_elsewhere(headers, host):
            raise ProblemError(
                403, "cross_site", "Pages of other sites may not use this service; open its own."
            )
        if path not in _PROBES:
            self._check_key(headers.get("x-api-key"))

    def _check_key(self, given: str | None) -> None:
        wanted = self._settings.api_key
        if wanted is None:
            return
        challenge = {"WWW-Authenticate": "ApiKey"}
        if given is None:
            raise ProblemError(
                401, "no_key", "Send the API key in the header X-API-Key.", headers=challenge
            )
        if not hmac.compare_digest(given.encode("latin-1"), wanted.encode("latin-1")):
            raise ProblemError(
                401,
                "wrong_key",
                "The API key in the header X-API-Key is not this service's.",
                headers=challenge,
            )


def _names_this_machine(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _from_elsewhere(headers: Headers, host: str) -> bool:
    """Whether a browser says that a page of another origin asks."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")  # older browsers, and pages without TLS
    return origin is not None and origin.partition("://")[2].lower() != host.lower()


class Workers:
    """Threads that share the model, with a bounded queue before them.

    Args:
        settings: Number of threads, length of the queue, seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._pool = ThreadPoolExecutor(settings.threads, "predict")
        self._room = settings.threads + settings.queue
        self._timeout = settings.timeout
        self._accepted = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, from before the upload is read: it bounds memory as well.

        Raises:
            ProblemError: 429: the queue is full.
        """
        self.require_room()
        self._accepted += 1
        try:
            yield
        finally:
            self._accepted -= 1

    def require_room(self) -> None:
        """Refuse while the queue is full.

        Raises:
            ProblemError: 429.
        """
        if self._accepted >= self._room:
            raise ProblemError(
                429,
                "busy",
                "The service has as many requests as it takes; try again in a second.",
                headers=BUSY,
            )

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """A block that may take no longer than the timeout; what has not begun by then never does.

        Raises:
            ProblemError: 503: it took longer.
        """
        try:
            with fail_after(self._timeout):
                yield
        except TimeoutError:
            raise ProblemError(
                503,
                "timeout",
                f"The answer took longer than {self._timeout} seconds; try again later.",
                headers=BUSY,
            ) from None

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """What `work` returns, done in one of the threads."""
        return await asyncio.wrap_future(self._pool.submit(work))

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
