"""Datasets: each kind, what is wrong with one, and the order of its rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.trainer.datasets import DatasetError, choose_rows, read_dataset

ROWS = [
    {"id": 1, "prompt": "What is 2 + 2?", "answer": "4"},
    {"id": 2, "prompt": "Größe, “quoted”,\nin two lines", "answer": ""},
]


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def write_csv(path: Path) -> None:
    path.write_text('id,prompt,answer\n1,What is 2 + 2?,4\n2,"Größe, “quoted”,\nin two lines",\n')


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.parquet", write_parquet),
        ("rows.jsonl", lambda path: path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")),
        ("rows.ndjson", lambda path: path.write_text("﻿" + "\r\n".join(json.dumps(row) for row in ROWS))),
        ("ROWS.JSON", lambda path: path.write_text(json.dumps(ROWS))),
        ("rows.csv", write_csv),
    ],
)
def test_each_kind_gives_its_rows_with_their_prompts(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / name)
    rows = read_dataset(str(tmp_path / name))
    assert [row.number for row in rows] == [0, 1]
    assert [row.prompt for row in rows] == [each["prompt"] for each in ROWS]
    expected = ROWS if not name.endswith("csv") else [{**each, "id": str(each["id"])} for each in ROWS]
    assert [row.instance for row in rows] == expected


def test_without_a_column_prompt_the_first_one_holds_it(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\nWhy?,Because\n")
    assert read_dataset(str(tmp_path / "rows.csv"))[0].prompt == "Why?"


def test_a_prompt_that_is_a_conversation_stays_one(tmp_path: Path) -> None:
    conversation = [{"role": "user", "content": "Hello"}]
    pq.write_table(pa.Table.from_pylist([{"prompt": conversation}]), tmp_path / "rows.parquet")
    assert read_dataset(str(tmp_path / "rows.parquet"))[0].prompt == conversation


def test_what_parquet_has_and_json_has_not_becomes_a_text(tmp_path: Path) -> None:
    row = {"prompt": "p", "at": datetime(2026, 1, 2, tzinfo=UTC), "price": Decimal("1.50"), "nan": float("nan")}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    found = read_dataset(str(tmp_path / "rows.parquet"))[0].instance
    assert found == {"prompt": "p", "at": "2026-01-02T00:00:00+00:00", "price": "1.50", "nan": None}


def test_a_folder_gives_the_rows_of_its_files_by_name(tmp_path: Path) -> None:
    for name, prompt in (("b.jsonl", "second"), ("a.jsonl", "first")):
        (tmp_path / name).write_text(json.dumps({"prompt": prompt}))
    (tmp_path / "README.md").write_text("not a dataset")
    assert [(row.number, row.prompt) for row in read_dataset(str(tmp_path))] == [(0, "first"), (1, "second")]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("rows.txt", b"", "told by its name, which must end with .parquet, .jsonl, .ndjson, .json or .csv"),
        ("rows.jsonl", b"", "has no rows"),
        ("rows.jsonl", b'{"prompt": "p"}\n{"prompt"\n', "rows.jsonl: line 2: not JSON: "),
        ("rows.jsonl", b'{"prompt": NaN}\n', "rows.jsonl: line 1: not JSON: NaN is no JSON"),
        ("rows.jsonl", b'{"prompt": 1e999}\n', "rows.jsonl: line 1: not JSON: 1e999 is beyond all numbers"),
        ("rows.jsonl", b'{"prompt": "p"}\n"text"\n', "rows.jsonl: line 2: a row must be a JSON object"),
        ("rows.jsonl", b'{"prompt": "p"}\n{}\n', "rows.jsonl: line 2: a row must be a JSON object"),
        ("rows.jsonl", b'{"prompt": null}\n', "rows.jsonl: line 1: has no 'prompt'"),
        ("rows.jsonl", b'{"prompt": "p"}\n\xff\n', "rows.jsonl: line 2: not UTF-8"),
        ("rows.jsonl", b"[" * 100_000, "rows.jsonl: line 1: nested too deeply"),
        ("rows.json", b'{"prompt": "p"}', "rows.json: must be a JSON array"),
        ("rows.json", b'[{"prompt": "p"}, 3]', "rows.json: row 1: a row must be a JSON object"),
        ("rows.csv", b"prompt,answer\np,a\np\n", "rows.csv: row 1 (line 3): not as many fields as columns"),
        ("rows.csv", b"prompt\np,a\n", "rows.csv: row 0 (line 2): not as many fields as columns"),
        ("rows.csv", b"prompt,answer,answer\np,1,2\n", "rows.csv: has more than one column 'answer'"),
        ("rows.csv", b'prompt\n"p\n', "rows.csv: line 1: unexpected end of data"),
        ("rows.parquet", b"no parquet", "rows.parquet: "),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_row(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetError) as raised:
        read_dataset(str(path))
    assert problem in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bytes_in_a_parquet_row_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": "p"}, {"prompt": "p", "image": b"\xff"}], schema=pa.schema([("prompt", pa.string()), ("image", pa.binary())])), path)  # fmt: skip # noqa: E501
    with pytest.raises(DatasetError, match=r"rows.parquet: row 1: JSON cannot say a bytes"):
        read_dataset(str(path))


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array([2**62], pa.timestamp("us")), "date value out of range"),
        (pa.StringArray.from_buffers(1, pa.py_buffer(bytes(4) + b"\1\0\0\0"), pa.py_buffer(b"\xff")), "'utf-8' codec"),
    ],
    ids=["a time after all times", "a text that is none"],
)
def test_what_python_cannot_say_of_a_parquet_row_is_refused(column: pa.Array, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "odd": column}), path)
    with pytest.raises(DatasetError, match=rf"rows\.parquet: .*{problem}"):
        read_dataset(str(path))


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["p"]), pa.array(["q"])], names=["prompt", "prompt"]), path)
    with pytest.raises(DatasetError, match=r"rows\.parquet: has more than one column 'prompt'"):
        read_dataset(str(path))


def test_a_long_prompt_in_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt\n{'x' * 200_000}\n")
    assert read_dataset(str(path))[0].prompt == "x" * 200_000


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent.jsonl: No such file"):
        read_dataset(str(tmp_path / "absent.jsonl"))
    with pytest.raises(DatasetError, match="no file in this folder ends with"):
        read_dataset(str(tmp_path))


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "rows.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DatasetError, match=r"rows.parquet: .*pip install 'job-runtime-local\[parquet\]'"):
        read_dataset(str(tmp_path / "rows.parquet"))


def test_a_seed_draws_an_order_and_a_limit_takes_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": str(number)}) for number in range(20)))
    rows = read_dataset(str(tmp_path / "rows.jsonl"))
    drawn = choose_rows(rows, seed=1)
    assert choose_rows(rows) == rows
    assert drawn != rows
    assert sorted(drawn, key=lambda row: row.number) == rows
    assert drawn == choose_rows(rows, seed=1) != choose_rows(rows, seed=2)
    assert choose_rows(rows, seed=1, limit=3) == drawn[:3]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.integers() | st.lists(st.booleans()), min_size=1), min_size=1))  # fmt: skip # noqa: E501
def test_whatever_json_lines_say_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]) -> None:  # fmt: skip # noqa: E501
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert [row.instance for row in read_dataset(str(path))] == rows
