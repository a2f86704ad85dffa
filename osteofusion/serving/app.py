"""The HTTP interface of a bundle: predictions, explanations and reports, kept for minutes only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray
from starlette.responses import FileResponse, JSONResponse, Response

from osteofusion.explain.overlay import overlay
from osteofusion.serving.interface import (
    BUSY,
    EVERYWHERE,
    FOLLOWED,
    RESULT,
    UPLOAD,
    Alive,
    Answer,
    Reasons,
    ServiceSchema,
    file_answer,
    openapi,
    request_body,
)
from osteofusion.serving.limits import Guard, Settings, Workers
from osteofusion.serving.patient_report import patient_report_bytes
from osteofusion.serving.prediction import Explanation
from osteofusion.serving.predictor import Predictor
from osteofusion.serving.problems import ProblemError, register
from osteofusion.serving.report_texts import ReportTexts
from osteofusion.serving.results import SECONDS, Result, Results
from osteofusion.serving.uploads import Upload, read_upload

PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Service:
    """What the endpoints share.

    Attributes:
        predictor: Of the bundle.
        settings: How it is run.
        workers: Threads and their queue.
        results: Recent answers.
        texts: Recommendations of the report.
    """

    predictor: Predictor
    settings: Settings
    workers: Workers
    results: Results
    texts: ReportTexts

    async def predict(self, request: Request, explain: bool) -> JSONResponse:
        """Answer an upload and keep the answer."""
        with self.workers.place():
            upload = await read_upload(request, self.settings)
            with self.workers.in_time():
                result = await self.workers.run(partial(self._answer, upload, explain))
        name = self.results.add(result)
        here = f"/v1/results/{name}"
        map_shown = result.patient.radiograph is not None and self.has_overlay
        links = {
            "overlay": f"{here}/overlay.png" if map_shown else None,
            "explanation": f"{here}/explanation",
            "report": f"{here}/report.pdf",
        }
        reasons = None if result.explanation is None else _reasons(result.explanation)
        content = result.prediction.to_dict()
        return JSONResponse({**content, "id": name, "links": links, "explanation": reasons})

    def _answer(self, upload: Upload, explain: bool) -> Result:
        patient = self.predictor.read(upload.image, upload.values, image_name=upload.image_name)
        prediction = self.predictor.predict(patient)
        explanation = self.predictor.explain(patient) if explain else None
        return Result(patient, prediction, explanation)

    async def overlay(self, name: str, colormap: str, opacity: float, method: str) -> Response:
        """Saliency of a kept answer over its radiograph."""
        result, explanation = await self._explained(name)
        patient, square = result.patient, self.predictor.preprocessing
        if patient.radiograph is None or square is None or method not in explanation.saliency:
            raise ProblemError(
                404, "no_overlay", "This result rests on no radiograph, or its model has no map."
            )
        draw = partial(
            overlay,
            patient.radiograph,
            explanation.saliency[method],
            square,
            colormap=colormap,
            opacity=opacity,
            spacing=patient.spacing,
        )
        with self.workers.place(), self.workers.in_time():
            picture = await self.workers.run(lambda: _png(draw()))
        return Response(picture, media_type="image/png")

    async def explanation(self, name: str) -> JSONResponse:
        """Why a kept answer is what it is."""
        _, explanation = await self._explained(name)
        return JSONResponse(_reasons(explanation))

    async def report(self, name: str) -> Response:
        """A kept answer as PDF."""
        result, explanation = await self._explained(name)
        write = partial(
            patient_report_bytes,
            result.prediction,
            explanation,
            self.predictor.description,
            reference=None,
            texts=self.texts,
            created=result.created,
        )
        with self.workers.place(), self.workers.in_time():
            document = await self.workers.run(write)
        disposition = 'attachment; filename="osteofusion-report.pdf"'
        headers = {"Content-Disposition": disposition}
        return Response(document, media_type="application/pdf", headers=headers)

    async def _explained(self, name: str) -> tuple[Result, Explanation]:
        result = self.results.get(name)
        with self.workers.place(), self.workers.in_time():
            async with result.lock:
                if result.explanation is None:
                    explain = partial(self.predictor.explain, result.patient)
                    result.explanation = await self.workers.run(explain)
        return result, result.explanation

    @property
    def has_overlay(self) -> bool:
        """Whether the bundle can show where it looked."""
        description = self.predictor.description
        return description.preprocessing is not None and description.saliency_note is None

    def schema(self) -> ServiceSchema:
        """What the model reads and how it decides."""
        d = self.predictor.description
        return ServiceSchema(
            model=d.identity,
            task=d.task,
            classes=d.classes,
            positive=d.positive,
            arm=d.arm,
            regions=d.regions,
            features=d.features,
            operating_points=d.operating_points,
            triage=d.triage,
            decision_note=d.decision_note,
            cohort_prevalence=d.cohort_prevalence,
            intended_use=d.intended_use,
            training=d.training,
            synthetic=bool(d.training.synthetic_what),
            overlay=self.has_overlay,
            max_upload_bytes=self.settings.max_upload,
            result_seconds=SECONDS,
        )


def create_app(predictor: Predictor, settings: Settings, texts: ReportTexts) -> FastAPI:
    """The service of one bundle.

    Args:
        predictor: Of the bundle; threads share it.
        settings: How it is run.
        texts: Recommendations of the report.
    """
    service = Service(predictor, settings, Workers(settings), Results(), texts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.workers.close()
        service.results.clear()

    app = FastAPI(
        title="osteofusion",
        version=predictor.description.version,
        description=predictor.description.intended_use,
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        # Addresses name results; none of them leaves this process.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_middleware(Guard, settings=settings)
    register(app)
    _add_predictions(app, service)
    _add_facts(app, service)
    app.mount("/static", StaticFiles(directory=PAGE))
    app.openapi = partial(openapi, app, settings.api_key is not None)  # type: ignore[method-assign]
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    body = {"requestBody": request_body(service.predictor.description)}
    both = {**EVERYWHERE, **BUSY}

    @app.post(
        "/v1/predict",
        operation_id="predict",
        summary="Risk of one patient",
        response_model=Answer,
        responses={**both, **UPLOAD, **FOLLOWED},
        openapi_extra=body,
    )
    async def predict(request: Request, explain: bool = False) -> Response:
        """Answer for a radiograph, clinical values, or both."""
        return await service.predict(request, explain)

    @app.get(
        "/v1/results/{result_id}/overlay.png",
        operation_id="get_overlay",
        summary="Where the model looked",
        response_class=Response,
        responses={**both, **RESULT, 200: file_answer("image/png", "The radiograph, coloured.")},
    )
    async def get_overlay(
        result_id: str,
        colormap: Literal["jet", "hot", "viridis"] = "jet",
        opacity: Annotated[float, Query(ge=0, le=1)] = 0.4,
        method: Literal["gradcam", "hirescam"] = "gradcam",
    ) -> Response:
        """The contrast-enhanced radiograph with the saliency map over it."""
        return await service.overlay(result_id, colormap, opacity, method)

    @app.get(
        "/v1/results/{result_id}/explanation",
        operation_id="get_explanation",
        summary="What moved the answer",
        response_model=Reasons,
        responses={**both, **RESULT},
    )
    async def get_explanation(result_id: str) -> Response:
        """Effect of each clinical value and of each modality."""
        return await service.explanation(result_id)

    @app.get(
        "/v1/results/{result_id}/report.pdf",
        operation_id="get_report",
        summary="Patient report",
        response_class=Response,
        responses={**both, **RESULT, 200: file_answer("application/pdf", "The report.")},
    )
    async def get_report(result_id: str) -> Response:
        """The answer as a PDF for the patient's record."""
        return await service.report(result_id)


def _add_facts(app: FastAPI, service: Service) -> None:
    schema = service.schema()

    @app.get(
        "/v1/schema",
        operation_id="get_schema",
        summary="What the model reads and how it decides",
        responses=EVERYWHERE,
    )
    async def get_schema() -> ServiceSchema:
        """Clinical values, classes, thresholds, limits and origin of the model."""
        return schema

    probe: dict[int | str, dict[str, Any]] = {code: EVERYWHERE[code] for code in (403, 421)}

    @app.get("/health", operation_id="health", summary="Whether it runs", responses=probe)
    async def health() -> Alive:
        """Answers whenever the process does; needs no key."""
        return Alive("ok")

    @app.get(
        "/ready",
        operation_id="ready",
        summary="Whether it has room",
        responses={**probe, 429: BUSY[429]},
    )
    async def ready() -> Alive:
        """Whether a prediction would be accepted now; needs no key."""
        service.workers.require_room()
        return Alive("ready")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")


def _reasons(explanation: Explanation) -> dict[str, Any]:
    found = [vars(item) for item in explanation.attributions]
    return {"attributions": found, "modalities": explanation.modalities}


def _png(picture: NDArray[np.uint8]) -> bytes:
    """Encode (H, W, 3) RGB, fast rather than small: it crosses a local network once."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
