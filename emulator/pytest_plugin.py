"""The pytest plugin: fixtures, a marker, options of the ini file, and the conversations of a test that failed.

Installed with the package, it is imported by every pytest run there is: what is heavy is imported by the first test
that uses it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from emulator.settings import Settings
    from emulator.testing import JobRuntime

#: Settings that the ini file can give, as `job_runtime_NAME`: all but where to listen, and how to log.
SETTINGS = (
    "database", "durability", "database_timeout",
    "model", "rewrite_model", "model_api_key", "model_connect_timeout", "model_answer_timeout", "model_idle_timeout",
    "vllm_python", "vllm_log", "record", "cassette_ignores", "cassette_pauses", "cassette_used_up",
    "trajectories", "jobs", "agents", "limits", "policy_update", "mlflow", "mlflow_python",
    "region", "auth", "key_pairs", "account",
    "max_request_bytes", "max_answer_bytes", "max_in_flight", "shutdown_timeout", "faults",
)  # fmt: skip

_PREFIX = "job_runtime_"

MARKER = (
    "job_runtime(strict=False, **settings): settings of this test's job_runtime, those of `job-runtime-local serve`; "
    "strict: fail if scripted replies are left"
)

#: The runtime of a test, while it has one; and whether all replies that it scripts are to be used.
_RUNTIME = pytest.StashKey["JobRuntime"]()
_STRICT = pytest.StashKey[bool]()

#: Trajectories that the report of a failed test shows.
SHOWN = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `job_runtime_model` and its like."""
    for name in SETTINGS:
        parser.addini(_PREFIX + name, f"job_runtime's --{name.replace('_', '-')}", default=None)
    parser.addini(
        _PREFIX + "strict", "fail if replies that were scripted for job_runtime are left", "bool", default=False
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture(scope="session")
def job_runtime_settings() -> Mapping[str, Any] | Settings:
    """Settings of `job_runtime`, by name: override it, in any scope. They go before those of the ini file."""
    return {}


@pytest.fixture(scope="session")
def _job_runtime_servers(pytestconfig: pytest.Config) -> Iterator[_Servers]:
    with _quick_imports(pytestconfig.pluginmanager.rewrite_hook):
        import emulator.testing  # noqa: F401
    servers = _Servers()
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def job_runtime_server(
    request: pytest.FixtureRequest,
    job_runtime_settings: Mapping[str, Any] | Settings,
    _job_runtime_servers: _Servers,
) -> JobRuntime:
    """The emulator, started once a session; not cleared, and the environment is left alone."""
    return _job_runtime_servers.running(_settings(request, job_runtime_settings, {}))


@pytest.fixture
def job_runtime(
    request: pytest.FixtureRequest,
    job_runtime_settings: Mapping[str, Any] | Settings,
    _job_runtime_servers: _Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[JobRuntime]:
    """A running emulator as new, to which this test's environment variables lead."""
    marked = _marked(request.node)
    strict = bool(marked.pop("strict", request.config.getini(_PREFIX + "strict")))
    settings = _settings(request, job_runtime_settings, marked)
    runtime = _job_runtime_servers.running(settings)
    runtime.reset()
    for name, value in runtime.environment.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    stash = request.node.stash
    stash[_RUNTIME], stash[_STRICT] = runtime, strict
    with runtime.boto3_session.lent():
        yield runtime
    del stash[_RUNTIME]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test whose agent asked the model what no reply was scripted for."""
    yield
    if (runtime := item.stash.get(_RUNTIME, None)) is not None:
        try:
            runtime.model.check(strict=item.stash[_STRICT])
        except AssertionError as error:
            problem = str(error)
        else:
            return
        pytest.fail(problem, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the conversations of a test that failed."""
    report = yield
    if report.failed and (runtime := item.stash.get(_RUNTIME, None)) is not None:
        report.sections.append(("job_runtime", _conversations(runtime)))
        if findings := _findings(runtime):
            report.sections.append(("job_runtime's verdict", findings))
    return report


class _Servers:
    """The emulators of this session, one for each set of settings that a test asked for."""

    def __init__(self) -> None:
        self._running: dict[Settings, JobRuntime] = {}
        self._exits = ExitStack()

    def running(self, settings: Settings) -> JobRuntime:
        """The one with these settings, which is started if there is none. Fails the test if it cannot start."""
        found = self._running.get(settings)
        if found is None or not found.is_running:  # a test may have stopped it
            found = self._start(settings)
            self._running[settings] = found
            self._exits.callback(found.stop)
        return found

    def stop(self) -> None:
        """Stop them all."""
        self._exits.close()

    def _start(self, settings: Settings) -> JobRuntime:
        from emulator.inference.model_server import ModelServerError
        from emulator.server import CannotListen
        from emulator.settings import InvalidSetting
        from emulator.store import DatabaseError
        from emulator.testing import DatabaseInUse, JobRuntime

        try:
            runtime = JobRuntime(settings)
            runtime.start()
        except (InvalidSetting, CannotListen, DatabaseError, DatabaseInUse, ModelServerError) as error:
            problem = str(error)
        else:
            return runtime
        pytest.fail(f"job_runtime cannot start: {problem}", pytrace=False)


@contextmanager
def _quick_imports(rewrite_hook: Any) -> Iterator[None]:
    """Import without looking for garbage, of which there is none (a seventh of the time), and as the files stand.

    pytest rewrites the assertions of a plugin's whole package, which takes as long again where it has not kept the
    result of an earlier run.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    place = sys.meta_path.index(rewrite_hook) if rewrite_hook in sys.meta_path else None
    if place is not None:
        del sys.meta_path[place]
    try:
        yield
    finally:
        if place is not None:
            sys.meta_path.insert(place, rewrite_hook)
        if was_enabled:
            gc.enable()


def _marked(node: pytest.Item) -> dict[str, Any]:
    """What the markers of a test set; that which is closest to it wins."""
    given: dict[str, Any] = {}
    for marker in node.iter_markers("job_runtime"):
        if marker.args:
            pytest.fail(
                f"@pytest.mark.job_runtime takes settings by name, not {', '.join(map(repr, marker.args))}",
                pytrace=False,
            )
        given = {**marker.kwargs, **given}
    return given


def _settings(
    request: pytest.FixtureRequest, fixture: Mapping[str, Any] | Settings, marked: Mapping[str, Any]
) -> Settings:
    """The marker's over the fixture's over those of the ini file. Fails the test if they cannot be."""
    from emulator.settings import InvalidSetting, Settings
    from emulator.testing.runtime import settings_of

    config = request.config
    of_ini = _of_ini(config)
    if isinstance(fixture, Settings):
        others = [*(f"the ini file ({_PREFIX}{name})" for name in of_ini), *(f"the marker ({name})" for name in marked)]
        if others:
            pytest.fail(
                f"job_runtime_settings returns whole Settings, beside which nothing else can be set, "
                f"as {' and '.join(others)} does: return a mapping with what shall differ",
                pytrace=False,
            )
        return fixture
    try:
        return settings_of({**of_ini, **fixture, **marked})
    except InvalidSetting as error:
        problem = str(error)
    where = {"the ini file": of_ini, "job_runtime_settings": fixture, "@pytest.mark.job_runtime": marked}
    given = "; ".join(f"{name} ({', '.join(values)})" for name, values in where.items() if values)
    pytest.fail(f"job_runtime: {problem}; settings are from {given}", pytrace=False)


def _of_ini(config: pytest.Config) -> dict[str, str]:
    """What the ini file sets. Files that it names lie where it lies, wherever pytest was started."""
    found: dict[str, str] = {name: value for name in SETTINGS if (value := config.getini(_PREFIX + name))}
    if config.inipath is None:
        return found
    folder = config.inipath.parent
    for name in found.keys() & {"faults", "vllm_log", "database"}:
        if "://" not in found[name]:
            found[name] = str(folder / found[name])
    for name in found.keys() & {"model", "record"}:
        kind, _, file = found[name].partition(":")
        if kind in ("scripted", "cassette") and file:
            found[name] = f"{kind}:{folder / file}"
    return found


def _conversations(runtime: JobRuntime) -> str:
    """What was captured, for the report of a test that failed."""
    try:
        trajectories = runtime.trajectories
    except Exception as error:  # whatever it is, the test's own failure is what matters
        return f"the trajectories could not be read: {error!r}"
    shown = [str(each) for each in trajectories[:SHOWN]]
    if len(trajectories) > SHOWN:
        shown.append(f"and {len(trajectories) - SHOWN} more trajectories")
    return "\n\n".join(shown) or "no trajectories: no sample, seal or reward was received"


def _findings(runtime: JobRuntime) -> str:
    """What the agent should not have done, for the same."""
    try:
        return "\n".join(map(str, runtime.verdict().findings))
    except Exception as error:
        return f"there is none: {error!r}"
