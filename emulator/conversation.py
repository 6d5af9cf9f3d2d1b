"""A trajectory as a conversation: each turn with what is new since the turn before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from textwrap import indent
from typing import TYPE_CHECKING, Any

from emulator.completion import Choice, Completion
from emulator.documents import format_time, read_turn, to_json, total_usage
from emulator.terminal import visible

if TYPE_CHECKING:
    from emulator.store.queries import TrajectoryRecord, TurnRecord

STYLES = {"system": "magenta", "developer": "magenta", "user": "green", "assistant": "cyan", "tool": "yellow"}


#: Takes a line or several, and a style that rich knows.
Write = Callable[[str, str], object]


def conversation(record: TrajectoryRecord, turns: Sequence[TurnRecord]) -> str:
    """Who and how it went, then the turns, as plain text."""
    lines: list[str] = []
    write_trajectory(lambda text, _style: lines.append(text), record, turns)
    return "\n".join(lines)


def write_trajectory(write: Write, record: TrajectoryRecord, turns: Sequence[TurnRecord]) -> None:
    """Write who and how it went, then the turns."""
    read = [read_turn(turn) for turn in turns]
    paper = _Paper(write)
    paper.line(f"trajectory  {record.trajectory_id}", "bold")
    paper.line(f"job         {record.job_arn}")
    paper.line(f"status      {_standing(record)}")
    if record.rewards is not None:
        paper.line(f"rewards     {' '.join(f'{reward:g}' for reward in record.rewards)}")
    for name in ("created", "completed", "rewarded"):
        if (time := format_time(getattr(record, f"{name}_at"))) is not None:
            paper.line(f"{name:<12}{time}")
    usage = total_usage(turns, read)
    paper.line(
        f"turns       {record.turns} completed of {len(turns)}; "
        f"{usage['prompt_tokens']} prompt + {usage['completion_tokens']} completion tokens"
    )
    history = _History()
    for turn, completion in zip(turns, read, strict=True):
        paper.line("")
        paper.line(f"── turn {' · '.join(_facts(turn, completion))}", "bold")
        _print_turn(paper, history, completion)
        if error := turn.error or completion.error:
            paper.entry("error", error, "red")
        if completion.problem and turn.http_status is not None:
            paper.entry("not readable", completion.problem, "dim")


def _standing(record: TrajectoryRecord) -> str:
    completed_as = f", completed as {record.completion}" if record.completion not in (None, record.status) else ""
    return f"{record.status}{completed_as}{', eligible for processing' if record.eligible else ''}"


def _facts(turn: TurnRecord, completion: Completion) -> Iterator[str]:
    yield str(turn.number)
    yield turn.status.value
    if turn.http_status is not None and turn.http_status != 200:
        yield f"HTTP {turn.http_status}"
    yield str(format_time(turn.arrived_at))
    first_byte = f" (first byte {_duration(turn.arrived_at, turn.first_byte_at)})" if turn.first_byte_at else ""
    yield _duration(turn.arrived_at, turn.ended_at) + first_byte
    if usage := completion.usage:
        yield f"{usage.prompt_tokens or 0} + {usage.completion_tokens or 0} tokens"
    if reasons := [choice.finish_reason for choice in completion.choices if choice.finish_reason]:
        yield ", ".join(dict.fromkeys(reasons))


def _duration(start: int, end: int) -> str:
    seconds = (end - start) / 1e6
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


@dataclass(slots=True)
class _History:
    """What was shown: of each message what it said (of an answer, what each choice said), the prompts, the tools."""

    messages: list[set[_Said]] = field(default_factory=list)
    asked: int = 0  #: how many of the messages were the last request's
    texts: list[str] = field(default_factory=list)
    tools: str = ""


def _print_turn(paper: _Paper, history: _History, completion: Completion) -> None:
    request, messages, prompt = completion.request or {}, completion.messages, completion.prompt
    tools = _tools(request)
    if tools != history.tools:
        paper.entry("tools", tools or "none any more", "dim")
        history.tools = tools
    if messages is not None:
        _print_new_messages(paper, history, messages)
    elif isinstance(prompt, str):
        shown = max((text for text in history.texts if prompt.startswith(text)), key=len, default="")
        if new := prompt[len(shown) :]:
            paper.entry("prompt, continued" if shown else "prompt", new, STYLES["user"])
        history.texts = [prompt, *(prompt + (choice.text or "") for choice in completion.choices)]
    elif prompt is not None:
        is_tokens = all(type(token) is int for token in prompt)
        paper.entry("prompt", f"[{len(prompt)} token ids]" if is_tokens else to_json(prompt), STYLES["user"])
    elif completion.request is not None:
        paper.entry("request", "has neither messages nor a prompt", "dim")
    _print_answers(paper, completion.choices)
    if messages is not None:
        history.messages = [{_said(message)} for message in messages]
        history.asked = len(messages)
        if answers := {_said(choice.message) for choice in completion.choices if choice.message is not None}:
            history.messages.append(answers)


def _print_new_messages(paper: _Paper, history: _History, messages: Sequence[dict[str, Any]]) -> None:
    known = 0
    while known < min(len(messages), len(history.messages)) and _said(messages[known]) in history.messages[known]:
        known += 1
    if known < history.asked:
        paper.line(f"(keeps {known} of the {history.asked} messages before)", "dim")
    for message in messages[known:]:
        _print_message(paper, message)


def _print_answers(paper: _Paper, choices: Sequence[Choice]) -> None:
    for number, choice in enumerate(choices, 1):
        which = f" {number} of {len(choices)}" if len(choices) > 1 else ""
        if choice.message is not None:
            _print_message(paper, {"role": "assistant", **choice.message}, which)
        elif choice.text is not None:
            paper.entry(f"answer{which}", choice.text, STYLES["assistant"])


def _print_message(paper: _Paper, message: dict[str, Any], which: str = "") -> None:
    role, text, calls = _said(message)
    style = STYLES.get(role, "blue")
    about = " ".join(str(message[key]) for key in ("name", "tool_call_id") if message.get(key))
    label = role + which + (f" ({about})" if about else "")
    for key in ("reasoning", "reasoning_content"):
        if isinstance(thought := message.get(key), str) and thought:
            paper.entry(f"{label}, reasoning", thought, "dim")
    if text or not calls:
        paper.entry(label, text, style)
    for name, arguments in calls:
        paper.entry(f"{label} calls", f"{name}({arguments})", style)


#: Role, text, and calls as name and arguments: what makes two messages the same to a reader.
_Said = tuple[str, str, tuple[tuple[str, str], ...]]


def _said(message: dict[str, Any]) -> _Said:
    calls = message.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    functions.append(message.get("function_call"))  # what tool calls were called before
    named = tuple(
        (str(function.get("name")), str(function.get("arguments")))
        for function in functions
        if isinstance(function, dict)
    )
    return str(message.get("role") or "assistant"), _text(message.get("content") or message.get("refusal")), named


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else to_json(content)
    return "\n".join(_part(part) for part in content)


def _part(part: object) -> str:
    if isinstance(part, dict) and isinstance(text := part.get("text"), str):
        return text
    kind = part.get("type") if isinstance(part, dict) else None
    return f"[{kind}]" if kind else to_json(part)


def _tools(request: dict[str, Any]) -> str:
    tools = request.get("tools")
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return ", ".join(str(function.get("name")) for function in functions if isinstance(function, dict))


@dataclass(slots=True)
class _Paper:
    """Where untrusted text is printed: nothing in it commands the terminal, and nothing is cut off."""

    write: Write

    def line(self, text: str, style: str = "") -> None:
        self.write(visible(text), style)

    def entry(self, label: str, text: str, style: str) -> None:
        """A label, and the text below it."""
        self.line(label, style)
        if text:
            body = indent(visible(text, lines=True).expandtabs(4), "  ", lambda _line: True)
            self.write(body, "")
