"""The commands that need no training: `cohort`, `demo`, `--help`, `--version`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

import osteofusion
from osteofusion.cli import main
from osteofusion.data.cohort import build_cohort
from osteofusion.data.labels import who_label
from osteofusion.data.manifest import LabelSource, load_manifest

KEYS = {
    "joined",
    "by_label",
    "images_without_row",
    "rows_without_image",
    "duplicate_ids",
    "summary_rows",
    "identical_groups",
    "surplus_identical_images",
    "conflicting_groups",
    "unreadable_images",
    "implausible_cells",
    "unparsable_cells",
    "constant_columns",
    "suspected_leaks",
}

# Runs a command and fails where it has imported one of the packages named first.
FORBID = """
import sys
from osteofusion.cli import main
status = main(sys.argv[2:])
sys.exit(status or ", ".join(set(sys.argv[1].split(",")) & set(sys.modules)) or 0)
"""
FULL_DISK = """
import resource, sys
from osteofusion.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments, **options):
    """A process of its own, for what only a process shows."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, **options
    )


def refused(capsys, *arguments):
    """The sentence with which a command is refused."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("osteofusion: error: ")
    assert captured.err.count("osteofusion: error:") == 1
    assert "Traceback" not in captured.err
    return captured.err.removeprefix("osteofusion: error: ")


def report(capsys, *arguments):
    assert main(["cohort", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


# ---- help ----


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(capsys, arguments):
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for command in ("fit", "test", "validate", "predict", "study", "report", "cohort", "demo"):
        assert f"\n  {command} " in text


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"osteofusion {osteofusion.__version__}\n"


@pytest.mark.parametrize("command", ["cohort", "demo"])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: osteofusion {command}" in capsys.readouterr().out


def test_help_needs_none_of_the_heavy_packages():
    heavy = "torch,numpy,pandas,pytorch_lightning,cv2,sklearn,pydantic,yaml,rich"
    for arguments in (["--help"], ["--version"]):
        done = run("-c", FORBID, heavy, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["cohrt"],
            "Unknown command 'cohrt'; the commands are manifest, cohort, audit, demo, study",
        ),
        (["cohort"], "osteofusion cohort: the following arguments are required: --manifest; see"),
        (["cohort", "--manifest", "demo", "--speed", "9"], "unrecognized arguments: --speed 9"),
        (["cohort", "--manifest", "mendely", "--root", "."], "Did you mean 'mendeley'?"),
        (["cohort", "--manifest", "mendeley"], "--root: No folder given: mendeley (Knee X-ray"),
        (["cohort", "--manifest", "mendeley", "--root", "nowhere"], "https://doi.org/10.17632/"),
        (["demo"], "required: --out"),
        (["demo", "--out", "d", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["demo", "--out", "d", "--seed", "-1"], "-1"),
        (["demo", "--out", "d", "--subjects", "3"], "3"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert os.listdir(tmp_path) == []


# ---- cohort ----


def test_a_clean_cohort_passes_strict_and_writes_its_csv(capsys, clinic, tmp_path):
    out = tmp_path / "new folder" / "cohort.csv"
    arguments = ["--manifest", clinic.write(), "--root", clinic.root, "--strict", "--out", out]
    content = report(capsys, *arguments)
    assert content.keys() >= KEYS
    assert content["by_label"] == {"normal": 2, "osteopenia": 2, "osteoporosis": 2}
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert [row["subject_id"] for row in rows] == ["A1", "A2", "B1", "B2", "C1", "C2"]
    assert os.listdir(out.parent) == ["cohort.csv"]


def test_strict_prints_the_report_and_exits_2(capsys, clinic):
    clinic.images["normal/A1.png"] = b"no image"
    clinic.rows[1]["Age"] = 610
    arguments = ["cohort", "--manifest", clinic.write(), "--root", clinic.root]
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert "A2 age '610'" in " ".join(printed.replace("│", " ").split())
    assert main([*map(str, arguments), "--strict", "--json"]) == 2
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["unreadable_images"]) == 1
    assert captured.err == (
        "osteofusion: error: --strict: clinic has findings: unreadable images, implausible cells.\n"
    )


def test_names_with_brackets_are_printed_as_they_are(capsys, clinic):
    clinic.manifest["title"] = "A [/bold] clinic"
    clinic.images |= {"normal/x[/red].png": b"", "normal/[bold]y.png": clinic.radiograph("y")}
    assert main(["cohort", "--manifest", str(clinic.write()), "--root", str(clinic.root)]) == 0
    printed = capsys.readouterr().out
    assert "A [/bold] clinic" in printed
    assert "x[/red].png" in printed
    assert "[bold]y.png" in printed


def break_table(clinic, content, file="table.csv"):
    clinic.manifest["table"]["file"] = file
    path = clinic.write()
    (clinic.root / file).write_bytes(content)
    return path


HEADER = b"Patient ID,Diagnosis,T-score,Age,Smoker,Job,Fracture\n"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)
MISTAKES = [
    (HEADER, "table.csv", "no rows below a header"),
    (b"", "table.csv", "no rows below a header"),
    (HEADER + b"A1,fragile,0,1,no,,\n", "table.csv", "Unknown label 'fragile' in table"),
    (HEADER + b"n_001,normal,0,1,no,,\n", "table.csv", "images like 'normal/A1.png'"),
    (b"ID,Diagnosis\nA1,normal\n", "table.csv", "no ID column 'Patient ID'; it has 'ID', 'Diagno"),
    (b"Patient ID,Age\nA1,50\n", "table.csv", "no label column 'Diagnosis'"),
    (HEADER + "A1,normal,0,1,no,Schlüssel,\n".encode("cp1252"), "table.csv", "cp1252"),
    (b"PK\x03\x04 cut short", "table.xlsx", "damaged or no workbook"),
    (OLE, "table.xlsx", "password-protected"),
]


@pytest.mark.parametrize(("content", "file", "message"), MISTAKES)
def test_a_bad_data_set_is_one_sentence_and_leaves_no_file(
    capsys, clinic, tmp_path, content, file, message
):
    path = break_table(clinic, content, file)
    out = tmp_path / "out" / "cohort.csv"
    said = refused(capsys, "cohort", "--manifest", path, "--root", clinic.root, "--out", out)
    assert message in said
    assert not out.parent.exists()


@pytest.mark.parametrize(
    "out", ["file/cohort.csv", "folder", "n" * 300 + ".csv", "link", "/proc/nowhere/cohort.csv"]
)
def test_an_impossible_output_is_one_sentence(capsys, clinic, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(os.devnull)  # a rename would make a file of the device
    path = clinic.write()
    before = sorted(os.listdir(tmp_path))
    said = refused(
        capsys, "cohort", "--manifest", path, "--root", clinic.root, "--out", tmp_path / out
    )
    assert said.startswith("Cannot read or write")
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_missing_permissions_are_one_sentence(capsys, clinic, tmp_path):
    path = clinic.write()
    (tmp_path / "closed").mkdir(mode=0o500)
    arguments = ["cohort", "--manifest", path, "--root", clinic.root]
    assert "Permission denied" in refused(capsys, *arguments, "--out", tmp_path / "closed" / "x")
    (clinic.root / "normal").chmod(0)
    assert "Permission denied" in refused(capsys, *arguments)
    (clinic.root / "normal").chmod(0o700)
    (clinic.root / "table.csv").chmod(0)
    assert "Permission denied" in refused(capsys, *arguments)


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(clinic, tmp_path):
    out = tmp_path / "out" / "cohort.csv"
    out.parent.mkdir()
    out.write_text("old")
    done = run(
        *("-c", FULL_DISK, "cohort", "--manifest", clinic.write(), "--root", clinic.root),
        *("--out", out),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("osteofusion: error: Cannot read or write")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert out.read_text() == "old"
    assert os.listdir(out.parent) == ["cohort.csv"]


def test_cohort_runs_as_a_module_without_torch_and_lightning(clinic):
    arguments = ["cohort", "--manifest", clinic.write(), "--root", clinic.root]
    done = run("-c", FORBID, "torch,pytorch_lightning,timm", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["joined"] == 6
    done = run("-m", "osteofusion", *arguments, "--table", "nowhere.csv")
    assert done.returncode == 2
    assert done.stderr.startswith("osteofusion: error: Table nowhere.csv does not exist")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_reader_that_has_gone_is_no_error(clinic, form):
    command = (
        f"{sys.executable} -m osteofusion cohort --manifest {clinic.write()} "
        f"--root {clinic.root} {form} | true"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


# ---- the real data ----


def test_mendeley_is_reported_as_published(capsys, mendeley, tmp_path):
    out = tmp_path / "cohort.csv"
    found = report(capsys, "--manifest", "mendeley", "--root", mendeley, "--out", out)
    assert found.keys() >= KEYS
    assert found["joined"] == found["subjects"] == found["images"] == 239
    assert found["by_label"] == {"normal": 36, "osteopenia": 154, "osteoporosis": 49}
    assert found["rows_without_image"] == ["N37"]
    assert len(found["summary_rows"]) == 3
    assert len(found["identical_groups"]) == 21
    assert len(found["surplus_identical_images"]) == 22
    assert len(found["conflicting_groups"]) == 7
    cells = {(cell["subject_id"], cell["column"]) for cell in found["implausible_cells"]}
    assert {("OS27", "age"), ("OP9", "menopause_age")} <= cells
    assert len(cells) == 3
    assert set(found["constant_columns"]) == {"alcohol", "site_of_film"}
    for key in (
        *("images_without_row", "rows_without_label", "duplicate_ids", "unreadable_images"),
        *("label_conflicts", "unparsable_cells", "suspected_leaks", "unmapped_columns"),
        *("absent_columns", "unexpected_counts"),
    ):
        assert found[key] == [], key
    table = pd.read_csv(out)
    assert table["t_score"].map(who_label).tolist() == table["label"].tolist()
    assert set(table["obesity"]) == {"normal", "overweight", "obesity", "underweight"}
    assert (
        table["occupation"].str.contains("bus").sum() == (table["occupation"] == "business").sum()
    )
    missing = table.set_index("subject_id").loc[["OS27", "OP9"]]
    assert missing["age"].isna().tolist() == [True, False]
    assert missing["menopause_age"].isna().all()


def test_mendeley_with_the_t_score_as_a_feature_is_a_suspected_leak(mendeley):
    shipped = load_manifest("mendeley")
    score = shipped.columns["t_score"].model_copy(update={"role": "feature"})
    columns = shipped.columns | {"t_score": score}
    manifest = shipped.model_copy(
        update={"columns": columns, "label": LabelSource(column="Diagnosis")}
    )
    leaks = build_cohort(manifest, mendeley).report.suspected_leaks
    assert [leak["column"] for leak in leaks] == ["t_score"]


def test_rsna_asks_for_a_label_file_and_joins_one(capsys, rsna, tmp_path):
    said = refused(capsys, "cohort", "--manifest", "rsna_boneage", "--root", rsna)
    assert "labels.csv does not exist" in said
    assert "carries bone age and sex and no osteoporosis label: bring a label file" in said
    ids = sorted(path.stem for path in (rsna / "boneage-training-dataset").glob("*.png"))[:40]
    labels = ["normal", "osteopenia"] * 20
    file = tmp_path / "labels.csv"
    pd.DataFrame({"id": ids, "label": labels}).to_csv(file, index=False)
    arguments = ["--manifest", "rsna_boneage", "--root", rsna, "--labels", file]
    found = report(capsys, *arguments)
    assert found["joined"] == 40
    assert found["by_label"] == {"normal": 20, "osteopenia": 20}
    assert len(found["rows_without_label"]) == 770
    assert found["unparsable_cells"] == []
    assert [entry.split(":")[0] for entry in found["unexpected_counts"]] == ["rows", "radiographs"]


# ---- demo ----


def test_demo_writes_what_cohort_reads(capsys, tmp_path):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--subjects", "40", "--seed", "3"]) == 0
    assert f"--data.root {out}" in capsys.readouterr().out
    found = report(capsys, "--manifest", "demo", "--root", out)
    assert found["synthetic"] is True
    assert found["joined"] == 39
    assert len(found["rows_without_image"]) == 1
    assert found["conflicting_groups"]
    assert main(["cohort", "--manifest", "demo", "--root", str(out)]) == 0
    assert "SYNTHETIC DEMO DATA" in capsys.readouterr().out
    before = sorted(out.rglob("*"))
    assert "already exists" in refused(capsys, "demo", "--out", out)
    assert sorted(out.rglob("*")) == before
