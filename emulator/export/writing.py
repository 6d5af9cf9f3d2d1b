"""Rows as bytes, piece by piece: JSON Lines, and parquet in row groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from emulator.documents import to_json
from emulator.export.shape import Shape, arrow_row, arrow_schema, stored_schema

if TYPE_CHECKING:
    import pyarrow as pa

#: A piece is about as large, or a row.
PIECE = 256 * 1024

#: A row group is about as large, or a row: so much is in memory at once.
ROW_GROUP = 8 * 1024 * 1024

#: Rows of a row group, however small.
ROW_GROUP_ROWS = 20_000

Row = Mapping[str, Any]


class NoParquet(Exception):
    """What writes parquet is not installed; the message says how to install it."""


def require_parquet() -> None:
    """Raises NoParquet."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise NoParquet(
            "parquet needs pyarrow: pip install 'job-runtime-local[parquet]', or take the other file format, jsonl"
        ) from None


def json_lines(rows: Iterator[Row]) -> Iterator[bytes]:
    """A line a row, in ASCII."""
    lines: list[str] = []
    size = 0
    for row in rows:
        lines.append(to_json(row))
        size += len(lines[-1]) + 1
        if size >= PIECE:
            yield ("\n".join(lines) + "\n").encode("ascii")
            lines.clear()
            size = 0
    if lines:
        yield ("\n".join(lines) + "\n").encode("ascii")


def parquet(rows: Iterator[Row], shape: Shape, schema_name: str) -> Iterator[bytes]:
    """A file with a row group for each so many bytes. Raises NoParquet."""
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(shape, {"job-runtime-local": schema_name})
    sink = _Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for table in _tables(rows, shape, stored_schema(shape)):
            writer.write_table(table.cast(schema), row_group_size=table.num_rows)
            yield from sink.take()
    yield from sink.take()


def _tables(rows: Iterator[Row], shape: Shape, schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    size = count = 0
    for row in rows:
        batches.append(pa.RecordBatch.from_pylist([arrow_row(row, shape)], schema=schema))
        size += batches[-1].nbytes
        count += 1
        if size >= ROW_GROUP or count >= ROW_GROUP_ROWS:
            yield pa.Table.from_batches(batches, schema)
            batches.clear()
            size = count = 0
    if batches:
        yield pa.Table.from_batches(batches, schema)


class _Sink:
    """A file that is only written, and read by those who take what was written."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def write(self, data: Any) -> int:
        """Keep it."""
        self._pieces.append(bytes(data))
        self._position += len(self._pieces[-1])
        return len(self._pieces[-1])

    def tell(self) -> int:
        """How much was written, taken or not."""
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing to let go."""

    def take(self) -> Iterator[bytes]:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        if pieces:
            yield b"".join(pieces)
