"""`job-runtime-local serve`: run the emulator."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import sys

from emulator.commands import Refused, add_config_option, read_settings
from emulator.settings import InvalidSetting, Settings
from emulator.settings_sources import ENVIRONMENT_PREFIX, SettingField, setting_fields, unknown_variables

log = logging.getLogger(__name__)

#: Files beside the connections of samples in flight: the database, listings, clients that are idle.
OTHER_FILES = 1024

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
    add_config_option(parser)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for each in setting_fields():
        if each.group not in groups:
            groups[each.group] = parser.add_argument_group(each.group)
        add_option(groups[each.group], each)
    parser.set_defaults(run=run)


def add_option(group: argparse._ArgumentGroup, each: SettingField) -> None:
    """Add one setting as an option; its value stays a text until `load_settings` checks it."""
    shown = f" (default: {each.shown_default})" if each.shown_default else ""
    help_text = (each.help + shown).replace("%", "%%")
    if each.type is bool:
        group.add_argument(each.option, dest=each.name, action="store_true", default=None, help=help_text)
    else:
        metavar = "|".join(each.choices) if each.choices else each.metavar
        action = "append" if each.is_list else "store"
        group.add_argument(each.option, dest=each.name, action=action, metavar=metavar, help=help_text)


def run(given: argparse.Namespace) -> int:
    """Serve until a signal. Raises Refused."""
    values = {each.name: getattr(given, each.name) for each in setting_fields()}
    settings = read_settings(values, given.config)
    for name in unknown_variables(os.environ):
        print(f"job-runtime-local: {name} is no setting; `job-runtime-local serve --help` lists them", file=sys.stderr)
    try:
        return _serve(settings)
    except InvalidSetting as error:
        raise Refused(str(error)) from None


def _serve(settings: Settings) -> int:
    from emulator.inference.model_server import ModelServerError
    from emulator.logs import configure_logging
    from emulator.server import CannotListen, Server
    from emulator.store import DatabaseError

    configure_logging(settings)
    allow_open_files(2 * settings.max_in_flight + OTHER_FILES)
    try:
        server = Server(settings)
        if settings.agents:  # functions of this process find the runtime, and not AWS
            from emulator.commands.endpoint import set_agent_environment

            set_agent_environment(server.url, settings.region)
        with asyncio.Runner(loop_factory=event_loop()) as runner:

            def started() -> None:
                _spare_the_garbage_collector()
                print(banner(settings, server.url), flush=True)

            runner.run(server.serve(started))
    except (CannotListen, DatabaseError, ModelServerError) as error:
        raise Refused(str(error)) from None
    return 0


def allow_open_files(wanted: int) -> None:
    """Let this process have the connections that it may need, two a sample; most shells stop it at 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):  # the system has a limit beside the user's
        allowed = soft
    if allowed < wanted:
        log.warning("only %d files may be open: %d would do for --max-in-flight (ulimit -Hn)", allowed, wanted)


def _spare_the_garbage_collector() -> None:
    """Keep it from looking through all that was imported, again and again: that made the slowest samples slower."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def banner(settings: Settings, url: str) -> str:
    """What a user needs to know when the server is up."""
    database = "in memory" if settings.durability == "memory" else f"{settings.shown_database} ({settings.durability})"
    model = settings.shown_model + (f", recording {settings.shown_record}" if settings.record else "")
    return BANNER.format(url=url, model=model, database=database, region=settings.region)


def event_loop() -> type[asyncio.AbstractEventLoop] | None:
    """The quickest event loop there is here."""
    try:
        import uvloop
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop
