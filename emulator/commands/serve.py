"""`job-runtime-local serve`: run the emulator."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from emulator.commands import Refused
from emulator.settings import ENVIRONMENT_PREFIX, InvalidSetting, SettingField, Settings, load_settings, setting_fields

CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"

BANNER = """\
job-runtime-local is listening on {url}
  model server  {model}
  database      {database}

Point your agent at it:
  export AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME={url}
  export RFT_RUNTIME_ENDPOINT={url}
  export OPENAI_BASE_URL={url}/v1
  export AWS_REGION={region} AWS_DEFAULT_REGION={region}
  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add every setting as an option."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        f"Each option can also be given as {ENVIRONMENT_PREFIX}NAME in the environment (--max-in-flight is\n"
        f"{ENVIRONMENT_PREFIX}MAX_IN_FLIGHT), or as name = value in a TOML file. The command line wins over the\n"
        "environment, the environment over the file."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"TOML file of settings (or {CONFIG_VARIABLE})")
    for each in setting_fields():
        add_option(parser, each)
    parser.set_defaults(run=run)


def add_option(parser: argparse.ArgumentParser, each: SettingField) -> None:
    """Add one setting as an option; its value stays a text until `load_settings` checks it."""
    shown = "" if each.default in (None, (), False) else f" (default: {each.default})"
    help_text = (each.help + shown).replace("%", "%%")
    if each.type is bool:
        parser.add_argument(each.option, action="store_true", default=None, help=help_text)
    elif each.is_list:
        parser.add_argument(each.option, action="append", metavar=each.metavar, help=help_text)
    else:
        metavar = "|".join(each.choices) if each.choices else each.metavar or each.type.__name__.upper()
        parser.add_argument(each.option, metavar=metavar, help=help_text)


def run(given: argparse.Namespace) -> int:
    """Serve until a signal. Raises Refused."""
    values = {each.name: getattr(given, each.name) for each in setting_fields()}
    config = given.config or os.environ.get(CONFIG_VARIABLE)
    try:
        settings = load_settings(values, os.environ, Path(config) if config else None)
        return _serve(settings)
    except InvalidSetting as error:
        raise Refused(str(error)) from None


def _serve(settings: Settings) -> int:
    from emulator.inference.model_server import ModelServerError
    from emulator.server import CannotListen, Server, configure_logging
    from emulator.store import DatabaseError

    configure_logging(settings)
    try:
        server = Server(settings)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(server.serve(lambda: print(banner(settings, server.url), flush=True)))
    except (CannotListen, DatabaseError, ModelServerError) as error:
        raise Refused(str(error)) from None
    return 0


def banner(settings: Settings, url: str) -> str:
    """What a user needs to know when the server is up."""
    database = "in memory" if settings.durability == "memory" else f"{settings.database} ({settings.durability})"
    return BANNER.format(url=url, model=settings.shown_model, database=database, region=settings.region)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop
