"""`job-runtime-local run -- COMMAND`: a program that finds the emulator in place of AWS, and reaches nothing else."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from emulator.commands import Refused, add_config_option, read_settings
from emulator.commands.endpoint import ask_server, checked_url, default_url, is_local_url, place_of
from emulator.commands.serve import add_option
from emulator.settings import Settings
from emulator.settings_sources import setting_fields

if TYPE_CHECKING:
    from emulator.offline.environment import Place
    from emulator.testing.server import ServerThread

EPILOG = """\
The program gets all that `job-runtime-local env` prints, and a proxy on this machine that leads the names of AWS's
hosts (*.amazonaws.com, *.amazonaws.com.cn, *.aws) to the emulator, under certificates that only this program is told
to believe. Every other host is refused, and said on standard error. A program that reads no proxy variables is not
held back by this.

Without --endpoint, an emulator that runs at AWS_ENDPOINT_URL or at the port of the settings is used if no option of
`serve` is given; else one runs in this process, at a free port, as long as the program does. The exit status is the
program's.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the program, and the options of `serve`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "job-runtime-local run [OPTIONS] -- COMMAND …"
    parser.epilog = EPILOG
    parser.add_argument("--endpoint", metavar="URL", help="an emulator that runs on this machine")
    add_config_option(parser)
    serving = parser.add_argument_group("the emulator in this process")
    for each in setting_fields():
        add_option(serving, each)
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program, and its arguments")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run the program; its exit status. Raises Refused."""
    command = given.program[1:] if given.program[:1] == ["--"] else given.program
    if not command:
        raise Refused("run: names no program: job-runtime-local run -- python train.py")
    try:
        import trustme  # noqa: F401  # of an extra: found out before anything is started
    except ImportError:
        raise Refused("run needs an extra: pip install 'job-runtime-local[aws]'") from None
    values = {each.name: getattr(given, each.name) for each in setting_fields()}
    settings = read_settings(values, given.config)
    place = _running(given, settings, any(value is not None for value in values.values()))
    values["port"] = "0" if given.port is None else given.port
    values["log_level"] = given.log_level or "warning"
    with tempfile.TemporaryDirectory(prefix="job-runtime-local-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(_Run(read_settings(values, given.config), Path(folder)).run(command, place))


def _running(given: argparse.Namespace, settings: Settings, has_options: bool) -> Place | None:
    """An emulator that runs, if the program is to use one. Raises Refused."""
    if given.endpoint is None:
        for url in () if has_options else (os.environ.get("AWS_ENDPOINT_URL", "").rstrip("/"), default_url(settings)):
            if is_local_url(url) and (told := ask_server(url)) is not None:
                _say(f"using the emulator at {url}")
                return place_of(url, settings, told)
        return None
    if has_options:
        raise Refused("run: --endpoint names an emulator that runs; options of serve are for one that is started")
    url = checked_url(given.endpoint)
    if (told := ask_server(url)) is None:
        raise Refused(f"--endpoint: there is no emulator at {url}")
    return place_of(url, settings, told)


def _say(text: str) -> None:
    print(f"job-runtime-local: {text}", file=sys.stderr, flush=True)


class _Run:
    """One call of the command."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        from emulator.offline.child import Child

        self._settings = settings
        self._folder = folder
        self._child = Child(self._on_signal)
        self._thread: ServerThread | None = None
        self._signal: signal.Signals | None = None

    async def run(self, command: list[str], place: Place | None) -> int:
        """The exit status. Raises Refused."""
        self._child.take_signals()
        if place is None:
            place = await self._start()
        try:
            if self._signal is not None:
                return 128 + self._signal
            return await self._run(command, place)
        finally:
            if self._thread is not None:
                await asyncio.to_thread(self._end, self._thread)

    async def _start(self) -> Place:
        """Start an emulator in this process. Raises Refused."""
        from emulator.inference.model_server import ModelServerError
        from emulator.logs import configure_logging
        from emulator.offline.environment import client_variables, set_variables
        from emulator.server import CannotListen
        from emulator.settings import InvalidSetting
        from emulator.store import DatabaseError
        from emulator.testing.server import ServerThread

        configure_logging(self._settings)
        try:
            thread = ServerThread(self._settings)
            place = place_of(thread.server.url, self._settings)
            # Jobs and their agents run in this process: they, too, find the emulator in place of AWS.
            set_variables(client_variables(place, os.environ))
            await asyncio.to_thread(thread.start)
        except (CannotListen, DatabaseError, InvalidSetting, ModelServerError) as error:
            raise Refused(str(error)) from None
        self._thread = thread
        return place

    async def _run(self, command: list[str], place: Place) -> int:
        """The program, behind its proxy."""
        from emulator.offline.authority import Authority
        from emulator.offline.proxy import Proxy

        authority = Authority()
        bundle = self._folder / "certificates.pem"
        authority.write_bundle(bundle, os.environ)
        url = urlsplit(place.url)
        assert url.hostname is not None
        proxy = Proxy((url.hostname, url.port or 80), authority, _say)
        proxy_url = await proxy.start()
        try:
            if self._signal is not None:
                return 128 + self._signal
            return await self._child.run(command, self._environment(place, proxy_url, bundle))
        finally:
            await proxy.aclose()

    def _environment(self, place: Place, proxy: str, bundle: Path) -> Mapping[str, str]:
        """The program's variables: ours, and those of this process that do not lead elsewhere."""
        from emulator.offline.environment import client_variables, enclosing_variables, sdk_configuration
        from emulator.offline.profiles import FILES, write_profiles

        profiles = self._folder / "aws.ini"
        write_profiles(place, os.environ, profiles)
        configuration = self._folder / "sagemaker.yaml"
        configuration.write_text(sdk_configuration(place))
        variables: dict[str, str | None] = dict(os.environ)
        variables |= client_variables(place, os.environ, configuration)
        variables |= enclosing_variables(proxy, bundle)
        variables |= dict(zip(FILES, (str(profiles), os.devnull), strict=True))
        return {name: value for name, value in variables.items() if value is not None}

    def _end(self, thread: ServerThread) -> None:
        """End the emulator of this process, and say what it leaves undone."""
        from emulator.store import StoreError
        from emulator.store.jobs import active_jobs
        from emulator.testing.server import NotRunning

        store = thread.server.app.store
        lost = self._settings.durability == "memory"
        then = "lost, as nothing is on disk" if lost else "gone on with by the next emulator that has this database"
        try:
            for job in thread.call(lambda: store.write(("", ""), active_jobs)):
                _say(f"job {job.name} is not over; it is {then}")
        except (StoreError, NotRunning, CancelledError) as error:
            if self._signal is None:  # else that has ended the emulator
                _say(f"whether a job is not over cannot be read: {error}")
        thread.stop()

    def _on_signal(self, number: signal.Signals) -> None:
        """There is no child, yet or any more: the server is starting, or stopping."""
        self._signal = number
        if self._thread is not None:
            self._thread.server.stop_at_once()
