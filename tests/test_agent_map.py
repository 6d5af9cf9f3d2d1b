"""The map of agents: which local agent stands for an ARN."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.agent_map import AgentArn, AgentMap
from emulator.app import App
from emulator.settings import InvalidSetting, Settings
from emulator.settings_sources import load_settings

FUNCTION = "arn:aws:lambda:us-west-2:123456789012:function:agent"
RUNTIME = "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/agent-abcdefghij"


def test_a_qualified_arn_has_its_own_agent_or_that_of_all_qualifiers() -> None:
    agents = AgentMap.parse([f"{FUNCTION}=a", f"{FUNCTION}:7=b", f"{RUNTIME}:TEST=c", "d"])
    assert agents.find(FUNCTION) == agents.find(f"{FUNCTION}:8") == "a"
    assert agents.find(f"{FUNCTION}:7") == "b"
    assert agents.find(RUNTIME, "TEST") == agents.find(f"{RUNTIME}/runtime-endpoint/TEST") == "c"
    assert agents.find(RUNTIME) is agents.find(RUNTIME, "DEFAULT") is None
    assert agents.default == "d"


def test_an_arn_is_taken_apart() -> None:
    arn = AgentArn.parse(f"{FUNCTION}:$LATEST")
    assert (arn.service, arn.region, arn.account, arn.name, arn.qualifier) == (
        "lambda", "us-west-2", "123456789012", "agent", "$LATEST",
    )  # fmt: skip
    assert str(arn) == f"{FUNCTION}:$LATEST"


@pytest.mark.parametrize(
    ("agents", "problem"),
    [
        ((f"{FUNCTION}=",), "names no agent"),
        ((FUNCTION,), "names no agent"),
        (("arn:aws:s3:::bucket=http://127.0.0.1:1",), "is the ARN of no agent: arn:aws:lambda:"),
        ((f"{FUNCTION}=http://a:1", f"{FUNCTION}=http://b:1"), "has two agents: http://a:1 and http://b:1"),
        (("http://a:1", "http://b:1"), "there are two agents for all other ARNs: http://a:1 and http://b:1"),
    ],
)
def test_a_map_that_says_nothing_clear_is_refused(agents: tuple[str, ...], problem: str) -> None:
    with pytest.raises(InvalidSetting, match=problem):
        Settings(agents=agents)


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        ("ftp://host", "ftp://host: names no agent; these would"),
        ("lambda:absent.py", "there is no file absent.py"),
        ("python:module", "a function is named like python:MODULE:FUNCTION"),
        ("agentcore:127.0.0.1", "must look like http://HOST:PORT"),
    ],
)
def test_a_target_that_names_nothing_is_refused_at_the_start(agent: str, problem: str) -> None:
    for text in (agent, f"{FUNCTION}={agent}"):
        with pytest.raises(InvalidSetting, match=problem):
            App(Settings(durability="memory", agents=(text,)), "http://127.0.0.1:1")


def test_toml_has_a_table_or_a_list(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'[agents]\n"{FUNCTION}" = "http://a:1"\ndefault = "http://b:1"\n')
    assert load_settings({}, {}, file).agents == (f"{FUNCTION}=http://a:1", "http://b:1")
    file.write_text(f'agents = ["{FUNCTION}=http://a:1", "http://b:1"]\n')
    assert load_settings({}, {}, file).agent_map == AgentMap({AgentArn.parse(FUNCTION): "http://a:1"}, "http://b:1")
    file.write_text(f'[agents]\n"{FUNCTION}" = 3\n')
    with pytest.raises(InvalidSetting, match="agents"):
        load_settings({}, {}, file)
