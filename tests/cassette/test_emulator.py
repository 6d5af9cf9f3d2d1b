"""`--model cassette:FILE` as agents and people see it."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import openai
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator.inference.chosen import make_model_server
from emulator.server import Server
from emulator.settings import InvalidSetting, Settings
from emulator.settings_sources import load_settings
from emulator.testing import running_server
from tests.cassettes import recorded_and_replayed, recording, replaying
from tests.conftest import JOB_ARN
from tests.model_servers import Exchange, model_server
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient
from tests.serving import serving
from tests.test_serve import refused
from tests.test_serve import serving as serving_with

TURNS = 3
GROUP = 8


async def says_something_new(exchange: Exchange) -> None:
    """Answer as a model at temperature 1 does: never the same."""
    said = f"{random.randrange(1 << 64):x}"
    if json.loads(exchange.body).get("stream"):
        deltas = ({"choices": [{"index": 0, "delta": {"content": word}}]} for word in said)
        await exchange.stream(
            [b"data: %b\n\n" % json.dumps(delta).encode() for delta in deltas] + [b"data: [DONE]\n\n"]
        )
        return
    message = {"role": "assistant", "content": said}
    await exchange.answer(json.dumps({"choices": [{"index": 0, "message": message}]}, separators=(",", ":")).encode())


def rollout(server: Server, trajectory: str, prompt: str) -> list[bytes]:
    """A conversation of some turns; what the model said, byte for byte."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    said = []
    with closing(RawClient(server.url, JOB_ARN)) as client:
        for _ in range(TURNS):
            reply = client.sample(trajectory, json.dumps({"messages": messages}).encode())
            assert reply.status == 200, reply.body
            said.append(reply.body)
            messages += [json.loads(reply.body)["choices"][0]["message"], {"role": "user", "content": "Go on."}]
    return said


def rollouts(server: Server, names: list[str], at_once: int) -> dict[str, list[bytes]]:
    """A group for each of two prompts, so many rollouts at once, in any order."""
    order = random.sample(names, len(names))
    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(order, pool.map(lambda name: rollout(server, name, f"Prompt {name[-1]}"), order), strict=True))


def names(start: str) -> list[str]:
    return [f"{start}-{number}-{prompt}" for number in range(GROUP) for prompt in "ab"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassette.yaml"


@pytest.fixture
def model_url() -> Iterator[str]:
    with model_server(says_something_new) as model:
        yield model.url


@pytest.mark.parametrize("at_once", [1, 16])
def test_groups_recorded_at_once_are_replayed_each_rollout_its_own(at_once: int, path: Path, model_url: str) -> None:
    with recording(path, model_url) as server:
        recorded = rollouts(server, names("t"), 16)
    assert len({tuple(said) for said in recorded.values()}) == 2 * GROUP
    with replaying(path, cassette_used_up="refuse") as server:
        assert rollouts(server, names("t"), at_once) == recorded


def test_rollouts_of_other_names_are_together_what_was_recorded(path: Path, model_url: str) -> None:
    with recording(path, model_url) as server:
        recorded = rollouts(server, names("t"), 16)
    with replaying(path) as server:
        for run in ("first", "second"):
            replayed = rollouts(server, names(run), 16)
            assert sorted(replayed.values()) == sorted(recorded.values())


def test_the_file_is_the_same_in_whatever_order_its_rollouts_ended(path: Path, tmp_path: Path) -> None:
    written = []
    for at_once, file in ((16, path), (1, tmp_path / "other.yaml")):
        with recording(file, "scripted") as server:
            rollouts(server, names("t"), at_once)
        written.append(re.sub(r"after: [0-9.]+", "after: …", file.read_text()))
    assert written[0] == written[1]


def test_a_second_recording_asks_only_what_is_new(path: Path) -> None:
    with model_server(says_something_new) as model:
        with recording(path, model.url) as server:
            first = rollout(server, "t", "Prompt a")
        with recording(path, model.url) as server:
            assert rollout(server, "u", "Prompt a") == first
            rollout(server, "v", "Prompt b")
        assert len(model.requests) == 2 * TURNS
    with replaying(path) as server:
        assert rollout(server, "w", "Prompt a") == first


def test_streams_and_every_door_are_replayed_byte_for_byte(path: Path, model_url: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "stream": True}).encode()

    def work(server: Server) -> list[tuple[str, bytes]]:
        with closing(RawClient(server.url, JOB_ARN)) as client:
            samples = [client.sample("t", body, path) for path in (SAMPLE, STREAM, CHAT)]
            return [(each.headers["content-type"], each.body) for each in samples]

    recorded, replayed = recorded_and_replayed(path, model_url, work)
    assert recorded == replayed
    assert len({body for _, body in recorded}) == 3


def test_boto3_is_told_once_that_a_request_is_not_there(path: Path, model_url: str) -> None:
    with recording(path, model_url) as server:
        rollout(server, "t", "What is 6 * 7?")
    with replaying(path) as server:
        client = boto3.client(
            "sagemakerjobruntime", endpoint_url=server.url, region_name="us-west-2",
            aws_access_key_id="local", aws_secret_access_key="local", config=Config(retries={"total_max_attempts": 3}),
        )  # fmt: skip
        body = json.dumps({"messages": [{"role": "user", "content": "What is 6 * 8?"}]}).encode()
        with pytest.raises(ClientError, match=r'messages\[0\].content: asked "What is 6 \* 8\?", recorded') as caught:
            client.sample(JobArn=JOB_ARN, TrajectoryId="t", Body=body)
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
        with urlopen(f"{server.url}/_emulator/trajectories/{JOB_ARN}/t") as answer:
            assert [turn["status"] for turn in json.load(answer)["turns"]] == ["failed"]
        client.close()


def test_the_openai_client_is_told_once_that_a_request_is_not_there(path: Path, model_url: str) -> None:
    with recording(path, model_url):
        pass
    headers = {"X-Amzn-SageMaker-Job-Arn": JOB_ARN, "X-Amzn-SageMaker-Trajectory-Id": "t"}
    with (
        replaying(path) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="local", default_headers=headers) as client,
        pytest.raises(openai.NotFoundError, match="has no answer to POST /v1/chat/completions"),
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])


def test_a_recorder_that_is_killed_leaves_what_was_answered(
    path: Path, model_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_RUNTIME_LOCAL_RECORD", model_url)
    with (
        serving(tmp_path / "t.db", f"cassette:{path}", log=tmp_path / "log") as emulator,
        ThreadPoolExecutor(4) as pool,
    ):
        done = []

        def go_on(number: int) -> None:
            with closing(RawClient(emulator.url, JOB_ARN)) as client:
                for turn in range(1000):
                    messages = [{"role": "user", "content": f"{number} {turn}"}]
                    body = json.dumps({"messages": messages}).encode()
                    try:
                        done.append((body, client.sample(str(number), body).body))
                    except OSError:
                        return
                    if len(done) == 100:
                        emulator.kill()

        list(pool.map(go_on, range(4)))
    assert len(done) >= 100
    with replaying(path) as server, closing(RawClient(server.url, JOB_ARN)) as client:
        assert [(body, client.sample("t", body).body) for body, _ in done] == done


def test_what_cannot_be_replayed_is_refused_at_the_start(path: Path, tmp_path: Path) -> None:
    assert f"{path}: No such file or directory" in refused("--model", f"cassette:{path}", cwd=tmp_path)
    path.write_text("cassette: 1\n---\nrequest:\n  paht: /v1/models\n...\n")
    assert f"{path}:3: a block has the keys" in refused("--model", f"cassette:{path}", cwd=tmp_path)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"model": "cassette:"}, "model: cassette: needs a file"),
        ({"record": "scripted"}, "record: needs --model cassette:FILE"),
        ({"model": "cassette:x", "record": "cassette:y"}, "record: 'cassette' is none of"),
        ({"model": "cassette:x", "record": "http://"}, "record: the model server's URL"),
        ({"model": "cassette:x", "cassette_ignores": ("a..b",)}, "cassette_ignores: 'a..b' names no field"),
    ],
)
def test_settings_that_make_no_cassette_are_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(message)):
        make_model_server(Settings(**chosen))


def test_a_second_recorder_is_refused(tmp_path: Path) -> None:
    options = ["--model", "cassette:c.yaml", "--record", "scripted", "--durability", "memory"]
    with serving_with(*options, cwd=tmp_path) as (_, _, printed):
        assert "cassette:c.yaml, recording scripted" in printed
        assert "another emulator is recording it" in refused(*options, cwd=tmp_path)


def test_what_is_recorded_is_shown_without_what_may_be_secret(path: Path) -> None:
    record = "vllm:some/model --hf-token hf_SECRET"
    settings = Settings(model=f"cassette:{path}", record=record)
    assert settings.shown_record == "vllm:some/model …"
    with recording(path, "scripted") as server, urlopen(f"{server.url}/_emulator/info") as answer:
        info = json.load(answer)
    assert info["settings"]["record"] == "scripted"
    assert info["model_server"]["detail"].startswith(f"recording to {path}: ")


def test_ignored_fields_can_be_chosen_and_none_can(path: Path) -> None:
    assert load_settings({"cassette_ignores": [""]}, {}).cassette_ignores == ()
    with recording(path, "scripted") as server, closing(RawClient(server.url, JOB_ARN)) as client:
        assert client.sample("t", b'{"messages": [{"role": "user", "content": "a"}], "user": "a"}').status == 200
    other = b'{"messages": [{"role": "user", "content": "a"}], "user": "b"}'
    for ignored, status in ((Settings().cassette_ignores, 200), ((), 400)):
        with replaying(path, cassette_ignores=ignored) as server, closing(RawClient(server.url, JOB_ARN)) as client:
            assert client.sample("t", other).status == status
    with pytest.raises(InvalidSetting), replaying(path, cassette_ignores=("",)):
        pass


def test_nothing_of_it_is_imported_where_it_is_not_used(tmp_path: Path) -> None:
    code = """
import sys, urllib.request
from emulator.testing import running_server
with running_server() as server:
    urllib.request.urlopen(server.url + "/v1/models").read()
    print([name for name in sys.modules if name.startswith(("yaml", "emulator.inference.cassette"))])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "[]\n"


def test_the_scripted_model_can_be_recorded(path: Path) -> None:
    with running_server() as server, urlopen(f"{server.url}/v1/models") as answer:
        expected = answer.read()

    def work(server: Server) -> bytes:
        with urlopen(f"{server.url}/v1/models") as answer:
            body: bytes = answer.read()
            return body

    assert recorded_and_replayed(path, "scripted", work) == (expected, expected)
