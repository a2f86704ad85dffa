"""What each column of a clinical table is: kind, unit, role, and the evidence for it."""

from __future__ import annotations

from osteofusion.data.drafting import concepts
from osteofusion.data.drafting.answers import NO, NONE, YES, sex_of_header, sexes, yes_no
from osteofusion.data.drafting.concepts import Concept
from osteofusion.data.drafting.measures import MOSTLY, cells_are, draft_numbers, has_other_mark
from osteofusion.data.drafting.profile import ColumnDraft, Profile
from osteofusion.data.drafting.words import fold, shown
from osteofusion.data.manifest import Column, normalise_header

_NEARLY_ALL = 0.95
_MAX_WORDS = 40  # a category with more is free text
_LONGEST = 60  # letters of a category


def draft_column(profile: Profile) -> ColumnDraft:
    """Look at one column; its name may still clash with another's."""
    concept = concepts.find_concept(profile.header)
    name = concepts.canonical_name(profile.header) or "column"
    draft = ColumnDraft(profile, name, {"header": _plain_header(profile.header)})
    if not profile.counts:
        return _ignored(draft, "empty")
    if len(profile.dates) > 0.5 * len(profile.cells):
        told = (
            "birth dates identify a patient" if concepts.says(profile.header, "birth") else "dates"
        )
        return _ignored(draft, told)
    numbers, _ = profile.numbers
    if concepts.says(profile.header, "identifying") and numbers.empty:
        return _ignored(draft, "may name a person")
    if len(numbers) >= MOSTLY * len(profile.words) and set(profile.counts) - {"0", "1"}:
        draft_numbers(draft, concept)
    elif has_other_mark(profile):
        draft.entry |= {"kind": "numeric", "role": "ignored"}
        draft.comments.append(
            f"numbers whose decimal mark is not {profile.decimal!r} as in the other columns: "
            "replace it in the table, then delete the role"
        )
    else:
        _worded(draft, concept)
    _role(draft, concept)
    if len(profile.counts) == 1:
        word = next(iter(profile.counts))
        empty = " or empty" if len(profile.cells) < profile.rows else ""
        draft.comments.insert(0, f"{shown([word])} in every row{empty}")
        if concept is None and draft.role == "feature":
            draft.entry["role"] = "ignored"
    return draft


def _worded(draft: ColumnDraft, concept: Concept | None) -> None:
    profile = draft.profile
    says_sex = concept is not None and concept.name == "female"
    by_header = sex_of_header(profile.header)
    answers = yes_no(profile.counts)
    pair = sexes(profile.counts, header_says_sex=says_sex)
    if by_header is not None and profile.share(answers) >= _NEARLY_ALL:
        pair = {word: answer if by_header else 1 - answer for word, answer in answers.items()}
        answers = {}
    if profile.share(pair) >= _NEARLY_ALL and (says_sex or not answers):
        draft.name = "female"
        _binary(draft, pair)
    elif says_sex:
        draft.name = "sex"
        draft.entry["kind"] = "categorical"
        draft.comments.append(
            f"words {shown(profile.counts)}; if you know them, call it female, kind binary, with "
            "values that say which is 1"
        )
    elif profile.share(answers) >= _NEARLY_ALL:
        draft.name = _binary_name(draft.name, concept)
        _binary(draft, answers)
    elif len(profile.counts) == 1 and fold(next(iter(profile.counts))) in YES | NO:
        word = next(iter(profile.counts))
        draft.name = _binary_name(draft.name, concept)
        _binary(draft, {word: int(fold(word) in YES)})
    else:
        if concept is not None and concept.quantity is None:
            draft.name = concept.name
        _free(draft, concept)


def _binary_name(name: str, concept: Concept | None) -> str:
    """A concept's name, unless it is a number that the column only asks about."""
    if concept is None:
        return name
    return name if concept.quantity is not None else concept.name


def _binary(draft: ColumnDraft, values: dict[str, int]) -> None:
    draft.entry["kind"] = "binary"
    profile = draft.profile
    others = [word for word in profile.counts if word not in values]
    count = sum(profile.counts[word] for word in others)
    _, unknown = profile.parse(Column(kind="binary"))
    if draft.name == "female" or len(unknown) > count:
        draft.entry["values"] = dict(values)
    if others:
        draft.comments.append(f"{cells_are(count)} neither and missing: {shown(others)}")


def _free(draft: ColumnDraft, concept: Concept | None) -> None:
    """Words that are no yes and no: presence, categories or free text."""
    profile = draft.profile
    total = sum(profile.counts.values())
    none = [word for word in profile.counts if fold(word) in NONE]
    others = len(profile.counts) - len(none)
    longest = max(map(len, profile.counts))
    if none and profile.share(none) >= 0.15 and others > 5:
        draft.entry["kind"] = "presence"
        if set(none) - {"no", "none", "0", "false"}:
            draft.entry["absent"] = none
        draft.comments.append(
            f"{sum(profile.counts[word] for word in none)} of {total} cells say none; the other "
            f"{others} wordings count as 1"
        )
    elif len(profile.counts) <= min(_MAX_WORDS, max(2, 0.3 * total)) and longest <= _LONGEST:
        draft.entry["kind"] = "categorical"
        if len(profile.counts) > 1:
            draft.comments.append(f"words {shown(profile.counts, 6)}")
    else:
        draft.entry |= {"kind": "text", "role": "ignored"}
        if len(profile.counts) >= 0.9 * total and concepts.says(profile.header, "id"):
            draft.entry["role"] = "identifier"
        draft.comments.append(
            f"{len(profile.counts)} different texts, such as {shown(profile.counts, 2)}"
        )


def _role(draft: ColumnDraft, concept: Concept | None) -> None:
    if draft.role != "feature":
        return
    numeric = draft.entry["kind"] == "numeric"
    if concept is not None and concept.is_outcome:
        draft.entry["role"] = "outcome"
        draft.comments.append(concept.follows_label)
    elif concepts.says(draft.profile.header, "supplements") and not numeric:
        draft.entry["role"] = "outcome"
        draft.comments.append("calcium and vitamin D are often given because of the diagnosis")


def _ignored(draft: ColumnDraft, why: str) -> ColumnDraft:
    draft.entry |= {"kind": "text", "role": "ignored"}
    draft.comments.append(why)
    return draft


def _plain_header(header: str) -> str:
    plain = " ".join(header.split()).rstrip(" :")
    return plain if normalise_header(plain) == normalise_header(header) else header
