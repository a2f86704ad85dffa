"""What the running service answers, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image
from service_process import refused, serving

from osteofusion.explain.overlay import overlay
from osteofusion.serving.limits import Guard, Settings, Workers
from osteofusion.serving.problems import ProblemError
from osteofusion.serving.results import Result, Results

KEY = "a-key-of-the-clinic-1"
SECRET = "Erika-Mustermann"
VALUES = {"age": 71.5, "weight": 55, "height": 1.58, "smoker": "yes"}


def png(seed: int = 0, size: tuple[int, int] = (120, 90)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, size[::-1], dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def huge_png(side: int = 40_000) -> bytes:
    """A PNG that claims a size and has no pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def two_frames() -> bytes:
    frame = Image.new("L", (64, 64))
    return encoded(frame, "TIFF", save_all=True, append_images=[frame])


def form(image: bytes | None = None, values: object = None, name: str = "film.png") -> dict:
    """Arguments of a multipart request."""
    parts: list = []
    if image is not None:
        parts.append(("image", (name, image)))
    if values is not None:
        text = values if isinstance(values, (str, bytes)) else json.dumps(values)
        parts.append(("values", (None, text, "application/json")))
    return {"files": parts}


@pytest.fixture(scope="module")
def server(bundle_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with serving(bundle_folder, folder, "--max-upload-mb", "1") as running:
        yield running
        # Whatever the tests of this file sent, nothing of it was logged or written.
        assert running.log.read_text() == ""
        assert running.written() == []


@pytest.fixture
def client(server):
    with server.client() as found:
        yield found


@pytest.mark.parametrize(
    ("image", "values"), [(png(1), VALUES), (png(1), None), (None, VALUES), (png(1), {"age": None})]
)
def test_the_answer_is_the_predictors(client, predictor, image, values):
    said = client.post("/v1/predict", **form(image, values)).raise_for_status().json()
    patient = predictor.read(image, values or {})
    expected = json.loads(json.dumps(predictor.predict(patient).to_dict()))
    assert {name: said[name] for name in expected} == expected
    assert said["explanation"] is None
    assert (said["links"]["overlay"] is None) == (image is None)


def test_explanation_overlay_and_report(client, predictor):
    image = png(2)
    answer = client.post("/v1/predict?explain=true", **form(image, VALUES)).json()
    patient = predictor.read(image, VALUES)
    why = predictor.explain(patient)
    assert answer["explanation"]["modalities"] == why.modalities
    assert [item["name"] for item in answer["explanation"]["attributions"]] == [
        item.name for item in why.attributions
    ]
    links = answer["links"]
    assert client.get(links["explanation"]).json() == answer["explanation"]
    for method, colormap, opacity in (("gradcam", "jet", 0.4), ("hirescam", "viridis", 1)):
        options = {"method": method, "colormap": colormap, "opacity": opacity}
        picture = client.get(links["overlay"], params=options)
        assert picture.headers["content-type"] == "image/png"
        drawn = overlay(
            patient.radiograph,
            why.saliency[method],
            predictor.preprocessing,
            colormap=colormap,
            opacity=opacity,
        )
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(picture.content))), drawn)
    report = client.get(links["report"])
    assert report.headers["content-type"] == "application/pdf"
    assert report.content.startswith(b"%PDF-")
    assert report.headers["cache-control"] == "no-store"
    values_alone = client.post("/v1/predict", **form(None, VALUES)).json()
    assert client.get(values_alone["links"]["report"]).content.startswith(b"%PDF-")
    refused(client.get(f"/v1/results/{values_alone['id']}/overlay.png"), 404, "no_overlay")


def test_an_explanation_is_the_same_later(client):
    answer = client.post("/v1/predict", **form(png(3), VALUES)).json()
    first, second = (client.get(answer["links"]["explanation"]).json() for _ in range(2))
    assert first == second
    assert first["attributions"]


def test_dicom_age_and_sex_stand_in(client, server):
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom and its test files")
    data = pydicom.data.get_testdata_file("RG3_UNCR.dcm", read=True)
    data.PatientAge, data.PatientSex, data.PatientName = "061Y", "F", SECRET
    out = io.BytesIO()
    data.Rows, data.PixelData = 64, data.PixelData[: 64 * data.Columns * 2]
    data.save_as(out)
    response = client.post("/v1/predict", **form(out.getvalue(), {"weight": 60}, "film"))
    said = {value["name"]: value for value in response.raise_for_status().json()["values"]}
    assert (said["age"]["value"], said["age"]["source"]) == (61, "dicom")
    assert (said["female"]["value"], said["female"]["source"]) == (1, "dicom")
    assert (said["weight"]["value"], said["weight"]["source"]) == (60, "form")
    assert SECRET not in response.text


BAD_IMAGES = [
    (b"", "empty"),
    (b"not a picture " + SECRET.encode(), "not_an_image"),
    (png()[:-900], "damaged"),
    (huge_png(), "too_large"),
    (two_frames(), "several_frames"),
]


@pytest.mark.parametrize(("image", "code"), BAD_IMAGES)
def test_an_image_that_cannot_be_used(client, image, code):
    response = client.post("/v1/predict", **form(image, VALUES, f"{SECRET}.png"))
    refused(response, 422, code, "image")
    assert SECRET not in response.text


DEEP = "[" * 20_000 + "]" * 20_000
BAD_VALUES = [
    ({"heigth": 1.6}, 422, "unknown_value", "heigth"),
    ({"age": SECRET}, 422, "not_a_number", "age"),
    ({"age": 400}, 422, "out_of_range", "age"),
    ({"weight": -3}, 422, "out_of_range", "weight"),
    ({"height": 158}, 422, "suspected_unit", "height"),
    ({"age": [61]}, 422, "not_a_value", "age"),
    ('{"age": 1e999}', 422, "not_finite", "age"),
    ('{"age": 1' + "0" * 400 + "}", 422, "not_a_number", "age"),
    ("{}", 422, "no_modality", "image"),
    ('{"age": 61', 400, "invalid_json", "values"),
    ('{"age": NaN}', 400, "invalid_json", "values"),
    ('{"age": -Infinity}', 400, "invalid_json", "values"),
    (b'{"occupation": "\xff"}', 400, "invalid_json", "values"),
    (r'{"occupation": "\ud800"}', 400, "invalid_json", "values"),
    ('{"age": 1' + "0" * 5000 + "}", 400, "invalid_json", "values"),
    ('{"age": ' + DEEP[:9_000] + "}", 400, "invalid_json", "values"),
    ('{"age": 61, "age": 62}', 422, "duplicate_value", "values"),
    ('["age", 61]', 422, "not_an_object", "values"),
    ('"age"', 422, "not_an_object", "values"),
    ('{"age": "' + "6" * 40_000 + '"}', 413, "too_large", "values"),
]


@pytest.mark.parametrize(("values", "status", "code", "field"), BAD_VALUES)
def test_values_that_cannot_be_used(client, values, status, code, field):
    response = client.post("/v1/predict", **form(None, values))
    refused(response, status, code, field)
    assert SECRET not in response.text


def test_deep_json_is_refused(client):
    for values in (DEEP[:30_000], '{"a":' * 6000):
        refused(client.post("/v1/predict", **form(None, values)), 400, "invalid_json", "values")


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="values"\r\n\r\n{}\r\n'
BAD_REQUESTS = [
    ({"json": VALUES}, 415, "wrong_content_type", "Content-Type"),
    ({"content": b""}, 415, "wrong_content_type", "Content-Type"),
    ({"data": {"values": "{}"}}, 415, "wrong_content_type", "Content-Type"),
    (
        {"content": PART, "headers": {**MULTIPART, "Content-Encoding": "gzip"}},
        415,
        "wrong_content_encoding",
        "Content-Encoding",
    ),
    (
        {"content": PART, "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "malformed_multipart",
        None,
    ),
    ({"content": b"nothing", "headers": MULTIPART}, 400, "malformed_multipart", None),
    ({"content": PART, "headers": MULTIPART}, 400, "malformed_multipart", None),
    ({"content": PART + PART, "headers": MULTIPART}, 422, "duplicate_part", "values"),
    (
        {"content": PART.replace(b"values", b"x" * 9000), "headers": MULTIPART},
        400,
        "malformed_multipart",
        None,
    ),
    ({"files": {SECRET: b"x"}}, 422, "unknown_part", None),
    ({"files": [("image", png()), ("image", png())]}, 422, "duplicate_part", "image"),
    ({"files": {"image": bytes(2 << 20)}}, 413, "too_large", "image"),
]


@pytest.mark.parametrize(("request_", "status", "code", "field"), BAD_REQUESTS)
def test_requests_that_cannot_be_read(client, request_, status, code, field):
    response = client.post("/v1/predict", **request_)
    refused(response, status, code, field)
    assert SECRET not in response.text
    assert client.get("/health").status_code == 200  # over the same connection


def test_the_upload_limit_holds_without_a_declared_length(client):
    def chunks():
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(1 << 16)

    response = client.post("/v1/predict", content=chunks(), headers=MULTIPART)
    refused(response, 413, "too_large", "image")


def test_addresses_methods_and_parameters(client):
    refused(client.get(f"/{SECRET}"), 404, "not_found")
    refused(client.get("/static/nothing.js"), 404, "not_found")
    refused(client.get("/static/../app.py"), 404, "not_found")
    refused(client.get("/static/%2e%2e/app.py"), 404, "not_found")
    response = client.get("/v1/predict")
    refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    refused(client.delete("/v1/schema"), 405, "method_not_allowed")
    refused(client.get("/v1/results/none/report.pdf"), 404, "unknown_result", "result_id")
    refused(client.post("/v1/predict?explain=7"), 422, "invalid_parameter", "explain")
    answer = client.post("/v1/predict", **form(png())).json()
    for name, value in (("opacity", "2"), ("opacity", "nan"), ("colormap", SECRET)):
        response = client.get(answer["links"]["overlay"], params={name: value})
        refused(response, 422, "invalid_parameter", name)
        assert SECRET not in response.text


def test_the_schema_says_what_the_bundle_says(client, predictor, server):
    said = client.get("/v1/schema").json()
    description = json.loads(predictor.description.model_dump_json())
    for name in ("features", "classes", "operating_points", "triage", "cohort_prevalence"):
        assert said[name] == description[name]
    assert said["model"] == predictor.description.identity
    assert said["max_upload_bytes"] == 1 << 20
    assert said["synthetic"]
    assert client.get("/ready").json() == {"status": "ready"}


def test_openapi_describes_the_form_and_every_refusal(client):
    described = client.get("/openapi.json").json()
    post = described["paths"]["/v1/predict"]["post"]
    form_ = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form_["properties"]["values"]["properties"]["age"]["anyOf"][0]["maximum"] > 90
    assert set(form_["properties"]["values"]["example"]) > {"age", "weight"}
    example = form_["properties"]["values"]["example"]
    assert client.post("/v1/predict", **form(None, example)).status_code == 200
    for status in ("400", "401", "403", "408", "413", "415", "421", "422", "429", "503"):
        schema = post["responses"][status]["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ProblemDetails"}
    names = [o["operationId"] for path in described["paths"].values() for o in path.values()]
    assert len(set(names)) == len(names) == 7


def test_page_and_headers(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/static/page.js").status_code == 200
    for response in (page, client.get("/v1/schema"), client.get("/nowhere")):
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in response.headers
        assert "server" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
    ],
)
def test_other_sites_get_nothing(client, headers):
    for response in (
        client.post("/v1/predict", headers=headers, **form(None, VALUES)),
        client.get("/v1/schema", headers=headers),
    ):
        refused(response, 403, "cross_site")
    assert client.get("/", headers=headers).status_code == 200


def test_its_own_page_may_ask(client, server):
    for headers in (
        {"Origin": server.url},
        {"Origin": "https://clinic.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        assert client.get("/v1/schema", headers=headers).status_code == 200


def test_a_name_bound_to_this_machine_by_somebody_else_is_refused(client, server):
    for path in ("/", "/v1/schema", "/health"):
        for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", "["):
            refused(client.get(path, headers={"Host": host}), 421, "wrong_host")
    for host in ("localhost", f"LOCALHOST:{server.port}", "[::1]:80", "127.0.0.1"):
        assert client.get("/health", headers={"Host": host}).status_code == 200


def test_sixteen_clients_get_their_own_answers(server, predictor):
    ages = [40 + i for i in range(16)]
    expected = [predictor.predict(predictor.read(png(age), {"age": age})).risk for age in ages]
    assert len(set(expected)) == 16

    def ask(age: int) -> float:
        with server.client() as client:
            return client.post("/v1/predict", **form(png(age), {"age": age})).json()["risk"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, ages)) == expected


def test_a_key_opens_what_is_of_patients(bundle_folder, tmp_path):
    options = ("--host", "0.0.0.0")
    with serving(bundle_folder, tmp_path, *options, OSTEOFUSION_API_KEY=KEY) as server:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
            protected = [
                ("POST", "/v1/predict"),
                ("GET", "/v1/schema"),
                ("GET", "/openapi.json"),
                ("GET", "/v1/results/x/report.pdf"),
                ("GET", "/v1/results/x/overlay.png"),
                ("GET", "/v1/results/x/explanation"),
                ("GET", "/nowhere"),
            ]
            for method, path in protected:
                response = client.request(method, path)
                refused(response, 401, "no_key")
                assert response.headers["www-authenticate"]
                for wrong in ("", KEY[:-1], KEY + "x", "Ä" * 9):
                    given = {"X-API-Key": wrong.encode("latin-1")}
                    refused(client.request(method, path, headers=given), 401, "wrong_key")
            for path in ("/", "/static/page.js", "/health", "/ready"):
                assert client.get(path).status_code == 200
            key = {"X-API-Key": KEY, "Host": "clinic.example"}
            assert client.get("/v1/schema", headers=key).status_code == 200
            answer = client.post("/v1/predict", headers=key, **form(png(), VALUES)).json()
            assert client.get(answer["links"]["explanation"], headers=key).status_code == 200
            refused(client.get(answer["links"]["explanation"]), 401, "no_key")
            described = client.get("/openapi.json", headers=key).json()
            assert described["security"] == [{"key": []}]
        assert server.log.read_text() == ""


def test_results_are_forgotten(predictor):
    patient = predictor.read(png(), {})
    prediction = predictor.predict(patient)

    async def check() -> None:
        results = Results(seconds=0.05)
        name = results.add(Result(patient, prediction))
        assert results.get(name).prediction == prediction
        await asyncio.sleep(0.2)
        assert len(results) == 0
        with pytest.raises(ProblemError, match="no such result"):
            results.get(name)

        few = Results(most=3)
        names = [few.add(Result(patient, prediction)) for _ in range(5)]
        assert len(set(names)) == 5
        assert len(few) == 3
        few.get(names[-1])
        with pytest.raises(ProblemError):
            few.get(names[1])

        size = Result(patient, prediction).size
        assert size == 120 * 90 + 4 * patient.image.size
        small = Results(most_bytes=2 * size)
        for _ in range(5):
            small.add(Result(patient, prediction))
        assert len(small) == 2
        small.clear()
        assert len(small) == 0

    asyncio.run(check())


def test_work_that_takes_too_long_is_refused_and_what_waits_never_begins():
    import time

    async def check() -> list[object]:
        workers = Workers(Settings(threads=1, timeout=1, queue=1))
        begun = []

        async def ask(name: int) -> object:
            try:
                with workers.place(), workers.in_time():
                    await workers.run(lambda: (begun.append(name), time.sleep(1.5)))
            except ProblemError as problem:
                return problem.status, problem.code
            return None

        found = await asyncio.gather(*(ask(name) for name in range(3)))
        workers.close()
        assert begun == [0]
        return found

    assert asyncio.run(check()) == [(503, "timeout"), (503, "timeout"), (429, "busy")]


def test_an_error_of_ours_says_nothing_of_the_patient(caplog):
    async def broken(scope, receive, send):
        raise ValueError(f"{SECRET} is 61")

    transport = httpx.ASGITransport(Guard(broken, Settings()))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/v1/schema")

    response = asyncio.run(ask())
    refused(response, 500, "unexpected")
    assert "ValueError" in caplog.text
    assert "test_service.py" in caplog.text
    assert SECRET not in response.text + caplog.text


def test_settings_know_where_they_let_in():
    local = ("127.0.0.1", "127.8.8.8", "::1", "localhost", "LocalHost")
    assert all(Settings(host=host).local for host in local)
    assert not any(Settings(host=host).local for host in ("0.0.0.0", "::", "10.0.0.1", "clinic"))
    assert Settings().threads == (os.cpu_count() or 1)
