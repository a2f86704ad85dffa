"""The page in a real browser against the real server process."""

from __future__ import annotations

import base64
import io
import re
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from osteofusion.serving.prediction import at_prevalence

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
from page_visit import (  # noqa: E402
    CHROMIUM,
    FLAGS,
    SENT,
    Visit,
    asked,
    estimate,
    expect,
    explained,
    fill,
    overflow,
    serving,
    tab_to,
)

if not CHROMIUM.exists():
    pytest.skip("needs Debian's Chromium at /usr/bin/chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def url(bundle_folder):
    with serving(bundle_folder) as (_, where):
        yield where


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def visit(browser, url):
    made = Visit(browser)
    yield made
    made.context.close()
    assert made.complaints == []
    away = [to for to in made.requests if not to.startswith((url, f"blob:{url}", "data:"))]
    assert away == []


@pytest.fixture
def page(visit, url):
    return visit.open(url)


@pytest.fixture(scope="module")
def film(clinic_run) -> Path:
    return min((clinic_run / "demo").rglob("*.jpg"))


def test_from_radiograph_and_form_to_risk_map_and_report(page, url, film, tmp_path):
    page.set_input_files("#image", film)
    expect(page.locator("#preview")).to_be_visible()
    expect(page.locator("#file-name")).to_have_text(film.name)
    fill(page)
    risk = estimate(page)
    answer = asked(url, film, SENT)
    assert risk == pytest.approx(answer["risk"], abs=1e-6)
    assert page.locator("#class").inner_text() == answer["label"].replace("low_bmd", "low BMD")
    assert (page.locator("#band").count() == 1) == (answer["band"] is not None)
    shown = re.search(r"\d+", page.locator("#risk").inner_text())
    assert int(shown.group()) == pytest.approx(100 * risk, abs=0.51)
    expect(page.locator(".chips")).to_contain_text("Radiograph: used")
    expect(page.locator(".chips")).to_contain_text("Clinical values: 5 of")
    assert page.locator(".flags li").all_inner_texts() == [f["message"] for f in answer["flags"]]
    expect(page.locator("#announce")).to_contain_text("Risk of low bone density")
    expect(page.locator("#result-title")).to_be_focused()

    explained(page)
    why = httpx.get(f"{url}/v1/results/{answer['id']}/explanation").json()
    assert page.locator("#attributions .effects li").count() == len(why["attributions"]) == 5
    assert page.locator("#modalities .effects li").count() == 2

    with page.expect_download() as waiting:
        page.click("#report")
    saved = tmp_path / "report.pdf"
    waiting.value.save_as(saved)
    content = saved.read_bytes()
    assert content.startswith(b"%PDF")
    assert re.search(rb"/Type\s*/Page\b", content)


def test_a_film_can_be_dropped_replaced_by_paste_and_removed(page, film):
    session = page.context.new_cdp_session(page)
    box = page.locator("#drop").bounding_box()
    data = {"items": [], "files": [str(film)], "dragOperationsMask": 1}
    for step in ("dragEnter", "dragOver", "drop"):
        where = {"x": box["x"] + 20, "y": box["y"] + 20}
        session.send("Input.dispatchDragEvent", {"type": step, "data": data, **where})
    expect(page.locator("#file-name")).to_have_text(film.name)
    expect(page.locator("#preview")).to_be_visible()

    page.evaluate(
        """(encoded) => {
          const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([bytes], "pasted.dcm"));
          dispatchEvent(new ClipboardEvent("paste", { clipboardData, cancelable: true }));
        }""",
        base64.b64encode(film.read_bytes()).decode(),
    )
    expect(page.locator("#file-name")).to_have_text("pasted.dcm")
    expect(page.locator("#preview")).to_be_hidden()  # a browser cannot show DICOM

    page.click("#remove")
    expect(page.locator("#chosen")).to_be_hidden()
    expect(page.locator("#image")).to_be_focused()


def test_colours_method_and_opacity_change_the_picture(visit, page, url, film):
    page.set_input_files("#image", film)
    estimate(page)
    expect(page.locator(".stage")).to_have_attribute("aria-busy", "false")
    stage, seen = page.locator(".stage"), []

    def look() -> None:
        expect(stage).to_have_attribute("aria-busy", "false")
        page.wait_for_timeout(100)  # the picture is decoded after its address is set
        seen.append(stage.screenshot())

    look()
    for choice in ("colormap-hot", "colormap-viridis"):
        page.locator(f"label[for={choice}]").click()
        look()
    page.fill("#opacity", "90")
    look()
    page.locator("label[for=method-none]").click()
    look()
    assert len(set(seen)) == len(seen)
    expect(page.locator("#opacity")).to_be_disabled()
    expect(page.locator("#overlay")).to_be_hidden()
    for method, name in (("hirescam", "HiResCAM"), ("gradcam", "Grad-CAM")):
        page.locator(f"label[for=method-{method}]").click()
        alt = re.compile(f"{name} map in VIRIDIS")
        expect(page.locator("#overlay")).to_have_attribute("alt", alt)
    assert any("method=hirescam" in to for to in visit.requests)

    # The page blends two pictures of the service; the service blends the same way.
    link = asked(url, film, {})["links"]["overlay"]

    def picture(opacity: float) -> np.ndarray:
        answer = httpx.get(f"{url}{link}", params={"opacity": opacity, "colormap": "hot"})
        return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), np.float64)

    blended = 0.6 * picture(0) + 0.4 * picture(1)
    assert np.abs(blended - picture(0.4)).max() <= 2


def test_prevalence_moves_the_risk_by_bayes_rule(page, url):
    fill(page)
    risk = estimate(page)
    cohort = httpx.get(f"{url}/v1/schema").json()["cohort_prevalence"]
    adjusted = page.locator("#adjusted")
    assert float(adjusted.get_attribute("value")) == pytest.approx(risk)
    for percent in (5, 40):
        page.fill("#prevalence", str(percent))
        wanted = at_prevalence(risk, cohort, percent / 100)
        assert float(adjusted.get_attribute("value")) == pytest.approx(wanted)
        expect(page.locator("#adjusted-plain")).to_contain_text(f"Where {percent} in 100")
    expect(page.locator(".prevalence")).to_contain_text("That is not your clinic")
    expect(page.locator("#chosen-on")).to_contain_text("% low BMD)")


def test_everything_works_with_the_keyboard_alone(page, film):
    page.on("filechooser", lambda chooser: chooser.set_files(film))
    tab_to(page, "image")
    assert "solid" in page.locator("#drop label").evaluate("node => getComputedStyle(node).outline")
    page.keyboard.press("Enter")
    expect(page.locator("#file-name")).to_have_text(film.name)
    tab_to(page, "f-age")
    page.keyboard.type("71.5")
    tab_to(page, "female-")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#female-1")).to_be_checked()
    tab_to(page, "estimate")
    page.keyboard.press("Enter")
    expect(page.locator("#result-title")).to_be_focused()
    explained(page)
    tab_to(page, "prevalence")
    before = page.locator("#adjusted").get_attribute("value")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#adjusted").get_attribute("value") != before
    tab_to(page, "colormap-jet")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#overlay")).to_have_attribute("alt", re.compile("HOT"))
    tab_to(page, "report")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert waiting.value.suggested_filename.endswith(".pdf")


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_nothing_runs_off_the_side(browser, url, film, width):
    visit = Visit(browser, viewport={"width": width, "height": 700}, has_touch=True)
    page = visit.open(url)
    assert overflow(page) <= 0
    page.set_input_files("#image", film)
    fill(page)
    page.fill("[name=bmi]", "a great deal")
    page.click("#estimate")
    expect(page.locator("#error-bmi")).to_be_visible()
    assert overflow(page) <= 0
    page.fill("[name=bmi]", "")
    estimate(page)
    explained(page)
    assert overflow(page) <= 0
    for place in ("footer", "#patient"):
        page.locator(place).scroll_into_view_if_needed()
        expect(page.get_by_text("Screening aid, not a diagnosis")).to_be_in_viewport(ratio=1)
    visit.context.close()
    assert visit.complaints == []


def test_what_cannot_stand_is_said_beside_its_field(visit, page):
    page.fill("[name=height]", "158")
    page.fill("[name=age]", "seventy")
    page.click("#estimate")
    expect(page.locator("#error-height")).to_have_text(
        "Height is asked in metres: 158 cm are 1.58 m."
    )
    expect(page.locator("#error-age")).to_contain_text("not a number")
    described = page.locator("[name=age]").get_attribute("aria-describedby").split()
    assert "error-age" in described
    expect(page.locator("[name=age]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("[name=age]")).to_be_focused()
    expect(page.get_by_role("alert").first).to_contain_text("2 values cannot be used")
    assert not [to for to in visit.requests if to.endswith("/v1/predict")]
    page.fill("[name=age]", "71,5")
    expect(page.locator("#error-age")).to_be_hidden()


def test_a_field_that_makes_no_sense_beside_another_is_off(page):
    page.fill("[name=pregnancies]", "2")
    page.locator("label[for=female-0]").click()
    expect(page.locator("[name=pregnancies]")).to_be_disabled()
    expect(page.locator("#notice-pregnancies")).to_contain_text("asked only where")
    page.locator("label[for=female-1]").click()
    expect(page.locator("[name=pregnancies]")).to_be_enabled()


def test_what_the_server_refuses_is_said_at_the_field_it_names(page):
    page.click("#estimate")  # nothing given at all
    expect(page.locator("#image-error")).to_have_text("Give a radiograph, clinical values or both.")
    expect(page.locator("#image")).to_be_focused()

    broken = {"name": "film.png", "mimeType": "image/png", "buffer": b"no image"}
    page.set_input_files("#image", broken)
    page.click("#estimate")
    expect(page.locator("#image-error")).not_to_be_empty()
    expect(page.locator("#image")).to_be_focused()
    expect(page.locator("#problem")).to_have_text(page.locator("#image-error").inner_text())
    page.click("#remove")

    # A page older than the service may send what it no longer takes.
    page.locator("[name=occupation] option").nth(1).evaluate(
        "node => (node.value = 'x'.repeat(200))"
    )
    page.locator("[name=occupation]").select_option(index=1)
    page.click("#estimate")
    expect(page.locator("#error-occupation")).to_contain_text("occupation")
    expect(page.locator("[name=occupation]")).to_be_focused()
    expect(page.locator("[name=occupation]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#risk")).to_have_count(0)


def test_a_changed_form_makes_the_answer_old_and_a_new_patient_leaves_nothing(page, film):
    page.set_input_files("#image", film)
    fill(page)
    estimate(page)
    explained(page)
    page.fill("[name=age]", "40")
    expect(page.locator("#stale")).to_contain_text("has changed")
    estimate(page)
    expect(page.locator("#stale")).to_be_empty()

    page.click("#clear")
    expect(page.locator("#answer")).to_contain_text("No estimate yet")
    expect(page.locator("#chosen")).to_be_hidden()
    expect(page.locator("#image")).to_be_focused()
    assert page.locator("#preview").get_attribute("src") is None
    held = page.evaluate(
        """() => [...document.querySelectorAll('#form input, #form select')]
             .filter((node) => (node.type === 'radio' ? node.checked : true) && node.value !== '')
             .map((node) => node.name || node.id)"""
    )
    assert held == []
    kept = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert page.evaluate(kept) == [0, 0, ""]
    assert page.context.cookies() == []
    page.reload()
    expect(page.locator("[name=age]")).to_have_value("")


def test_the_model_says_what_it_is_and_that_it_learnt_from_drawings(page, url):
    schema = httpx.get(f"{url}/v1/schema").json()
    expect(page.locator("#synthetic")).to_contain_text("SYNTHETIC")
    footer = page.locator("footer")
    for said in (*schema["model"].values(), schema["intended_use"]):
        expect(footer).to_contain_text(said)
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colour_scheme(browser, url, scheme):
    visit = Visit(browser, color_scheme=scheme)
    paper = visit.open(url).evaluate("getComputedStyle(document.body).backgroundColor")
    visit.context.close()
    bright = np.mean([int(part) for part in re.findall(r"\d+", paper)[:3]])
    assert (bright > 128) == (scheme == "light")


def test_a_key_stays_in_the_page_and_a_server_that_died_is_said(browser, bundle_folder):
    with serving(bundle_folder, OSTEOFUSION_API_KEY="quite-a-long-secret") as (process, where):
        visit = Visit(browser)
        page = visit.page
        page.goto(where)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-error")).to_have_text("That key was not accepted.")
        page.fill("#key", "quite-a-long-secret")
        page.keyboard.press("Enter")
        expect(page.locator("#estimate")).to_be_enabled()
        fill(page)
        estimate(page)
        expect(page.locator("#attributions")).to_be_visible()
        again = page.context.new_page()  # the key stays with the page that was given it
        again.goto(where)
        expect(again.get_by_role("dialog")).to_be_visible()
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert kept == "[{},{}]"
        page.fill("[name=age]", "66")
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.click("#estimate")
        expect(page.locator("#problem")).to_contain_text("The server does not answer")
        expect(page.locator("#problem")).to_be_focused()
        expect(page.locator("[name=age]")).to_have_value("66")
        visit.context.close()
        assert visit.complaints == []
