"""The sections of a patient report, in the order they are read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from reportlab.lib.units import mm
from reportlab.platypus import Flowable, KeepTogether, ListFlowable, Paragraph, Spacer, Table

from osteofusion.serving.description import BundleDescription
from osteofusion.serving.prediction import ClinicalValue, Explanation, Prediction
from osteofusion.serving.report_graphics import (
    BAND_COLOURS,
    PALE,
    effect_bar,
    icon_array,
    pictures,
    scale,
    share_bar,
)
from osteofusion.serving.report_layout import WIDTH, bare, ruled, text_styles
from osteofusion.serving.report_texts import ReportTexts
from osteofusion.serving.report_words import (
    BANDS,
    MARKS,
    SOURCES,
    baseline_words,
    class_words,
    condition,
    moment,
    people,
    percent,
    reached_words,
    sentence,
    usual_words,
    value_words,
)
from osteofusion.typesetting import markup

TITLE = "Bone density screening report"
NO_DIAGNOSIS = "Screening aid, not a diagnosis"
_RULES = {
    "fixed_sensitivity": "Made to find {target} of cases",
    "fixed_specificity": "Made to clear {target} of the others",
    "youden": "Best balance (Youden)",
}
_SMALLEST = 0.005  # in log-odds; below it a bar would be a hair


class Report:
    """The content, section by section."""

    def __init__(
        self,
        prediction: Prediction,
        explanation: Explanation,
        description: BundleDescription,
        reference: str | None,
        texts: ReportTexts,
        created: datetime,
    ) -> None:
        self.prediction = prediction
        self.explanation = explanation
        self.description = description
        self.reference = reference
        self.texts = texts
        self.created = created
        self.what = condition(description.positive)
        self.features = {feature.name: feature for feature in description.features}
        self.styles = text_styles()

    def flowables(self) -> list[Flowable]:
        """All of it."""
        return [
            *self._header(),
            *self._risk(),
            *self._flags(),
            *self._recommendation(),
            *self._pictures(),
            *self._classes(),
            *self._values(),
            *self._modalities(),
            *self._operating_points(),
            *self._limits(),
        ]

    def _text(self, text: str, style: str = "plain") -> Paragraph:
        return Paragraph(markup(text), self.styles[style])

    def _header(self) -> list[Flowable]:
        model = self.prediction.model
        made = f"Made on {moment(self.created)}"
        if self.reference:
            made = f"Reference: {self.reference}. {made}"
        found = [
            self._text(TITLE, "title"),
            self._text(made, "plain"),
            self._text(
                f"Model: {model['name']}, version {model['version']}, hash "
                f"{model['sha256'][:16]} (in full at the foot). {NO_DIAGNOSIS}.",
                "soft",
            ),
        ]
        if what := self.description.training.synthetic_what:
            said = f"{what}. The model was trained on it, so nothing here is about a patient."
            found.append(self._text(said, "alarm"))
        return found

    def _risk(self) -> list[Flowable]:
        risk, prevalence = self.prediction.risk, self.description.cohort_prevalence
        side, left = 42 * mm, WIDTH - 48 * mm
        said = [
            self._text(f"{percent(risk)} risk of {self.what}", "figure"),
            self._text(
                sentence(f"{people(risk)} people with such findings have {self.what}"), "lead"
            ),
            scale(risk, self.description.triage, left - 4 * mm),
            Spacer(0, 4),
            self._text(
                f"It holds for people like those behind this model, of whom {percent(prevalence)} "
                f"had {self.what}; where fewer have it, the risk is lower.",
                "soft",
            ),
        ]
        icons = [
            icon_array(risk, side),
            self._text(f"Each figure is 1 of 100 people; coloured: with {self.what}.", "small"),
        ]
        looks = [("VALIGN", (0, 0), (-1, -1), "TOP"), *bare(0)]
        return [Table([[said, icons]], colWidths=[left, 48 * mm], style=looks, spaceBefore=10)]

    def _flags(self) -> list[Flowable]:
        if not self.prediction.flags:
            return []
        return [
            self._text("Be careful with this answer", "h2"),
            *(self._text(f"\u26a0 {flag.message}", "alarm") for flag in self.prediction.flags),
        ]

    def _recommendation(self) -> list[Flowable]:
        band = self.prediction.band
        head = f"Recommendation: {BANDS[band]}" if band else "Recommendation"
        text = self.texts.recommendation(band, self.what)
        cell = [self._text(head, "h2"), self._text(text, "lead")]
        if self.prediction.flags:
            cell.append(self._text("The warnings above come first; it may not hold here.", "mark"))
        if not band and self.description.decision_note:
            cell.append(self._text(sentence(self.description.decision_note), "soft"))
        triage = self.description.triage
        reached = triage.reached.get(band) if triage is not None and band else None
        if reached is not None:
            cell.append(
                self._text(
                    f"Of test cases with {self.what}, {reached_words(reached.of_low)} fell into "
                    f"this band; of the others, {reached_words(reached.of_normal)}.",
                    "soft",
                )
            )
        looks = [
            ("LINEBEFORE", (0, 0), (0, -1), 4, BAND_COLOURS[band] if band else PALE),
            ("LEFTPADDING", (0, 0), (-1, -1), 9),
        ]
        return [Table([[cell]], colWidths=[WIDTH], style=looks, spaceBefore=4)]

    def _pictures(self) -> list[Flowable]:
        shown = pictures(self.explanation, self.description.preprocessing, WIDTH / 2 - 8, 84 * mm)
        head = self._text("Radiograph", "h2")
        if not shown:
            why = (
                "This model reads clinical values alone; it looks at no radiograph."
                if self.description.arm == "tabular"
                else "No radiograph was given: the answer rests on the clinical values alone."
            )
            return [head, self._text(why)]
        note = self.description.saliency_note
        cells: list[Any] = [[picture, self._text(said, "small")] for said, picture in shown]
        if len(cells) == 1:
            why = f"No map of the image: {note.strip()}" if note else "There is no map of the image"
            cells.append(self._text(sentence(why), "soft"))
        looks = [("VALIGN", (0, 0), (-1, -1), "TOP"), *bare(0)]
        return [KeepTogether([head, Table([cells], colWidths=[WIDTH / 2] * 2, style=looks)])]

    def _classes(self) -> list[Flowable]:
        rows = [
            [
                self._text(
                    class_words(name), "bold_cell" if name == self.prediction.label else "cell"
                ),
                share_bar(share, 60 * mm),
                self._text(percent(share), "cell"),
            ]
            for name, share in self.prediction.probabilities.items()
        ]
        head = f"Most probable class: {class_words(self.prediction.label)}"
        table = ruled(rows, [0.25 * WIDTH, 0.4 * WIDTH, 0.35 * WIDTH], head=0)
        return [KeepTogether([self._text(head, "h2"), table])]

    def _values(self) -> list[Flowable]:
        head = self._text("Clinical values, and what each did to the answer", "h2")
        given = [value for value in self.prediction.values if value.source != "missing"]
        if not given:
            why = (
                "No clinical value was given: the answer rests on the radiograph alone."
                if self.features
                else "This model reads the radiograph alone; it takes no clinical values."
            )
            return [head, self._text(why)]
        effects = {item.name: item for item in self.explanation.attributions}
        given.sort(
            key=lambda value: -abs(effects[value.name].log_odds if value.name in effects else 0)
        )
        missing = [value.label for value in self.prediction.values if value.source == "missing"]
        found: list[Flowable] = [head, self._valueruled(given)]
        if missing:
            found.append(self._text(f"Not given: {', '.join(missing)}.", "soft"))
        found.append(
            self._text(
                "Usual: the middle 98 % of the training cases. Bars: log-odds, against the same "
                "patient with that one value replaced by the baseline, which is the training "
                "cases' median (numbers) or most frequent answer; beside them the risk with the "
                "baseline, then as it is. Effects do not add up, and none is a cause.",
                "soft",
            )
        )
        return found

    def _valueruled(self, given: Sequence[ClinicalValue]) -> Table:
        effects = {item.name: item for item in self.explanation.attributions}
        furthest = max([abs(item.log_odds) for item in effects.values()] + [0.1])
        baselines = dict(zip(self.features, self.description.clinical_baseline, strict=True))
        head = ("Value", "Read as", "From", "Usual", "Baseline", "lowered | raised", "Risk")
        rows: list[list[Any]] = [[self._text(name, "head") for name in head]]
        for value in given:
            feature, effect = self.features[value.name], effects.get(value.name)
            label = [self._text(value.label, "cell")]
            if value.mark is not None:
                label.append(self._text(f"\u26a0 {MARKS[value.mark]}", "mark"))
            rows.append(
                [
                    label,
                    self._text(value_words(feature, value.value), "bold_cell"),
                    self._text(SOURCES[value.source], "cell"),
                    self._text(usual_words(value), "cell"),
                    self._text(baseline_words(feature, baselines[value.name]), "cell"),
                    effect_bar(effect.log_odds, furthest, 27 * mm) if effect else "",
                    self._text(self._moved(effect.risk_without) if effect else "", "number"),
                ]
            )
        shares = (0.27, 0.15, 0.075, 0.115, 0.12, 0.16, 0.11)
        return ruled(rows, [share * WIDTH for share in shares])

    def _moved(self, risk_without: float) -> str:
        return f"{percent(risk_without)} \u2192 {percent(self.prediction.risk)}"

    def _modalities(self) -> list[Flowable]:
        effects = self.explanation.modalities
        if not effects:
            return []
        furthest = max([abs(effect) for effect in effects.values()] + [0.1])
        names = {"image": "Radiograph", "clinical": "Clinical values together"}
        rows = [
            [
                self._text(names[name], "cell"),
                effect_bar(effect, furthest, 60 * mm),
                self._text(_direction(effect), "cell"),
            ]
            for name, effect in effects.items()
        ]
        said = "Log-odds, against leaving that part out altogether."
        return [
            KeepTogether(
                [
                    self._text("Radiograph or clinical values?", "h2"),
                    ruled(rows, [0.25 * WIDTH, 0.4 * WIDTH, 0.35 * WIDTH], head=0),
                    self._text(said, "soft"),
                ]
            )
        ]

    def _operating_points(self) -> list[Flowable]:
        title = self._text("Operating points", "h2")
        points = {str(point.name): point for point in self.description.operating_points}
        if not self.prediction.calls:
            note = self.description.decision_note or "None could be chosen for this model"
            return [title, self._text(sentence(note))]
        head = ("Rule", "This patient", "From a risk of", "Sensitivity", "Specificity")
        rows: list[list[Any]] = [[self._text(name, "head") for name in head]]
        for call in self.prediction.calls:
            point = points[call.name]
            target = percent(point.target) if point.target is not None else "most"
            called = f"{'' if call.low_bmd else 'not '}called {self.description.positive}"
            texts = (
                _RULES[call.name].format(target=target),
                called,
                percent(call.threshold) if call.threshold <= 1 else "calls nobody",
                reached_words(point.sensitivity),
                reached_words(point.specificity),
            )
            rows.append([self._text(text, "cell") for text in texts])
        chosen = "; ".join(dict.fromkeys(point.chosen_on for point in points.values()))
        said = (
            "In brackets: 95 % intervals and numbers of test cases. Thresholds, those of the bands "
            f"too, were chosen on {chosen}."
        )
        table = ruled(rows, [share * WIDTH for share in (0.25, 0.17, 0.12, 0.23, 0.23)])
        return [KeepTogether([title, table, self._text(said, "soft")])]

    def _limits(self) -> list[Flowable]:
        d = self.description
        rows, regions = d.training.rows, " and ".join(d.regions)
        source = f"{', '.join(d.training.manifest)}: {d.training.citation.rstrip('.')}"
        said = [
            d.intended_use,
            f"Trained on {rows.get('train', 0)} cases ({regions}; {source}). The figures are from "
            f"{rows.get('test', 0)} test cases that were held back.",
            "A low risk rules out neither low bone density elsewhere nor fracture risk; a "
            "plausible picture or list of reasons does not make the answer right.",
        ]
        notes = (d.calibration.note, d.embedding_note, d.training.synthetic_what)
        said += [note for note in notes if note]
        items = [self._text(sentence(text), "small") for text in said]
        bullets = ListFlowable(
            items, bulletType="bullet", start="\u2022", leftIndent=9, bulletFontSize=7
        )
        return [self._text(f"Limits: {NO_DIAGNOSIS.lower()}", "h2"), bullets]


def _direction(effect: float) -> str:
    if abs(effect) < _SMALLEST:
        return "did not change the answer"
    return f"{'raised' if effect > 0 else 'lowered'} the risk, by {abs(effect):.2f}"
