"""`osteofusion report` as a user types it, on runs and a study of the demo cohort."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

SECTIONS = [
    "reading",
    "cohort",
    "results",
    "comparison",
    "curves",
    "decisions",
    "errors",
    "table-one",
    "training",
    "audits",
    "looks",
    "environment",
    "tripod",
]


@pytest.fixture
def copied(trained, tmp_path):
    """A run folder to damage."""
    return shutil.copytree(trained, tmp_path / "run")


# ---- what is in it ----


def test_a_run_is_reported_whole(run_page):
    page = run_page
    assert [each["id"] for each in page.all("section")] == SECTIONS
    assert "SYNTHETIC DEMO DATA" in page.text
    assert "holds patient images" in page.text
    assert page.all("img")
    card = (page.folder / "model_card.md").read_text()
    assert card.startswith("---\nlibrary_name: osteofusion\n")
    assert "SYNTHETIC DEMO DATA" in card
    for drawn in ("Flow diagram.", "ROC curves of", "Calibration plot of fused", "Decision curves"):
        assert any(drawn in each["aria-label"] for each in page.all("svg"))


def test_figures_of_the_page_are_those_of_the_files(trained, run_page):
    page = run_page
    metrics = json.loads((trained / "metrics.json").read_text())
    for arm in metrics["arms"].values():
        found = arm["metrics"]["auroc"]
        assert f"{found['value']:.3f}" in page.text
        if found["low"] is not None and found["method"] != "constant":
            assert f"{found['low']:.3f} to {found['high']:.3f}" in page.text
    join = json.loads((trained / "join_report.json").read_text())
    assert f"{join['images']} image files" in page.source
    assert join["citation"] in page.text
    table = page.text[page.text.index("Classification report, fused") :]
    support = metrics["class_counts"]
    assert re.search(
        rf"normal (?:(?:n/a|[\d.]+ [\d.]+ to [\d.]+) ){{3}}{support['normal']} ", table
    )


def test_a_study_is_reported_whole(study, study_page):
    page = study_page
    described = json.loads((study / "study.json").read_text())
    assert [each["id"] for each in page.all("section")] == SECTIONS
    assert f"{described['configurations_tried']} configurations were tried" in page.text
    assert "looked at 4 times, 2 times each." in page.text
    assert "2 test folds" in page.source
    assert "Three-way triage" in page.text
    assert "fused less tabular only" in page.text
    assert any("before and after" in each.lower() for each in page.texts)
    assert "1 of 2 cells are done." in page.text
    assert "base-fused-r0-f1-s42: It failed." in page.text


def test_what_happens_without_a_modality_is_said(study_page, run_page):
    assert "the fused model asked otherwise fused, image withheld" in study_page.text
    assert "With its images withheld the fused model changes by" in study_page.text
    assert "The fused model without a modality: not here." not in study_page.text
    assert "The fused model without a modality: not here." in run_page.text


def test_audits_of_a_study_are_reported(study_page):
    text = study_page.text
    assert "may not belong together in the class normal" in text
    assert "nearest film accuracy, copied films 0.860 0.730" in text
    assert "sex normal AUROC 0.600 0.400 to 0.800" in text
    assert "< 0.001 stands out" in text
    assert "N15 (normal, male, 34 years) = OP73 (osteopenia, sex unknown, age unknown)" in text
    assert "This audit: not here. The cohort has no radiographs." in text
    drawn = [each["aria-label"] for each in study_page.all("svg")]
    assert any(each.startswith("AUROC over the number of training rows") for each in drawn)


@pytest.mark.slow
def test_a_study_of_the_command_is_reported(cli, report, tmp_path):
    content = {"config": "binary.yaml", "arms": ["tabular", "fused"], "folds": 2}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content))
    result = cli("study", "--config", "toy.yaml", "--out", "out", *cli.toy, cwd=tmp_path)
    assert result.code == 0, result.err
    page = report(tmp_path / "out")
    assert [each["id"] for each in page.all("section")] == SECTIONS
    assert "looked at 4 times, 2 times each." in page.text
    assert "Three-way triage" in page.text
    assert "What a split by row would have bought" in page.text


@pytest.mark.slow
def test_stages_of_the_command_are_reported(cli, report, tmp_path):
    place = cli.toy.index("--ablation") if "--ablation" in cli.toy else len(cli.toy)
    toy = cli.toy[:place] + cli.toy[place + 2 :]  # the stages set it themselves
    result = cli("stages", "binary.yaml", "three_class.yaml", "--out", "out", *toy, cwd=tmp_path)
    assert result.code == 0, result.err
    page = report(tmp_path / "out")
    assert "in stages less from scratch" in page.text
    assert "0 were trained or validated on in stage one" in page.text


def test_three_classes_are_reported(cli, report, tmp_path):
    cli.fit("--data.task", "three_class", "--model.arm", "tabular", cwd=tmp_path)
    page = report(tmp_path / "runs" / "binary" / "version_0")
    assert "macro AUROC" in page.text
    assert "quadratic kappa" in page.text
    assert "No fused model" in page.text


def test_the_tripod_checklist_has_all_items_and_leaves_people_their_part(run_page):
    rows = run_page.text
    rows = rows[rows.rindex("item asks for answer") :]
    for item in range(1, 28):
        assert re.search(rf"\b{item}[a-g]? ", rows), item
    for asked in ("ethical approval", "funding", "conflicts of interest"):
        assert re.search(rf"{asked}[\w ]* AUTHOR: ", rows), asked


def test_prevalence_is_the_one_asked_for(trained, report):
    text = report(trained, "--prevalence", "0.075", "0.3").text
    assert "At a prevalence of 7.5 %" in text
    assert "At a prevalence of 30 %" in text
    assert "At a prevalence of 20 %" not in text


# ---- what is not in it ----


def test_no_images_means_none(trained, report):
    page = report(trained, "--no-images")
    assert not page.all("img")
    assert "data:image/jpeg" not in page.source
    assert "no patient images" in page.text
    assert "Left out with --no-images" in page.text


def test_films_are_found_where_the_settings_name_no_folder(copied, report):
    """A run of the demo cohort without --data.root."""
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["data"]["root"] = None
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    page = report(copied)
    assert "data:image/jpeg" in page.source
    assert "no longer where" not in page.text


def test_missing_parts_are_said(copied, report, demo):
    joined = copied / "join_report.json"
    joined.write_text(joined.read_text().replace(str(demo), str(demo) + "-gone"))
    for name in ("environment.json", "splits.csv"):
        (copied / name).unlink()
    shutil.rmtree(copied / "logs")
    shutil.rmtree(copied / "ablation", ignore_errors=True)
    page = report(copied)
    for what in ("Training curves", "Environment", "Their radiographs", "Table 1 by side"):
        assert f"{what}: not here." in page.text, what
    assert "no longer where" in page.text
    assert [each["id"] for each in page.all("section")] == SECTIONS


def test_nothing_of_this_machine_stands_in_the_page(trained, run_page, demo):
    assert str(trained) not in run_page.source
    assert str(demo) not in run_page.source


# ---- what it refuses ----


def refused(cli, tmp_path, *arguments):
    before = sorted(tmp_path.rglob("*"))
    result = cli("report", *arguments, cwd=tmp_path)
    assert result.code == 2
    assert result.err.startswith("osteofusion: error: ")
    assert len(result.err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    return result.err


def test_what_is_no_run_is_refused(cli, tmp_path):
    assert "is no folder" in refused(cli, tmp_path, tmp_path / "nothing")
    assert "is no run or study folder" in refused(cli, tmp_path, tmp_path)


@pytest.mark.parametrize(
    "name", ["metrics.json", "predictions.csv", "cohort.csv", "join_report.json"]
)
def test_an_unfinished_run_is_refused(cli, copied, tmp_path, name):
    (copied / name).unlink()
    assert f"is not finished (no {name})" in refused(cli, tmp_path, copied)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", '{"data": {', "damaged near line 1"),
        ("metrics.json", "[]", "holds no object"),
        ("metrics.json", '{"data": {}}', "has no 'task', 'classes', 'arms', 'class_counts'"),
        ("environment.json", "\x00", "it is no JSON"),
        ("config.yaml", "a: [", "no YAML of settings"),
        ("predictions.csv", "", "damaged"),
        ("predictions.csv", "a,b\n1,2\n", "has no column 'subject_id'"),
    ],
)
def test_damaged_files_are_named(cli, copied, tmp_path, name, content, said):
    (copied / name).write_text(content)
    sentence = refused(cli, tmp_path, copied)
    assert said in sentence
    assert str(copied / name) in sentence


def test_predictions_of_other_arms_are_refused(cli, copied, tmp_path):
    table = (copied / "predictions.csv").read_text()
    (copied / "predictions.csv").write_text(table.replace(",fused", ",other"))
    assert "do not fit together" in refused(cli, tmp_path, copied)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prevalence", "0"], "no share between 0 and 1"),
        (["--prevalence", "nan"], "no share between 0 and 1"),
        (["--out", "page.txt"], "is no HTML file"),
        (["--figures", "taken"], "is a file"),
        (["--colour"], "unrecognized arguments"),
    ],
)
def test_wrong_options_are_refused(cli, trained, tmp_path, options, said):
    (tmp_path / "taken").touch()
    assert said in refused(cli, tmp_path, trained, *options)


# ---- how it is read ----


def test_the_page_stands_alone_and_is_accessible(study_page):
    page = study_page
    names = {name for name, _ in page.elements}
    assert not names & {"iframe", "object", "embed"}
    for _, attributes in page.elements:
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)|@import", page.source)
    assert all(image["alt"] for image in page.all("img"))
    assert all(each["role"] == "img" and each["aria-label"] for each in page.all("svg"))
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert len(page.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)


def test_numbers_are_never_nan(study_page, run_page):
    for page in (study_page, run_page):
        assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_the_same_run_gives_the_same_page(trained, run_page, report):
    assert report(trained).source == run_page.source


def test_pdf_and_figures(trained, report, tmp_path):
    page = report(trained, "--pdf", "--figures", tmp_path / "figures")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")
    drawn = [path.name for path in (tmp_path / "figures").iterdir()]
    assert len(drawn) == 2 * len(page.all("svg"))
    assert {name.split(".")[1] for name in drawn} == {"svg", "png"}
    assert {"flow.svg", "roc.png", "forest.svg"} <= set(drawn)
    if shutil.which("pdftotext"):
        text = subprocess.run(
            ["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True
        ).stdout
        assert "SYNTHETIC DEMO DATA" in text
        assert "TRIPOD+AI checklist" in text


def test_a_browser_shows_it_without_complaint(run_page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            (run_page.folder / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    # The page's own policy forbids every request; an attempt would be a message here.
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    slider = done.stdout[done.stdout.index('class="prevalence"') :]
    assert "hidden" not in slider[: slider.index(">")]
    body = slider[slider.index("<tbody") : slider.index("</tbody>")]
    assert re.search(r"<th scope=\"row\">0.5</th><td>[\d.]+</td>", body)
