"""Datasets: parquet, JSON Lines, a JSON array, CSV; on disk or behind `s3://`."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from emulator.trainer.rollouts import Row

#: The column that holds the prompt; of a dataset without it, the first one does.
PROMPT = "prompt"


class DatasetError(Exception):
    """A dataset cannot be read; the message is one line that names the file, and the row if it is one row's fault."""


def read_dataset(name: str, *, s3: Any = None) -> list[Row]:
    """All rows of a file, a folder's files, or of what `s3://BUCKET/KEY-OR-PREFIX` names.

    `s3`: botocore's client, in place of one as the environment has it. Raises DatasetError.
    """
    rows: list[Row] = []
    for file, content in _files(name, s3):
        for place, instance in _reader(file)(file, content):
            rows.append(_row(len(rows), instance, f"{file}: {place}"))
    if not rows:
        raise DatasetError(f"{name}: has no rows")
    return rows


def choose_rows(rows: list[Row], *, seed: int | None = None, limit: int | None = None) -> list[Row]:
    """The first `limit` rows: in the dataset's order, or in one drawn at random by `seed`."""
    chosen = list(rows)
    if seed is not None:
        random.Random(seed).shuffle(chosen)  # noqa: S311 - nothing secret
    return chosen[:limit]


def _files(name: str, s3: Any) -> Iterator[tuple[str, bytes]]:
    """Names and contents. Raises DatasetError."""
    if name.startswith("s3://"):
        from emulator.trainer.s3 import read_objects

        yield from read_objects(name, tuple(_READERS), s3)
        return
    path = Path(name)
    try:
        if path.is_dir():
            paths = sorted(each for each in path.iterdir() if each.suffix.lower() in _READERS)
            if not paths:
                raise DatasetError(f"{name}: no file in this folder ends with {_endings()}")
        else:
            paths = [path]
        for each in paths:
            yield str(each), each.read_bytes()
    except OSError as error:
        raise DatasetError(f"{error.filename or name}: {error.strerror or error}") from None


def _reader(file: str) -> Callable[[str, bytes], Iterable[tuple[str, Any]]]:
    """What reads a file of that name: where a row stands, and the row. Raises DatasetError."""
    reader = _READERS.get(Path(file).suffix.lower())
    if reader is None:
        raise DatasetError(f"{file}: what it holds is told by its name, which must end with {_endings()}")
    return reader


def _row(number: int, instance: Any, place: str) -> Row:
    """Raises DatasetError."""
    if not isinstance(instance, Mapping) or not instance:
        raise DatasetError(f"{place}: a row must be a JSON object with at least one member")
    column = PROMPT if PROMPT in instance else next(iter(instance))
    if instance[column] is None:
        raise DatasetError(f"{place}: has no {column!r}")
    return Row(number, instance[column], instance)


def _read_jsonl(file: str, content: bytes) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_text(file, content).split("\n"), 1):
        if line.strip():
            yield f"line {number}", _json(line, f"{file}: line {number}")


def _read_json(file: str, content: bytes) -> Iterator[tuple[str, Any]]:
    rows = _json(_text(file, content), file)
    if not isinstance(rows, list):
        raise DatasetError(f"{file}: must be a JSON array of objects (one object a line is called .jsonl)")
    for number, row in enumerate(rows):
        yield f"row {number}", row


def _read_csv(file: str, content: bytes) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(max(len(content), csv.field_size_limit()))  # of the whole process: never lowered
    reader = csv.DictReader(io.StringIO(_text(file, content), newline=""), strict=True)
    try:
        _check_columns(file, reader.fieldnames or ())
        for number, row in enumerate(reader):
            if None in row or None in row.values():
                raise DatasetError(f"{file}: row {number} (line {reader.line_num}): not as many fields as columns")
            yield f"row {number}", row
    except csv.Error as error:
        raise DatasetError(f"{file}: line {reader.line_num}: {error}") from None


def _read_parquet(file: str, content: bytes) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DatasetError(f"{file}: reading parquet needs pyarrow: pip install 'job-runtime-local[parquet]'") from None
    try:
        with ParquetFile(io.BytesIO(content)) as table:
            _check_columns(file, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    yield f"row {number}", {name: _plain(value, f"{file}: row {number}") for name, value in row.items()}
                    number += 1
    except DatasetError:
        raise
    except (ArrowException, ValueError, OverflowError) as error:  # texts and times that Python cannot say, too
        raise DatasetError(f"{file}: {' '.join(str(error).split())}") from None


def _check_columns(file: str, names: Sequence[str]) -> None:
    """Raises DatasetError for a name that two columns have: one of them would be lost."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DatasetError(f"{file}: has more than one column {twice[0]!r}")


def _plain(value: Any, place: str) -> Any:
    """A parquet value as JSON has it. Raises DatasetError for what it cannot say."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case None | str() | bool() | int():
            return value
        case dict():
            return {str(name): _plain(each, place) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each, place) for each in value]
        case date() | datetime() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
    raise DatasetError(f"{place}: JSON cannot say a {type(value).__name__}")


def _text(file: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DatasetError(f"{file}: line {line}: not UTF-8") from None


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise DatasetError(f"{place}: nested too deeply") from None
    except ValueError as error:
        raise DatasetError(f"{place}: not JSON: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is beyond all numbers")
    return number


_READERS: dict[str, Callable[[str, bytes], Iterable[tuple[str, Any]]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
}


def _endings() -> str:
    *others, last = _READERS
    return f"{', '.join(others)} or {last}"
