"""`osteofusion predict --bundle`: answers for a cohort or one patient, without torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from osteofusion.data.manifest import load_manifest
from osteofusion.data.radiograph import read_bytes
from osteofusion.errors import ConfigError
from osteofusion.files import atomic_path
from osteofusion.parser import Parser
from osteofusion.progress import shown
from osteofusion.serving.bundle import Bundle
from osteofusion.serving.errors import InputError
from osteofusion.serving.prediction import Prediction
from osteofusion.serving.predictor import Patient, Predictor
from osteofusion.serving.report_texts import ReportTexts, load_texts
from osteofusion.serving.report_words import percent

_BATCH = 16


@dataclass(frozen=True)
class _Row:
    """A patient to answer for: where the radiograph is, the values, and what the table repeats."""

    facts: dict[str, str]
    image: Path | None
    values: dict[str, object]


def run(arguments: list[str]) -> int:
    """Predict from a bundle.

    Returns:
        0.

    Raises:
        OsteofusionError: an option is wrong, or the bundle or a patient cannot be read.
    """
    options = _parser().parse_args(arguments)
    if (options.manifest is None) == (options.image is None and not options.value):
        raise ConfigError(
            "osteofusion predict --bundle: give either --manifest and --root, or --image and "
            "--value of one patient."
        )
    if options.out.exists() and not options.out.is_file():
        raise ConfigError(f"--out {options.out} is no file; name a CSV file.")
    if options.recommendations is not None and options.report is None:
        raise ConfigError("--recommendations words the reports; give --report DIR too.")
    texts = load_texts(options.recommendations)
    predictor = Predictor(Bundle.load(options.bundle))
    if options.manifest is not None:
        rows = _cohort(predictor, options.manifest, options.root, options.table)
    else:
        rows = [_one(options.image, options.value)]
    answers: list[dict[str, object]] = []
    named = list(zip(rows, _report_names(rows), strict=True))
    batches = [named[start : start + _BATCH] for start in range(0, len(named), _BATCH)]
    for batch in shown(batches, len(batches), "Predicting", True):
        patients = [_read(predictor, row) for row, _ in batch]
        found = predictor.predict_many(patients)
        for (row, name), patient, answer in zip(batch, patients, found, strict=True):
            answers.append(_as_row(row, answer, predictor))
            if options.report is not None:
                path = options.report / f"{name}.pdf"
                _write_report(path, row.facts["subject_id"], predictor, patient, answer, texts)
    with atomic_path(options.out) as temporary:
        pd.DataFrame(answers).to_csv(temporary, index=False)
    if options.manifest is None:
        print(_said(answer, predictor.description.positive))
    print(f"Predictions: {options.out}")
    if options.report is not None:
        print(f"Reports: {options.report}")
    return 0


def _said(answer: Prediction, positive: str) -> str:
    """The answer for one patient in a few lines."""
    band = f", {answer.band.replace('_', ' ')}" if answer.band else ""
    return "\n".join(
        [
            f"Risk of {positive}: {percent(answer.risk)}{band}",
            *(flag.message for flag in answer.flags),
        ]
    )


def _parser() -> Parser:
    parser = Parser(
        prog="osteofusion predict --bundle",
        description="Calibrated predictions from a bundle, for a cohort or for one patient. "
        "Without --bundle the command applies a checkpoint.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="what `export` made")
    parser.add_argument("--manifest", nargs="+", help="name or path of the cohort's manifest")
    parser.add_argument("--root", type=Path, nargs="+", help="folder of each data set")
    parser.add_argument("--table", type=Path, help="another table file")
    parser.add_argument("--image", type=Path, help="radiograph of one patient")
    parser.add_argument(
        "--value",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="clinical value of that patient in canonical units, such as age=61; repeat it",
    )
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"), help="CSV file")
    parser.add_argument("--report", type=Path, metavar="DIR", help="also write a PDF a patient")
    parser.add_argument(
        "--recommendations",
        type=Path,
        metavar="FILE.yaml",
        help="own texts of the reports, by band",
    )
    return parser


def _one(image: Path | None, given: Sequence[str]) -> _Row:
    values: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in values:
            raise ConfigError(f"--value {text}: give NAME=VALUE, such as age=61, and each once.")
        values[name] = value
    stem = image.stem if image is not None else "patient"
    facts = {"subject_id": stem, "image": str(image or ""), "site": "", "region": ""}
    return _Row(facts, image, values)


def _cohort(
    predictor: Predictor, names: Sequence[str], roots: Sequence[Path] | None, table: Path | None
) -> list[_Row]:
    if roots is None:
        raise ConfigError(
            "osteofusion predict --bundle --manifest needs --root: the data's folder."
        )
    # Here and not above: the answer for one patient needs no scikit-learn.
    from osteofusion.data.cohort import build_cohort

    cohort = build_cohort(
        [load_manifest(name) for name in names],
        roots,
        table=table,
        need_labels=False,
        progress=True,
    )
    d = predictor.description
    predictor.schema.refuse_other_meaning(cohort.manifest)
    other = sorted(set(cohort.table["region"]) - set(d.regions))
    if other:
        raise ConfigError(
            f"The bundle is for {' and '.join(d.regions)} radiographs, and the cohort holds "
            f"{' and '.join(other)}; leave that data set out."
        )
    names_read = [feature.name for feature in d.features if feature.name in cohort.table]
    files = cohort.files(cohort.table)
    return [
        _Row(
            facts={key: str(row[key]) for key in ("subject_id", "image", "site", "region")},
            image=file if row["image_sha256"] and predictor.preprocessing is not None else None,
            values={name: row[name] for name in names_read if not pd.isna(row[name])},
        )
        for (_, row), file in zip(cohort.table.iterrows(), files, strict=True)
    ]


def _read(predictor: Predictor, row: _Row) -> Patient:
    try:
        data = read_bytes(row.image) if row.image is not None else None
        name = row.image.name if row.image is not None else ""
        return predictor.read(data, row.values, image_name=name)
    except InputError as error:
        where = row.facts["image"] or row.facts["subject_id"]
        raise ConfigError(f"{where}: {error}") from None


def _as_row(row: _Row, answer: Prediction, predictor: Predictor) -> dict[str, object]:
    return {
        **row.facts,
        "arm": predictor.description.arm,
        **{f"p_{name}": value for name, value in answer.probabilities.items()},
        "risk": answer.risk,
        "predicted": answer.label,
        "band": answer.band or "",
        "flags": ";".join(f"{flag.field}:{flag.code}" for flag in answer.flags),
    }


def _report_names(rows: Sequence[_Row]) -> list[str]:
    """A file name for each row's report: none is written over another."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for row in rows:
        subject, image = row.facts["subject_id"], Path(row.facts["image"]).stem
        name = re.sub(r"[^\w.-]", "_", subject if image in ("", subject) else f"{subject}_{image}")
        seen[name.lower()] += 1  # some file systems tell no case
        same = seen[name.lower()]
        names.append(name if same == 1 else f"{name}~{same}")
    return names


def _write_report(
    path: Path,
    subject: str,
    predictor: Predictor,
    patient: Patient,
    answer: Prediction,
    texts: ReportTexts,
) -> None:
    from osteofusion.serving.patient_report import patient_report_bytes

    content = patient_report_bytes(
        answer,
        predictor.explain(patient),
        predictor.description,
        reference=subject,
        texts=texts,
        created=datetime.now().astimezone(),
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
