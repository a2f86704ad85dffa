"""Answers are kept in memory for a few minutes, so that overlay and report can be fetched."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timezone

from osteofusion.serving.prediction import Explanation, Prediction
from osteofusion.serving.predictor import Patient
from osteofusion.serving.problems import ProblemError

SECONDS = 600
MOST = 100
MOST_BYTES = 256 << 20


@dataclass
class Result:
    """An answer and what it rests on.

    Attributes:
        patient: What was given.
        prediction: What was answered.
        explanation: Why; None until somebody asks.
        created: When it was given.
        lock: Held while the explanation is made, so that it is made once.
    """

    patient: Patient
    prediction: Prediction
    explanation: Explanation | None = None
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def size(self) -> int:
        """Bytes that its pictures take."""
        pictures = (self.patient.image, self.patient.radiograph)
        return sum(picture.nbytes for picture in pictures if picture is not None)


class Results:
    """Recent answers under random names; the oldest make room. Used from the event loop alone.

    Args:
        seconds: After which an answer is forgotten.
        most: Answers that are kept.
        most_bytes: That their pictures may take together.
    """

    def __init__(
        self, seconds: float = SECONDS, most: int = MOST, most_bytes: int = MOST_BYTES
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[Result, asyncio.TimerHandle]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, result: Result) -> str:
        """Keep an answer; the name that it is found under."""
        name = secrets.token_urlsafe(24)
        timer = asyncio.get_running_loop().call_later(self._seconds, self._forget, name)
        self._kept[name] = (result, timer)
        self._bytes += result.size
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self._forget(next(iter(self._kept)))
        return name

    def get(self, name: str) -> Result:
        """The answer of that name.

        Raises:
            ProblemError: 404: there is none, or no longer.
        """
        try:
            return self._kept[name][0]
        except KeyError:
            raise ProblemError(
                404,
                "unknown_result",
                f"There is no such result: the service keeps one for {self._seconds / 60:g} "
                "minutes at most and fewer when it is busy; predict again.",
                field="result_id",
            ) from None

    def clear(self) -> None:
        """Forget everything."""
        for name in list(self._kept):
            self._forget(name)

    def _forget(self, name: str) -> None:
        result, timer = self._kept.pop(name)
        timer.cancel()
        self._bytes -= result.size
