"""The model server that the settings choose; only what it takes is imported."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from emulator.inference.model_server import ModelServer
from emulator.settings import InvalidSetting, Settings


def make_model_server(settings: Settings) -> ModelServer:
    """The model server that `--model` names. Raises InvalidSetting."""
    kind, _, file = settings.model.partition(":")
    if kind != "cassette":
        return _model_server(settings, settings.model, "model")
    if not file:
        raise InvalidSetting("model: cassette: needs a file, as in cassette:answers.yaml")
    from emulator.inference.cassette import CassetteServer, field_path

    try:
        ignored = [field_path(field) for field in settings.cassette_ignores]
    except ValueError as error:
        raise InvalidSetting(f"cassette_ignores: {error}") from None
    return CassetteServer(
        Path(file).absolute(),
        None if settings.record is None else _model_server(settings, settings.record, "record"),
        ignored=ignored,
        pauses=settings.cassette_pauses == "recorded",
        repeat=settings.cassette_used_up == "repeat",
    )


def _model_server(settings: Settings, spec: str, name: str) -> ModelServer:
    """A model server as a setting of that name names it. Raises InvalidSetting."""
    kind, _, rest = spec.partition(":")
    try:
        match kind:
            case "scripted" if rest or spec == kind:
                return _scripted_server(rest, name)
            case "http" | "https":
                return _remote_server(settings, spec)
            case "vllm":
                from emulator.inference.vllm import VLLMServer, parse_vllm

                model, arguments = parse_vllm(rest)
                return VLLMServer(
                    model=model,
                    arguments=arguments,
                    python=settings.vllm_python,
                    log_file=Path(settings.vllm_log),
                    connect=partial(_remote_server, settings),
                )
    except ValueError as error:
        raise InvalidSetting(f"{name}: {error}") from None
    kinds = "'scripted[:FILE]', 'http://HOST:PORT', 'vllm:MODEL [extra arguments]'"
    kinds += ", 'cassette:FILE'" if name == "model" else ""
    raise InvalidSetting(f"{name}: {kind!r} is none of {kinds}")


def _scripted_server(file: str, name: str) -> ModelServer:
    """Raises InvalidSetting."""
    from emulator.inference.scripted import ScriptedServer

    if not file:
        return ScriptedServer()
    from emulator.inference.scripted.script_file import ScriptFile
    from emulator.inference.scripted.wrong_script import WrongScript

    try:
        return ScriptedServer(ScriptFile(Path(file)))
    except WrongScript as error:
        raise InvalidSetting(f"{name}: {error}") from None


def _remote_server(settings: Settings, url: str) -> ModelServer:
    from emulator.inference.remote import RemoteServer

    return RemoteServer(
        url,
        connect_timeout=settings.model_connect_timeout,
        answer_timeout=settings.model_answer_timeout,
        idle_timeout=settings.model_idle_timeout,
        api_key=settings.model_api_key,
        rewrite_model=settings.rewrite_model,
    )
