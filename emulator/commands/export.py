"""`job-runtime-local export`: what was captured, as data sets, whether a server is running or not."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from emulator.commands import Refused
from emulator.commands.db import add_database_option, database_of
from emulator.commands.trajectories import add_filter, read_filter, reading
from emulator.terminal import visible

if TYPE_CHECKING:
    from emulator.export import Tokenizer


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    from emulator.advantages import OF_ONE_GROUP

    parser.add_argument(
        "--format",
        choices=("native", "openai", "trl", "tokens"),
        default="native",
        help="native: everything; openai: messages, tools, reward; trl: data sets of TRL; tokens: token ids, masks, "
        "logprobs, advantages (default: native)",
    )
    parser.add_argument("--for", dest="purpose", choices=("sft", "grpo", "dpo"), help="what --format trl is for")
    parser.add_argument("--file", choices=("jsonl", "parquet"), help="default: by the end of --output's name, or jsonl")
    parser.add_argument("--output", type=Path, metavar="FILE", help="appears when it is whole (default: stdout)")
    parser.add_argument("--eligible", action="store_true", help="only trajectories that a trainer may use")
    parser.add_argument(
        "--failed", action="store_true", help="also those that their agent gave up; native has them in any case"
    )
    add_filter(parser)
    parser.add_argument("--trajectory", metavar="ID", help="only those of this id")
    parser.add_argument("--group", metavar="GROUP", help="only those of this group")
    parser.add_argument("--min-reward", type=_number, metavar="X", help="only those whose rewards' sum is X or more")
    parser.add_argument("--max-reward", type=_number, metavar="X", help="only those whose rewards' sum is X or less")
    parser.add_argument(
        "--advantage",
        choices=OF_ONE_GROUP,
        default="group_based",
        help="how --format tokens computes advantages (default: group_based)",
    )
    parser.add_argument(
        "--tokenizer", metavar="URL", help="model server whose /tokenize gives the token ids that answers do not have"
    )
    add_database_option(parser)
    parser.set_defaults(run=_export)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _export(given: argparse.Namespace) -> int:
    from emulator.export import InvalidExport, NoParquet, Plan, Tally, export

    file = given.file or ("parquet" if given.output is not None and given.output.suffix == ".parquet" else "jsonl")
    which = replace(read_filter(given), trajectory_id=given.trajectory, group=given.group, eligible=given.eligible)
    plan = Plan(
        which, given.failed, given.min_reward, given.max_reward, given.format, given.purpose, file, given.advantage
    )
    if file == "parquet" and given.output is None and sys.stdout.isatty():
        raise Refused("parquet is nothing to read in a terminal: --output names a file")
    try:
        plan.check()
    except InvalidExport as error:
        raise Refused(f"--{error}") from None
    except NoParquet as error:
        raise Refused(str(error)) from None
    tally = Tally()
    with (
        reading(database_of(given)) as connection,
        _tokenizer(given.tokenizer) as tokenizer,
        _output(given.output) as output,
    ):
        for piece in export(connection, plan, tally, tokenizer):
            output.write(piece)
        output.flush()
    if given.output is not None or tally.left_out:
        print(visible(f"{given.output or 'stdout'}: {tally}"), file=sys.stderr)
    return 0


@contextmanager
def _tokenizer(url: str | None) -> Iterator[Tokenizer | None]:
    """Raises Refused."""
    if url is None:
        yield None
        return
    from emulator.export.tokenizing import Tokenizer, ask_model_server
    from emulator.inference.remote import RemoteServer

    try:
        server = RemoteServer(url, api_key=os.environ.get("JOB_RUNTIME_LOCAL_MODEL_API_KEY"))
    except ValueError as error:
        raise Refused(f"--tokenizer: {error}") from None
    with asyncio.Runner() as runner:
        yield Tokenizer(lambda request: runner.run(ask_model_server(server, request)))
        runner.run(server.aclose())


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Where an export goes; a file appears under its name when it is whole. Raises Refused."""
    if path is None:
        yield sys.stdout.buffer
        return
    file_path = path.resolve()
    partial = file_path.with_name(f"{file_path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and not path.is_file():  # a pipe or a device: nothing to put in its place
            with path.open("wb") as file:
                yield file
            return
        with partial.open("wb") as file:
            yield file
        partial.replace(file_path)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; --output names another file") from None
    finally:
        partial.unlink(missing_ok=True)
