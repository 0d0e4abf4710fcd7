"""Evidence: per-example results, read from a step's files, joined by id, and scored.

Columns are tuples of text as it was written, one place per example: a million examples are three tuples, not a
million objects. Whatever makes the evidence doubtful raises ReportError naming file and line.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, NoReturn

from penstock.artifacts import Digest, digest_of
from penstock.errors import ReportError

Score = Literal["correct", "absolute_error", "squared_error"]


@dataclass(frozen=True)
class Evidence:
    """Examples that have both truth and prediction, in the order of the file that holds the truth.

    `unpredicted` counts examples of the truth without a prediction, `unlabelled` predictions without a truth.
    """

    ids: tuple[str, ...]
    truth: tuple[str, ...]
    predictions: tuple[str, ...]
    unpredicted: int = 0
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unmatched(self) -> int:
        """Examples that only one of the two files has."""
        return self.unpredicted + self.unlabelled

    @cached_property
    def test_set(self) -> Digest:
        """What was asked, whatever was answered: the digest of all (id, truth), in no particular order."""
        return digest_of("test-set", sorted(zip(self.ids, self.truth, strict=True)))

    def scores(self, kind: Score) -> tuple[float, ...]:
        """One score per example: 1 or 0 for `correct`, else the error, absolute or squared, in the truth's unit.

        A prediction is correct if it is the truth's very text or the same number (`3` and `3.0`). Errors need
        finite numbers; raises ReportError naming the example that has none.
        """
        pairs = zip(self.truth, self.predictions, strict=True)
        if kind == "correct":
            return tuple(float(is_same(truth, prediction)) for truth, prediction in pairs)
        power = 1 if kind == "absolute_error" else 2
        truth = [self._number(i, text, "truth") for i, text in zip(self.ids, self.truth, strict=True)]
        found = [self._number(i, text, "prediction") for i, text in zip(self.ids, self.predictions, strict=True)]
        return tuple(self._error(*row, power) for row in zip(self.ids, truth, found, strict=True))

    @staticmethod
    def _number(example: str, text: str, column: str) -> float:
        number = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(number):
            raise ReportError(f'the {column} of example "{_cut(example)}" is {_cut(text)!r}, expected a finite number')
        return number

    @staticmethod
    def _error(example: str, truth: float, prediction: float, power: int) -> float:
        difference = abs(prediction - truth)
        error = difference if power == 1 else difference * difference
        if math.isinf(error):
            raise ReportError(f'the error of example "{_cut(example)}" is too large to be counted')
        return error


def mean(scores: Sequence[float]) -> float:
    """The mean of at least one score, without loss by adding up."""
    return math.fsum(scores) / len(scores)


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)


def is_same(truth: str, prediction: str) -> bool:
    """Whether two texts are equal, or write the same number; digits beyond a float's count too."""
    if truth == prediction:
        return True
    if _NUMBER.fullmatch(truth) is None or _NUMBER.fullmatch(prediction) is None:
        return False
    return Decimal(truth) == Decimal(prediction)


# --- reading -------------------------------------------------------------------------------------------------------


def read_evidence(predictions: bytes, truth: bytes | None, predictions_file: str, truth_file: str | None) -> Evidence:
    """Read a file of predictions and one of truths, or one file that holds both (`truth` is None).

    By the name's end a file is CSV (`.csv`: header row, commas, double quotes) or JSON Lines (`.jsonl`, `.ndjson`);
    UTF-8, with or without byte order mark, any line ends. Columns are `id`, `prediction` and `truth`; others are left
    alone. Raises ReportError for a missing or doubled column or id, an empty or NaN value, a row of another length.
    """
    if truth is None or truth_file is None:
        ids, answers, labels = _columns(predictions, predictions_file, ("id", "prediction", "truth"))
        return Evidence(ids, labels, answers)
    answer_of = dict(zip(*_columns(predictions, predictions_file, ("id", "prediction")), strict=True))
    ids, labels = _columns(truth, truth_file, ("id", "truth"))
    kept = [(i, label, answer_of[i]) for i, label in zip(ids, labels, strict=True) if i in answer_of]
    if not kept:
        raise ReportError(f"{predictions_file}: no id of it is in {truth_file}: write the same ids into both")
    known, wanted, given = zip(*kept, strict=True)
    return Evidence(known, wanted, given, unpredicted=len(ids) - len(kept), unlabelled=len(answer_of) - len(kept))


def _columns(data: bytes, file: str, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The wanted columns of a file, each as long as the file has rows; ids are unique."""
    reader = next((read for suffix, read in _READERS.items() if file.lower().endswith(suffix)), None)
    if reader is None:
        raise ReportError(f"{file}: evidence is read from files that end in {', '.join(_READERS)}: write one of these")
    rows = list(reader(_text(data, file), file, names))
    if not rows:
        raise ReportError(f"{file}: there are no examples in it")
    lines, *columns = zip(*rows, strict=True)
    for name, column in zip(names, columns, strict=True):
        _check_filled(file, lines, name, column)
    _check_unique(file, lines, columns[0])
    return columns


_NANS = frozenset({"", "nan", "+nan", "-nan"})


def _check_filled(file: str, lines: Sequence[int], name: str, column: Sequence[str]) -> None:
    if not _NANS.isdisjoint(map(str.lower, column)):
        line, value = next((n, v) for n, v in zip(lines, column, strict=True) if v.lower() in _NANS)
        _refuse(file, line, f'the column "{name}" is {"NaN" if value else "empty"}: mend or leave out the row')


def _check_unique(file: str, lines: Sequence[int], ids: Sequence[str]) -> None:
    first = dict(zip(reversed(ids), reversed(lines), strict=True))
    if len(first) < len(ids):
        line, name = next((n, i) for n, i in zip(lines, ids, strict=True) if first[i] != n)
        _refuse(file, line, f'the id "{_cut(name)}" is already in line {first[name]}: ids must differ')


def _text(data: bytes, file: str) -> str:
    if not data.strip():
        raise ReportError(f"{file}: the file is empty: did the step write it?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(file, data.count(b"\n", 0, error.start) + 1, "this is no UTF-8 text")


def _csv_rows(text: str, file: str, names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    places: list[int] = []
    width = 0
    try:
        for row in reader:
            if not places:
                places, width = _places(row, file, reader.line_num, names), len(row)
            elif row:
                if len(row) != width:
                    _refuse(file, reader.line_num, f"there are {len(row)} columns, expected {width} as in the header")
                yield (reader.line_num, *(row[place] for place in places))
    except csv.Error as error:
        _refuse(file, reader.line_num, f"this is no CSV: {error}")


def _places(header: list[str], file: str, line: int, names: tuple[str, ...]) -> list[int]:
    found = [name.strip() for name in header]
    for name in names:
        if found.count(name) > 1:
            _refuse(file, line, f'the column "{name}" is there twice: leave one out')
        if name not in found:
            _refuse(file, line, _absent(name, [column for column in found if column not in names]))
    return [found.index(name) for name in names]


def _absent(name: str, others: list[str]) -> str:
    """A sentence on a column that is not there, with the nearest that is."""
    from difflib import get_close_matches  # noqa: PLC0415 (loaded for a mistake only)

    nearest = get_close_matches(name, others, 1, 0.5)
    if nearest:
        return f'there is no column "{name}": rename "{_cut(nearest[0])}" if that is it'
    return f'there is no column "{name}"; others are {", ".join(map(_cut, others[:5])) or "none"}: rename or add it'


def _json_rows(text: str, file: str, names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    for line, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            record = _json_record(row, file, line)
            yield (line, *(_json_value(record, name, file, line) for name in names))


def _json_record(row: str, file: str, line: int) -> dict[str, Any]:
    try:
        pairs = _DECODER.decode(row)
    except (json.JSONDecodeError, RecursionError):
        _refuse(file, line, "this is no JSON: expected one object per line")
    if not isinstance(pairs, _Pairs):
        _refuse(file, line, 'expected an object such as {"id": "1", "prediction": "7"}')
    record = dict(pairs)
    if len(record) != len(pairs):
        _refuse(file, line, "a name is there twice: leave one out")
    return record


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written."""


# Numbers stay the text that they are: what is compared or counted later decides how to read them.
_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=str)


def _json_value(record: dict[str, Any], name: str, file: str, line: int) -> str:
    if name not in record:
        _refuse(file, line, _absent(name, list(record)))
    value = record[name]
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(file, line, f'"{name}" is a list or object, expected a text or number')
    return value


_READERS = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}


def _refuse(file: str, line: int, sentence: str) -> NoReturn:
    raise ReportError(f"{file}:{line}: {sentence}")


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
