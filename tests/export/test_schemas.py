"""The schemas in docs/ are those of the code, and real exports keep to them, in either kind of file.

`python -m tests.export.test_schemas` writes them anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from emulator.export import SCHEMAS
from emulator.export.shape import Field, Many, Shape, json_schema
from tests.export.conftest import Captured

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "exports.md"

OPTIONS = {
    "native/1": {"format": "native"},
    "openai/1": {"format": "openai"},
    "trl-sft/1": {"format": "trl", "for": "sft"},
    "trl-grpo/1": {"format": "trl", "for": "grpo"},
    "trl-dpo/1": {"format": "trl", "for": "dpo", "failed": "true"},
    "tokens/1": {"format": "tokens"},
}


def schema_path(name: str) -> Path:
    return DOCS / "schemas" / f"export-{name.replace('/', '-')}.json"


def schema_text(name: str) -> str:
    about, shape = SCHEMAS[name]
    return json.dumps(json_schema(name, about, shape), indent=2, ensure_ascii=False) + "\n"


def table(name: str) -> str:
    path = schema_path(name).relative_to(DOCS)
    rows = [f"[{path.name}]({path})", "", "| Column | Type | |", "|---|---|---|"]
    return "\n".join([*rows, *_rows(SCHEMAS[name][1], "")]) + "\n"


def _rows(shape: Shape, prefix: str) -> list[str]:
    rows = []
    for name, field in shape.items():
        rows.append(f"| `{prefix}{name}` | {_kind(field)} | {field.about} |")
        inner = field.kind.of if isinstance(field.kind, Many) else field.kind
        if not isinstance(inner, str | Many):
            rows += _rows(inner, f"{prefix}{name}.")
    return rows


def _kind(field: Field) -> str:
    if isinstance(field.kind, Many):
        return f"list of {field.kind.of if isinstance(field.kind.of, str) else 'objects'}"
    return field.kind if isinstance(field.kind, str) else "object"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_in_docs_is_the_codes(name: str) -> None:
    assert schema_path(name).read_text() == schema_text(name), "run `python -m tests.export.test_schemas`"
    found = re.search(f"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", PAGE.read_text(), re.DOTALL)
    assert found, name
    assert found[1] == table(name), "run `python -m tests.export.test_schemas`"


def test_there_is_no_other_schema_of_exports_in_docs() -> None:
    assert {path.name for path in (DOCS / "schemas").glob("export-*")} == {schema_path(name).name for name in SCHEMAS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_real_exports_keep_to_their_schema(name: str, captured: Captured) -> None:
    schema = json.loads(schema_path(name).read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    rows = captured.rows(**OPTIONS[name])
    assert rows
    for row in rows:
        validator.validate(row)
        assert row["schema"] == name


@pytest.mark.parametrize("name", SCHEMAS)
def test_parquet_holds_the_same_rows_with_types_of_their_own(name: str, captured: Captured, tmp_path: Path) -> None:
    path = tmp_path / "export.parquet"
    path.write_bytes(captured.get(file="parquet", **OPTIONS[name]).content)
    file = pyarrow.parquet.ParquetFile(path)
    assert file.schema_arrow.metadata[b"job-runtime-local"].decode() == name
    shape = SCHEMAS[name][1]
    rows = [_object(row, shape) for row in file.read().to_pylist()]
    expected = [_with_times(row, shape) for row in captured.rows(**OPTIONS[name])]
    assert rows == expected


def _object(row: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """A row of parquet with its JSON decoded."""
    return {name: _value(row[name], field.kind) for name, field in shape.items()}


def _value(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.loads(value)
    if isinstance(kind, Many):
        return [_value(each, kind.of) for each in value]
    return value if isinstance(kind, str) else _object(value, kind)


def _with_times(row: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """A row of JSON Lines with its times decoded."""
    from datetime import datetime

    def decoded(value: Any, kind: Any) -> Any:
        if value is None or isinstance(kind, str):
            return datetime.fromisoformat(value) if kind == "time" and value is not None else value
        if isinstance(kind, Many):
            return [decoded(each, kind.of) for each in value]
        return {name: decoded(value[name], field.kind) for name, field in kind.items()}

    found: dict[str, Any] = decoded(row, shape)
    return found


if __name__ == "__main__":
    page = PAGE.read_text()
    for each in SCHEMAS:
        schema_path(each).write_text(schema_text(each))
        before, rest = page.split(f"<!-- {each}: begin -->\n")
        page = (
            f"{before}<!-- {each}: begin -->\n{table(each)}<!-- {each}: end -->{rest.split(f'<!-- {each}: end -->')[1]}"
        )
    PAGE.write_text(page)
