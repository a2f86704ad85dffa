"""`osteofusion serve`: a bundle over HTTP, in one process that threads share."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import FrameType

from osteofusion.errors import ConfigError
from osteofusion.parser import Parser

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from osteofusion.serving.app import create_app
    from osteofusion.serving.limits import Settings
    from osteofusion.serving.problems import ProblemError
except ModuleNotFoundError as error:
    if (error.name or "").startswith("osteofusion"):
        raise
    raise ConfigError(
        f"osteofusion serve needs the package {error.name}: pip install 'osteofusion[serve]'."
    ) from None

from osteofusion.serving.predictor import load_predictor
from osteofusion.serving.report_texts import load_texts

KEY = "OSTEOFUSION_API_KEY"
_SHORTEST_KEY = 16
_MOST_CONNECTIONS = 512
_IDLE = 10  # seconds between requests on a connection, and for the head of one
_GRACE = 5  # seconds beyond the timeouts before a shutdown gives up on a request


def run(arguments: list[str]) -> int:
    """Serve a bundle until a signal ends it.

    Returns:
        0.

    Raises:
        OsteofusionError: an option is wrong, the bundle cannot be read, or the port is taken.
    """
    options = _parser().parse_args(arguments)
    for flag, value in (
        ("--max-upload-mb", options.max_upload_mb),
        ("--timeout", options.timeout),
        ("--threads", options.threads),
        ("--queue", options.queue + 1),
    ):
        if value < 1:
            raise ConfigError(f"{flag} is too small; give at least {int(flag != '--queue')}.")
    if not 0 <= options.port <= 65535:  # the system would wrap it around
        raise ConfigError(f"--port {options.port} is no port; give one from 0 to 65535.")
    settings = Settings(
        host=options.host,
        api_key=_api_key(options.api_key_file),
        max_upload=options.max_upload_mb << 20,
        timeout=options.timeout,
        queue=options.queue,
        threads=options.threads,
    )
    if settings.api_key is None and not settings.local:
        raise ConfigError(
            f"--host {settings.host} lets other machines in, which needs a key: give "
            f"--api-key-file, or set {KEY}."
        )
    with _bound(settings.host, options.port) as listener:
        predictor = load_predictor(options.bundle, os.cpu_count())
        app = create_app(predictor, settings, load_texts(options.recommendations))
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            log_config=None,
            log_level="critical",  # its errors quote requests; the application says what is ours
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=min(_IDLE, settings.timeout),
            timeout_graceful_shutdown=2 * settings.timeout + _GRACE,
        )
        with _only_own_messages():
            asyncio.run(_Server(config).serve(sockets=[listener]))
    return 0


def _parser() -> Parser:
    defaults = Settings()
    parser = Parser(
        prog="osteofusion serve",
        description="Predict from a bundle over HTTP, with a page for the browser at /. Uploads "
        "and results stay in memory. End it with Ctrl-C or SIGTERM: it finishes what it has "
        "accepted; a second signal ends it at once.",
    )
    parser.add_argument("bundle", type=Path, help="what `osteofusion export` made")
    parser.add_argument("--host", default=defaults.host, help="address; another needs a key")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help=f"holds what clients must send as X-API-Key; default: the variable {KEY}",
    )
    parser.add_argument(
        "--max-upload-mb", type=int, default=defaults.max_upload >> 20, help="of an image"
    )
    parser.add_argument(
        "--timeout",
        type=int,
        default=defaults.timeout,
        help="seconds for an upload, and again for its answer",
    )
    parser.add_argument(
        "--queue", type=int, default=defaults.queue, help="requests that may wait; more get 429"
    )
    parser.add_argument(
        "--threads", type=int, default=defaults.threads, help="requests worked on at once"
    )
    parser.add_argument(
        "--recommendations", type=Path, metavar="FILE.yaml", help="own texts of the report, by band"
    )
    return parser


def _api_key(file: Path | None) -> str | None:
    if file is None:
        key, where = os.environ.get(KEY), KEY
        if key is None:
            return None
    else:
        where = f"--api-key-file {file}"
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"{where} cannot be read; give a text file.") from None
    if len(key) < _SHORTEST_KEY or not all("!" <= sign <= "~" for sign in key):
        raise ConfigError(
            f"{where} holds no usable key; give at least {_SHORTEST_KEY} letters, digits and "
            "signs without spaces, such as `openssl rand -hex 16` prints."
        )
    return key


def _bound(host: str, port: int) -> socket.socket:
    """A socket that holds the address and does not listen yet.

    Raises:
        ConfigError: The address cannot be taken.
    """
    address = f"--host {host} --port {port}"
    listener = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except OSError as error:
        if listener is not None:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise _in_use(port) from None
        raise ConfigError(
            f"{address} cannot be used ({error}); give an address of this machine and a free port."
        ) from None
    return listener


def _in_use(port: int) -> ConfigError:
    return ConfigError(
        f"--port {port} is in use; stop what listens there or choose another, 0 for a free one."
    )


@contextmanager
def _only_own_messages() -> Iterator[None]:
    """Let nothing out on standard error but our own log: libraries quote what they read there."""
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    sys.stderr.flush()
    kept = os.dup(2)
    with open(kept, "w", encoding="utf-8") as stream, open(os.devnull, "wb") as nowhere:
        ours = logging.getLogger("osteofusion")
        ours.propagate = False
        handler = logging.StreamHandler(stream)
        ours.addHandler(handler)
        os.dup2(nowhere.fileno(), 2)  # libtiff and others write past Python
        try:
            yield
        finally:
            os.dup2(kept, 2)
            ours.removeHandler(handler)


class _Server(uvicorn.Server):
    """Says where it listens; ends with status 0 after a signal and at once after a second."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        try:
            await super().startup(sockets)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _in_use(port) from None
            raise
        shown = f"[{host}]" if ":" in host else host
        print(f"Serving at http://{shown}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.should_exit = True


class _Protocol(H11Protocol):
    """A connection that may not dawdle, and whose own errors are problem JSON too."""

    _dawdling: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > _MOST_CONNECTIONS:
            problem = ProblemError(
                503, "busy", "The service has too many connections; try again later."
            )
            self._end_with(problem)
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self._end_with(ProblemError(400, "malformed_request", "The request is no valid HTTP."))
        else:
            self.transport.close()

    def _watch(self) -> None:
        """Give the connection some seconds to send a whole head; uvicorn itself would wait on."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._dawdling is None:
            self._dawdling = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _unwatch(self) -> None:
        if self._dawdling is not None:
            self._dawdling.cancel()
            self._dawdling = None

    def _end_with(self, problem: ProblemError) -> None:
        answer = problem.response()
        head = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode()]
        head += [name + b": " + value for name, value in answer.raw_headers]
        head += [b"connection: close", b"", b""]
        self.transport.write(b"\r\n".join(head) + bytes(answer.body))
        self.transport.close()
