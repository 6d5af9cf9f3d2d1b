"""Reads exports as their users do, with `datasets` and pandas. Runs in an environment of its own.

    python -m tests.export.read_back RESULT FILE...

RESULT gets, as JSON: what each library read of each file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-not-found,unused-ignore]
import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]

#: What `datasets` calls the kinds of files.
KINDS = {".jsonl": "json", ".parquet": "parquet"}


def read(path: Path, cache: Path) -> dict[str, Any]:
    """A file's rows by `datasets`, and its columns, their types and its rewards by pandas."""
    data = datasets.load_dataset(KINDS[path.suffix], data_files=str(path), split="train", cache_dir=str(cache))
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_json(path, lines=True)
    return {
        "rows": data.to_list(),
        "columns": list(frame.columns),
        "types": {name: str(kind) for name, kind in frame.dtypes.items()},
        "rewards": json.loads(frame["reward"].to_json(orient="values")) if "reward" in frame else None,
    }


if __name__ == "__main__":
    result, *files = map(Path, sys.argv[1:])
    datasets.disable_progress_bars()
    report = {path.name: read(path, result.parent / "cache") for path in files}
    result.write_text(json.dumps(report, default=str))
