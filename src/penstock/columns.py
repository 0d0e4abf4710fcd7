"""Columns: the wanted columns of a CSV, JSON Lines or Parquet file as arrays of texts.

Whatever makes a file doubtful raises ReportError, in one sentence that names the file and the line (of Parquet, which
has none, the row).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.errors import ReportError
from penstock.texts import WIDTH, as_bytes, canonical, cut_out, decoded, order, repeated, texts_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from penstock.texts import Bytes, Places, Texts

    Lines = npt.NDArray[np.int32]

MAX_BYTES = 512 << 20
_BLOCK = 8 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Columns:
    """Columns of one file by name, all of the same length, and for each of their rows where it stands in the file."""

    file: str
    texts: Mapping[str, Texts]
    lines: Lines
    counts_rows: bool = False

    def where(self, place: int) -> str:
        """Where a row stands: `FILE:LINE`, or `FILE, row N`."""
        return _where(self.file, int(self.lines[place]), counts_rows=self.counts_rows)

    def refuse(self, place: int, sentence: str) -> NoReturn:
        raise ReportError(f"{self.where(place)}: {sentence}")

    def at(self, places: Places) -> Columns:
        """The rows at some places, in their order."""
        texts = {column: values[places] for column, values in self.texts.items()}
        return Columns(self.file, texts, self.lines[places], self.counts_rows)

    def mended(self, name: str) -> Columns:
        """The same with one column in canonical form."""
        return replace(self, texts={**self.texts, name: canonical(self.texts[name])})

    def emptied(self) -> Columns:
        """The same names and lines without the texts."""
        return replace(self, texts={name: texts[:0] for name, texts in self.texts.items()})

    def sorted_by(self, name: str) -> Columns:
        """The rows in the order of a column; raises ReportError, naming both rows, where two rows have the same."""
        found = self.at(order(self.texts[name]))
        texts = found.texts
        again = repeated(texts[name])
        if len(again):
            place = int(again[found.lines[again].argmin()])
            said = f"row {found.lines[place - 1]}" if self.counts_rows else f"line {found.lines[place - 1]}"
            value = shown(texts[name][place])
            found.refuse(place, f'the {name} "{value}" is already in {said}: {name}s must differ')
        return found


def shown(text: bytes) -> str:
    """A text for a sentence: on one line, and not too long."""
    whole = decoded(text)
    whole = whole if whole.isprintable() else repr(whole)[1:-1]
    return whole if len(whole) <= 60 else f"{whole[:60]}…"


def read_columns(
    data: bytes, file: str, required: Sequence[str], optional: Sequence[str] = (), gaps: Sequence[str] = ()
) -> Columns:
    """Read the required columns of a file, and those of the optional ones that it has; `NAME:` is all that begin so.

    By its first bytes a file is Parquet; else by the end of its name CSV (`.csv`: header row, commas, double quotes)
    or JSON Lines (`.jsonl`, `.ndjson`); UTF-8, with or without byte order mark, any line ends. Other columns are left
    alone. Raises ReportError for a missing or doubled column, a row of another length, and an empty or NaN value of a
    column that is not among `gaps`.
    """
    if not data or data.isspace():
        raise ReportError(f"{file}: the file is empty: did the step write it?")
    if len(data) > MAX_BYTES:
        raise ReportError(f"{file}: {len(data) >> 20} MiB are too much: evidence may have {MAX_BYTES >> 20} MiB a file")
    suffix = ".parquet" if data[:4] == b"PAR1" else "." + file.lower().rpartition(".")[2]
    reader = _READERS.get(suffix)
    if reader is None:
        raise ReportError(f"{file}: evidence is read from files that end in {', '.join(_READERS)}: write one of these")
    found = reader(data, file, required, optional, gaps)
    if not len(found.lines):
        raise ReportError(f"{file}: there are no examples in it")
    for name in found.texts:
        if name not in gaps:
            _check_filled(found, name)
    return found


def column_names(data: bytes, file: str) -> tuple[str, ...]:
    """The columns of a file, of JSON Lines those of its first row. Raises ReportError for what is no such file."""
    if data[:4] == b"PAR1":
        return tuple(_parquet(data, file)[0].schema_arrow.names)
    data = _checked_text(data, file)
    if not file.lower().endswith(".csv"):
        rows = data.split(b"\n")
        line = next((number for number, row in enumerate(rows, start=1) if row.strip()), 1)
        return tuple(_json_record(rows[line - 1].decode(), file, line))
    fields = _Fields(next(_blocks(data), b""), file, 1)
    fields.drop_blank()
    return tuple(name.strip() for name in fields.row(0)) if len(fields.lines) else ()


def _check_filled(found: Columns, name: str) -> None:
    import numpy as np

    texts = found.texts[name]
    table = as_bytes(texts)
    first = table[:, 0]
    begins = (first | 32) == ord("n")
    if table.shape[1] > 1:
        begins |= ((first == ord("+")) | (first == ord("-"))) & ((table[:, 1] | 32) == ord("n"))
    for place in np.flatnonzero((first == 0) | begins).tolist():
        text = texts[place].lower().lstrip(b"+-")
        if text in (b"", b"nan"):
            found.refuse(place, f'the column "{name}" is {"NaN" if text else "empty"}: mend or leave out the row')


def _where(file: str, line: int, *, counts_rows: bool = False) -> str:
    return f"{file}, row {line}" if counts_rows else f"{file}:{line}"


def _refuse(file: str, line: int, sentence: str) -> NoReturn:
    raise ReportError(f"{_where(file, line)}: {sentence}")


def _chosen(where: str, header: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """The place of each wanted column in the header; names in the header may have spaces around them."""
    found = [name.strip() for name in header]
    begins = tuple(name for name in optional if name.endswith(":"))
    wanted = dict.fromkeys([*required, *(name for name in optional if name in found)])
    wanted |= dict.fromkeys(name for name in found if begins and name.startswith(begins))
    for name in wanted:
        if found.count(name) > 1:
            raise ReportError(f'{where}: the column "{name}" is there twice: leave one out')
        if name not in found:
            raise ReportError(f"{where}: {_absent(name, [column for column in found if column not in wanted])}")
    return {name: found.index(name) for name in wanted}


def _absent(name: str, others: list[str]) -> str:
    """A sentence on a column that is not there, with the nearest that is."""
    from difflib import get_close_matches

    nearest = get_close_matches(name, others, 1, 0.5)
    if nearest:
        return f'there is no column "{name}": rename "{_cut(nearest[0])}" if that is it'
    return f'there is no column "{name}"; others are {", ".join(map(_cut, others[:5])) or "none"}: rename or add it'


def _cut(text: str) -> str:
    return shown(text.encode("utf-8", "surrogatepass"))


def _checked_text(data: bytes, file: str) -> bytes:
    """The bytes without byte order mark, lines ended by a newline, once they are known to be text."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            _refuse(file, data.count(b"\n", 0, error.start) + 1, "this is no UTF-8 text")
    if b"\0" in data:
        _refuse(file, data.count(b"\n", 0, data.index(b"\0")) + 1, "there is a NUL byte: write plain text")
    return data


# --- CSV -----------------------------------------------------------------------------------------------------------


def _read_csv(
    data: bytes, file: str, required: Sequence[str], optional: Sequence[str], _gaps: Sequence[str]
) -> Columns:
    import numpy as np

    data = _checked_text(data, file)
    parts: list[tuple[list[Texts], Lines]] = []
    places: dict[str, int] = {}
    width, line = 0, 1
    for block in _blocks(data):
        fields = _Fields(block, file, line)
        line += block.count(b"\n")
        if not places:
            fields.drop_blank()
            if not len(fields.lines):
                continue
            places, width = _header(fields, required, optional), int(fields.widths[0])
            fields.drop(1)
        fields.check_width(width)
        parts.append(([fields.column(place, width) for place in places.values()], fields.lines))
    if not parts:
        raise ReportError(f"{file}: the file is empty: did the step write it?")
    texts = {name: np.concatenate([part[0][i] for part in parts]) for i, name in enumerate(places)}
    return Columns(file, texts, np.concatenate([lines for _, lines in parts]))


def _blocks(data: bytes) -> Iterator[bytes]:
    """The rows of a file some millions of bytes at a time; a block ends where a line ends outside of quotes."""
    start = 0
    while start < len(data):
        end = start
        while end < len(data):
            end = data.find(b"\n", min(end + _BLOCK, len(data))) + 1 or len(data)
            if data.count(b'"', start, end) % 2 == 0:
                break
        yield data[start:end]
        start = end


def _header(fields: _Fields, required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    where = _where(fields.file, int(fields.lines[0]))
    return _chosen(where, fields.row(0), required, optional)


class _Fields:
    """Where the fields of some rows begin and end; `starts` and `ends` have the fields of all rows in a line."""

    def __init__(self, block: bytes, file: str, line: int) -> None:
        import numpy as np

        self.file = file
        self._block = block
        self.data: Bytes = np.frombuffer(block + b"\n" * (not block.endswith(b"\n")) + bytes(WIDTH), np.uint8)
        whole = self.data[:-WIDTH]
        ends = np.flatnonzero((whole == ord(",")) | (whole == ord("\n")))
        quotes = np.flatnonzero(whole == ord('"')) if b'"' in block else ends[:0]
        before = np.searchsorted(quotes, ends) if len(quotes) else None
        if before is not None:
            outside = before % 2 == 0
            ends, before = ends[outside], before[outside]
        is_last = whole[ends] == ord("\n")
        last = np.flatnonzero(is_last)
        self.widths: Places = np.diff(last, prepend=-1)
        self.starts: Places = np.concatenate([[0], ends + 1])[:-1]
        self.ends: Places = ends - (is_last & (ends > self.starts) & (whole[ends - 1] == ord("\r")))
        self._line = line
        self._counts: Places | None = None if before is None else np.diff(before, prepend=0)
        self._check_quotes(len(quotes) % 2 == 1)
        found = np.arange(len(last), dtype=np.int32)
        if before is not None and len(last):
            begins = self.starts[np.concatenate([[0], last[:-1] + 1])]
            found = np.searchsorted(np.flatnonzero(whole == ord("\n")), begins).astype(np.int32)
        self.lines: Lines = found + np.int32(line)

    def _check_quotes(self, never_closed: bool) -> None:
        """Raise ReportError where quotes are not at both ends of a field, and doubled between them."""
        import numpy as np

        if self._counts is None:
            return
        places = np.flatnonzero(self._counts)
        starts, ends = self.starts[places], self.ends[places]
        fine = (self.data[starts] == ord('"')) & (self.data[ends - 1] == ord('"')) & (ends - starts >= 2)
        for place in np.flatnonzero(self._counts[places] > 2).tolist():
            fine[place] &= b'"' not in self._between(int(places[place])).replace(b'""', b"")
        if not fine.all():
            self._refuse_quote(int(starts[np.argmin(fine)]))
        if never_closed:
            begin = int(self.ends[-1]) + 1 if len(self.ends) else 0
            opened = self._block.index(b'"', begin)
            if self._block[begin:opened].strip():
                self._refuse_quote(opened)
            _refuse(self.file, self._line_at(opened), "this is no CSV: a quote is opened and never closed")

    def _refuse_quote(self, place: int) -> NoReturn:
        wrong = "a quote is in the middle of a field: quote the whole field, and double the quote"
        _refuse(self.file, self._line_at(place), f"this is no CSV: {wrong}")

    def _line_at(self, place: int) -> int:
        return self._line + self._block.count(b"\n", 0, place)

    def _between(self, field: int) -> bytes:
        return self._block[self.starts[field] + 1 : self.ends[field] - 1]

    def drop_blank(self) -> None:
        """Leave out the blank rows."""
        import numpy as np

        if not (self.widths == 1).any():
            return
        first = np.cumsum(self.widths) - self.widths
        self._keep(~((self.widths == 1) & (self.starts[first] == self.ends[first])))

    def drop(self, rows: int) -> None:
        """Leave out the first rows."""
        import numpy as np

        self._keep(np.arange(len(self.widths)) >= rows)

    def _keep(self, rows: npt.NDArray[np.bool_]) -> None:
        import numpy as np

        fields = np.repeat(rows, self.widths)
        self.starts, self.ends = self.starts[fields], self.ends[fields]
        self._counts = None if self._counts is None else self._counts[fields]
        self.widths, self.lines = self.widths[rows], self.lines[rows]

    def check_width(self, width: int) -> None:
        """Raise ReportError for the first row of another width, after blank ones are left out."""
        import numpy as np

        if (self.widths == width).all():
            return
        self.drop_blank()
        wrong = np.flatnonzero(self.widths != width)
        if len(wrong):
            row = int(wrong[0])
            sentence = f"there are {self.widths[row]} columns, expected {width} as in the header"
            _refuse(self.file, int(self.lines[row]), sentence)

    def column(self, place: int, width: int) -> Texts:
        import numpy as np

        starts, ends = self.starts[place::width], self.ends[place::width]
        if self._counts is None:
            return cut_out(self.data, starts, ends)
        counts = self._counts[place::width]
        quoted = counts > 0
        found = cut_out(self.data, starts + quoted, ends - quoted)
        doubled = np.flatnonzero(counts > 2)
        whole = texts_of([self._unquoted(field * width + place) for field in doubled.tolist()])
        found = found.astype(max(found.dtype, whole.dtype), copy=False)
        found[doubled] = whole
        return found

    def _unquoted(self, field: int) -> str:
        if self._counts is not None and self._counts[field]:
            return self._between(field).replace(b'""', b'"').decode()
        return self._block[self.starts[field] : self.ends[field]].decode()

    def row(self, number: int) -> list[str]:
        first = int(self.widths[:number].sum())
        return [self._unquoted(field) for field in range(first, first + int(self.widths[number]))]


# --- JSON Lines ----------------------------------------------------------------------------------------------------


def _read_json(
    data: bytes, file: str, required: Sequence[str], optional: Sequence[str], gaps: Sequence[str]
) -> Columns:
    import numpy as np

    names: list[str] = []
    columns: list[list[str]] = []
    lines: list[int] = []
    for line, row in enumerate(_checked_text(data, file).decode().split("\n"), start=1):
        if row.strip():
            record = _json_record(row, file, line)
            if not names:
                names = list(_chosen(_where(file, line), list(record), required, optional))
                columns = [[] for _ in names]
            for name, column in zip(names, columns, strict=True):
                column.append("" if name in gaps and name not in record else _json_value(record, name, file, line))
            lines.append(line)
    texts = {name: texts_of(column) for name, column in zip(names, columns, strict=True)}
    return Columns(file, texts, np.array(lines, np.int32))


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
    if "\0" in value:
        _refuse(file, line, f'"{name}" has a NUL character: write plain text')
    return value


# --- Parquet -------------------------------------------------------------------------------------------------------


def _parquet(data: bytes, file: str) -> tuple[Any, Any]:
    """A Parquet file, opened, and pyarrow itself."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        what = "install pyarrow beside Penstock, or let the step write .csv"
        raise ReportError(f"{file}: Parquet is read with pyarrow, which is not installed here: {what}") from error
    try:
        return parquet.ParquetFile(pa.BufferReader(data)), pa
    except (pa.ArrowException, OSError) as error:
        raise _broken(file, error) from error


def _broken(file: str, error: Exception) -> ReportError:
    reason = " ".join(str(error).split())
    return ReportError(f"{file}: this is no whole Parquet file: {reason[:200]}")


def _read_parquet(
    data: bytes, file: str, required: Sequence[str], optional: Sequence[str], gaps: Sequence[str]
) -> Columns:
    import numpy as np

    source, pa = _parquet(data, file)
    chosen = _chosen(file, source.schema_arrow.names, required, optional)
    names = [source.schema_arrow.names[place] for place in chosen.values()]
    texts = {}
    try:
        for name, own in zip(chosen, names, strict=True):
            column = source.read(columns=[own], use_threads=False).column(0)
            texts[name] = _arrow_texts(column, name, file, pa, has_gaps=name in gaps)
    except (pa.ArrowException, OSError) as error:
        raise _broken(file, error) from error
    return Columns(file, texts, np.arange(1, source.metadata.num_rows + 1, dtype=np.int32), counts_rows=True)


def _arrow_texts(column: Any, name: str, file: str, pa: Any, *, has_gaps: bool = False) -> Texts:
    import numpy as np

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        raise ReportError(f'{file}: the column "{name}" is {column.type}, expected texts or numbers')
    if column.null_count and has_gaps:
        column = column.cast(pa.large_string()).fill_null("")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0]) + 1
        _refuse_row(file, row, f'the column "{name}" is empty: mend or leave out the row')
    parts = [_chunk_texts(chunk.cast(pa.large_string()), name, file) for chunk in column.chunks if len(chunk)]
    texts: Texts = np.concatenate(parts) if parts else np.zeros(0, "S1")
    return texts


def _chunk_texts(chunk: Any, name: str, file: str) -> Texts:
    """The texts of a chunk, from the memory in which Arrow has them."""
    import numpy as np

    _, offsets, values = chunk.buffers()
    bounds = np.frombuffer(offsets, np.int64, len(chunk) + 1, chunk.offset * 8)
    data = np.zeros(0, np.uint8) if values is None else np.frombuffer(values, np.uint8)[: bounds[-1]]
    if not data[bounds[0] :].all():
        raise ReportError(f'{file}: the column "{name}" has a NUL character: write plain text')
    return cut_out(np.concatenate([data, np.zeros(WIDTH, np.uint8)]), bounds[:-1], bounds[1:])


def _refuse_row(file: str, row: int, sentence: str) -> NoReturn:
    raise ReportError(f"{_where(file, row, counts_rows=True)}: {sentence}")


_READERS = {".csv": _read_csv, ".jsonl": _read_json, ".ndjson": _read_json, ".parquet": _read_parquet}
