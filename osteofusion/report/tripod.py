"""The TRIPOD+AI checklist (Collins et al., BMJ 2024;385:e078378), in our own words.

An item is answered where the run knows the answer; what only people know starts with ``AUTHOR:``.
"""

from __future__ import annotations

from osteofusion.report.blocks import Grid, Paragraph, Section
from osteofusion.report.read import Material
from osteofusion.report.tables import primary_metric
from osteofusion.report.words import arm_words, inline, metric_words

_AUTHOR = "AUTHOR: "


def tripod_section(material: Material) -> Section:
    """The 27 items as a table."""
    answers = _answers(material)
    rows: list[tuple[str, ...]] = []
    for heading, items in _ITEMS.items():
        rows.append((heading,))
        rows += [
            (number, what, answers.get(number, _AUTHOR + asked)) for number, what, asked in items
        ]
    known = sum(not row[2].startswith(_AUTHOR) for row in rows if len(row) > 1)
    total = sum(len(row) > 1 for row in rows)
    return Section(
        "tripod",
        "TRIPOD+AI checklist",
        [
            Paragraph(
                f"27 items of Collins et al. 2024 (BMJ 385:e078378), in short; {known} of {total} "
                "lines are filled from the files, in part or in full, and the others wait for the "
                "authors."
            ),
            Grid("TRIPOD+AI.", ("item", "asks for", "answer"), tuple(rows), frozenset({1, 2})),
        ],
    )


def _answers(material: Material) -> dict[str, str]:
    evaluation, config = material.evaluation, material.config
    model, data = config.get("model") or {}, config.get("data") or {}
    counts = ", ".join(
        f"{n} {name.replace('_', ' ')}" for name, n in evaluation["class_counts"].items()
    )
    metric = primary_metric(evaluation)
    name = metric_words(metric, material.classes)
    reached = inline(evaluation["arms"][material.main]["metrics"][metric])
    cells = evaluation.get("n_folds", 1)
    where = f"{cells} test folds" if cells > 1 else "one test side"
    features = data.get("features")
    predictors = (
        ", ".join(features) if isinstance(features, list) else "all columns of role feature"
    )
    calibrated = "Platt or vector scaling, cross-fitted over folds" if cells > 1 else "none"
    arms = ", ".join(arm_words(arm) for arm in evaluation["arms"])
    return {
        "1": f"Development and internal evaluation of a prediction model for {material.low} from "
        f"radiographs and clinical columns ({material.data.get('manifest')}). {_AUTHOR}title.",
        "4": f"Development and internal evaluation over {where}. " + _AUTHOR + "objectives.",
        "5a": f"{material.data.get('citation')} " + _AUTHOR + "rationale and representativeness.",
        "7": f"Radiographs to {data.get('image_size')} px; implausible and unreadable cells count "
        f"as missing and stand under Cohort. {_AUTHOR}whether quality differs between groups.",
        "8a": f"Class from T-score or diagnosis as the manifest says; task {material.task}. "
        + _AUTHOR + "how and when DXA was done.",
        "9a": f"{predictors}; outcomes such as T-score are refused as predictors. " + _AUTHOR
        + "choice of columns.",
        "9b": "The manifest has kind, unit and plausible range of each column. " + _AUTHOR
        + "how and when measured.",
        "10": f"All that the data set holds; test rows: {counts}. What they can show stands "
        "under Decisions. " + _AUTHOR + "justification.",
        "11": "Imputed inside the model with values of the training rows, missing indicators where "
        "needed; counts under Table 1. Rows left out: see Cohort.",
        "12a": f"Split by groups of subjects and identical films, stratified; {where}.",
        "12b": "Numbers standardised and categories one-hot, both fitted on training rows.",
        "12c": f"{model.get('arm')} model, {model.get('backbone')}, fusion {model.get('fusion')}, "
        f"loss {model.get('loss')}; best epoch by validation {config.get('monitor')}. "
        + (
            f"{material.study.get('configurations_tried')} configurations tried."
            if material.kind == "study"
            else _AUTHOR + "how many configurations were tried."
        ),
        "12d": "Intervals over split groups; subgroups under Audits.",
        "12e": "AUROC, AUPRC, sensitivity, specificity, calibration, Brier, net benefit; arms: "
        f"{arms}.",
        "12f": f"Recalibration: {calibrated}.",
        "12g": "predictions.csv holds every prediction; `osteofusion predict` makes new ones.",
        "13": f"Class weights: {model.get('class_weights')}; loss {model.get('loss')}; balanced "
        f"sampler: {data.get('balanced_sampler')}; recalibration: {calibrated}.",
        "14": "None in training; metrics by sex, age band and acquisition family under Audits. "
        + _AUTHOR + "approach to fairness.",
        "15": f"Probability of each of {', '.join(material.classes).replace('_', ' ')}; thresholds "
        "under Decisions, chosen on other folds or fixed at 0.5.",
        "16": "Development and evaluation rows are of the same data set. " + _AUTHOR
        + "differences to the intended setting.",
        "18e": f"Source: {material.data.get('citation')} {_AUTHOR}availability of your files.",
        "18f": f"osteofusion {material.environment.get('osteofusion', '')}, Apache-2.0; "
        "config.yaml repeats the run.",
        "20a": "See Cohort.",
        "20b": "See Table 1.",
        "20c": "See Table 1 by side of the split." if cells == 1
        else "Every row is tested and trained on in turn.",
        "21": f"Test rows: {counts}; training rows: see Cohort.",
        "22": "checkpoints/best.ckpt with config.yaml; `osteofusion predict` applies it.",
        "23a": f"{name} of {arm_words(material.main)}: {reached}; see Results and Audits.",
        "23b": "See Audits, by acquisition family.",
        "24": f"Recalibration before and after: see Curves ({calibrated}).",
        "25": "See In plain words. " + _AUTHOR + "in the light of earlier studies.",
        "26": "See What this cannot show. " + _AUTHOR + "limitations of the study.",
    }  # fmt: skip


_ITEMS: dict[str, list[tuple[str, str, str]]] = {
    "Title and abstract": [
        ("1", "study type, target population, outcome", "title."),
        ("2", "abstract after TRIPOD+AI for Abstracts", "abstract."),
    ],
    "Introduction": [
        ("3a", "healthcare context, rationale, existing models", "background."),
        ("3b", "target population, place in care, intended users", "intended use."),
        ("3c", "known health inequalities", "inequalities between groups."),
        ("4", "objectives: development, evaluation or both", "objectives."),
    ],
    "Methods": [
        ("5a", "sources of data, rationale, representativeness", "sources."),
        ("5b", "dates of data collection", "start and end of accrual."),
        ("6a", "setting, number and location of centres", "centres."),
        ("6b", "eligibility criteria", "who could take part."),
        ("6c", "treatments received and how handled", "treatments."),
        ("7", "preprocessing and quality checks, also across groups", "data preparation."),
        ("8a", "outcome, how and when assessed, and why", "outcome."),
        ("8b", "who assessed the outcome, where it takes judgement", "assessors."),
        ("8c", "blinding of outcome assessment", "blinding."),
        ("9a", "choice of predictors before modelling", "predictors."),
        ("9b", "definition and measurement of predictors", "measurement."),
        ("9c", "who assessed predictors, where it takes judgement", "assessors."),
        ("10", "sample size and its justification", "sample size."),
        ("11", "missing data and omissions", "missing data."),
        ("12a", "use and partition of the data", "partition."),
        ("12b", "handling of predictors", "transformations."),
        ("12c", "model, building steps, tuning, internal validation", "modelling."),
        ("12d", "heterogeneity across clusters", "clusters."),
        ("12e", "measures and plots of performance", "measures."),
        ("12f", "model updating", "updating."),
        ("12g", "how predictions were calculated", "calculation."),
        ("13", "class imbalance and recalibration", "imbalance."),
        ("14", "approaches to fairness", "fairness."),
        ("15", "output of the model, thresholds", "output."),
        ("16", "differences between development and evaluation data", "differences."),
        ("17", "ethical approval and consent", "committee and consent."),
    ],
    "Open science": [
        ("18a", "funding and role of funders", "funding."),
        ("18b", "conflicts of interest", "conflicts."),
        ("18c", "protocol", "where it is, or that there is none."),
        ("18d", "registration", "register and number, or none."),
        ("18e", "availability of data", "data."),
        ("18f", "availability of code", "code."),
        ("19", "patient and public involvement", "involvement, or none."),
    ],
    "Results": [
        ("20a", "flow of participants", "flow."),
        ("20b", "characteristics, outcome events, missing data", "characteristics."),
        ("20c", "evaluation data compared with development data", "comparison."),
        ("21", "participants and events in each analysis", "numbers."),
        ("22", "full model specification and access", "specification."),
        ("23a", "performance with intervals, also in subgroups", "performance."),
        ("23b", "heterogeneity of performance across clusters", "heterogeneity."),
        ("24", "results of model updating", "updating."),
    ],
    "Discussion": [
        ("25", "interpretation, with fairness and earlier studies", "interpretation."),
        ("26", "limitations", "limitations."),
        ("27a", "poor or unavailable input in use", "handling of poor input."),
        ("27b", "interaction and expertise asked of users", "users."),
        ("27c", "next steps, generalisability", "next steps."),
    ],
}
