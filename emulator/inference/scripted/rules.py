"""Rules: who answers what. The script of the scripted model, which may change while it answers."""

from __future__ import annotations

import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Literal

from emulator.inference.scripted.conditions import (
    Condition,
    Named,
    Searched,
    Turns,
    Values,
    name_condition,
    text_condition,
    tools_condition,
    turn_condition,
    value_conditions,
)
from emulator.inference.scripted.reply import Reply
from emulator.inference.scripted.request import Request
from emulator.inference.scripted.script import choose
from emulator.inference.scripted.wire import BadRequest

#: What answers one choice. Equal requests should get equal answers.
Answer = Callable[[Request], "Reply | str"]

#: Trajectories whose place in sequences is known; those that were silent for longest are forgotten first.
MAX_TRAJECTORIES = 10_000

_KEPT = 100


class NoRuleMatches(Exception):
    """No rule answers a request, and nothing else does; the message says why each did not."""


@dataclass(eq=False, kw_only=True)
class Rule:
    """Replies, and the conditions under which they are given: all that are named must hold.

    Of several `replies` each match within a trajectory gets the next one; `then` says what comes after the last.
    Raises re.error, BadPath, ValueError for a condition or a choice that cannot be.
    """

    replies: Reply | str | Answer | Sequence[Reply | str | Answer] = field(kw_only=False)
    name: str = ""  #: what reports call it
    turn: Turns | None = None  #: 1 + how often the assistant spoke
    last: Searched | None = None  #: in the last message, or the prompt
    last_user: Searched | None = None
    last_tool: Searched | None = None
    last_json: Values | None = None  #: in the last message, read as JSON
    tools: Sequence[str] | None = None  #: all of these are offered; `()`: no tools are
    model: Named | None = None
    trajectory: Named | None = None
    job: Named | None = None
    row: Values | None = None  #: in the data set's row
    when: Callable[[Request], object] | None = None  #: anything else
    then: Literal["stay", "loop", "next"] = "stay"  #: stay with the last reply, begin again, or leave it to other rules
    at_random: bool = False  #: choose among the replies instead, by the rules' seed, the trajectory and the turn
    weights: Sequence[float] | None = None  #: for `at_random`
    times: int | None = None  #: answers so many requests, of whichever trajectories, and then no more

    conditions: tuple[Condition, ...] = field(init=False, repr=False)
    answers: tuple[Reply | Answer, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = self.replies
        listed = [given] if isinstance(given, str | Reply) or callable(given) else list(given)
        if not listed:
            raise ValueError("a rule needs a reply")
        self.answers = tuple(Reply(one) if isinstance(one, str) else one for one in listed)
        if self.then not in ("stay", "loop", "next"):
            raise ValueError(f"then: {self.then!r} is none of stay, loop, next")
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise ValueError(f"times: {self.times!r} is not a whole number, at least 1")
        if self.weights is not None and not _are_weights(self.weights, len(listed)):
            raise ValueError("weights: as many numbers as replies, none negative and not all 0")
        self.conditions = tuple(self._conditions())

    def _conditions(self) -> Iterable[Condition]:
        if self.turn is not None:
            yield turn_condition(self.turn)
        if self.tools is not None:
            yield tools_condition(self.tools)
        for name in ("model", "trajectory", "job"):
            if (named := getattr(self, name)) is not None:
                yield name_condition(name, named)
        for name in ("last", "last_user", "last_tool"):
            if (searched := getattr(self, name)) is not None:
                yield text_condition(name, searched)
        for name in ("last_json", "row"):
            if (values := getattr(self, name)) is not None:
                yield from value_conditions(name, values)
        if self.when is not None:
            shown = f"{getattr(self.when, '__name__', 'a function')}() to say yes"
            yield Condition("when", shown, self.when, lambda _: False)

    def __str__(self) -> str:
        return self.name or "; ".join(f"{each.name} {each.wanted}" for each in self.conditions) or "always"

    def fits(self, request: Request) -> bool:
        """Whether all conditions hold. The first match of a regular expression is then the request's."""
        match = None
        for condition in self.conditions:
            found = condition.test(request)
            if not found:
                return False
            match = match or (found if condition.name in _SEARCHES else None)
        request.match = match  # type: ignore[assignment]
        return True

    def reply(self, request: Request) -> Reply:
        """What it answers. Raises BadTemplate, and whatever a function raises."""
        if self.at_random:
            answer = request.random.choices(self.answers, self.weights)[0]
        elif self.then == "loop":
            answer = self.answers[request.count % len(self.answers)]
        else:
            answer = self.answers[min(request.count, len(self.answers) - 1)]
        return answered(answer, request)


_SEARCHES = frozenset({"last", "last_user", "last_tool"})


def _are_weights(weights: Sequence[float], count: int) -> bool:
    return len(weights) == count and min(weights) >= 0 < sum(weights) < float("inf")


def answered(answer: Reply | Answer, request: Request) -> Reply:
    """The reply to a request, with its templates replaced. Raises BadTemplate."""
    if not isinstance(answer, Reply):
        reply = answer(request)
        if isinstance(reply, str):
            return Reply(reply)
        if not isinstance(reply, Reply):
            raise TypeError(f"a script answers with a Reply or a text, not with {type(reply).__name__}")
        answer = reply
    if answer.template:
        from emulator.inference.scripted.template import rendered

        return rendered(answer, request)
    return answer


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A request that no rule answered, and why each did not."""

    asked: str  #: the request in a few words: whole ones may be large, and 100 of them are kept
    reasons: tuple[str, ...]  #: one a rule


class Rules:
    """Rules in order: the first whose conditions hold answers, else `default`; None refuses, and says why.

    Rules can be added, and all taken away, from any thread while the model server answers.
    """

    def __init__(
        self, rules: Iterable[Rule] = (), *, default: Reply | str | Answer | None = choose, seed: int | str = 0
    ) -> None:
        self._lock = RLock()
        self.default = Reply(default) if isinstance(default, str) else default
        self._seed = seed
        self._rules: list[Rule] = list(rules)
        self._uses: dict[Rule, int] = {}
        self._counts: OrderedDict[tuple[str, str], dict[Rule, int]] = OrderedDict()
        self._unmatched: deque[Unmatched] = deque(maxlen=_KEPT)
        self._failures: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def count_text(self) -> str:
        """How many rules there are."""
        return f"{len(self)} rule{'' if len(self) == 1 else 's'}"

    @property
    def default_text(self) -> str:
        """What becomes of a request that no rule answers."""
        if self.default is None:
            return "is refused"
        if self.default is choose:
            return "gets the built-in script's answer"
        return "gets the default reply"

    def add(self, rule: Rule) -> Rule:
        """Add a rule after all others."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Take all rules away, and forget what was asked."""
        with self._lock:
            self._rules = []
            self.reset()

    def reset(self) -> None:
        """Begin every sequence anew, and forget what was asked."""
        with self._lock:
            self._uses, self._counts = {}, OrderedDict()
            self._unmatched.clear()
            self._failures.clear()

    def uses(self, rule: Rule) -> int:
        """How many requests a rule answered."""
        return self._uses.get(rule, 0)

    @property
    def rules(self) -> list[Rule]:
        """All rules, in order."""
        with self._lock:
            return [*self._rules]

    @property
    def unused(self) -> list[Rule]:
        """The rules that answered nothing yet, or less than their `times`."""
        with self._lock:
            return [rule for rule in self._rules if self.uses(rule) < (rule.times or 1)]

    @property
    def unmatched(self) -> list[Unmatched]:
        """The last 100 requests that no rule answered, though there were some."""
        with self._lock:
            return [*self._unmatched]

    @property
    def failures(self) -> list[str]:
        """How functions and templates failed, each way once: the last 100."""
        with self._lock:
            return [*self._failures]

    def replies(self, request: Request, n: int) -> list[Reply]:
        """What is answered, one reply a choice. Raises NoRuleMatches, BadTemplate, and whatever a function raises."""
        try:
            return self._replies(request, n)
        except (NoRuleMatches, BadRequest):  # which are answers
            raise
        except BaseException as error:
            self._note_failure(error)
            raise

    def _note_failure(self, error: BaseException) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{where.filename}:{where.lineno}: {type(error).__name__}: {error}"
        with self._lock:
            self._failures[text] = None
            if len(self._failures) > _KEPT:
                self._failures.popitem(last=False)

    def _replies(self, request: Request, n: int) -> list[Reply]:
        request.seed = self._seed
        rule, default = None, self.default
        if self._rules:  # else the lock, and the rest, can be spared
            with self._lock:
                rule = self._take(request)
        answer = default if rule is None else rule.reply
        if answer is None:
            reasons = self._unmatched[-1].reasons if self._unmatched else ()
            raise NoRuleMatches(self._complaint(reasons))
        return [answered(answer, request.of_choice(choice) if choice else request) for choice in range(n)]

    def explain(self, request: Request) -> list[tuple[Rule, str | None]]:
        """Each rule, and why it would not answer now; None if its conditions hold. Changes nothing."""
        with self._lock:
            counts = self._counts.get((request.job, request.trajectory), {})
            return [(rule, self._reason(rule, request, counts)) for rule in self._rules]

    def _take(self, request: Request) -> Rule | None:
        """The rule that answers; it is counted, and the request knows its match and count."""
        key = (request.job, request.trajectory)
        counts = self._counts.get(key)
        for rule in self._rules:
            count = counts.get(rule, 0) if counts else 0
            if self._is_spent(rule, count) or not rule.fits(request):
                continue
            if counts is None:
                counts = self._counts[key] = {}
                if len(self._counts) > MAX_TRAJECTORIES:
                    self._counts.popitem(last=False)
            else:
                self._counts.move_to_end(key)
            counts[rule] = count + 1
            self._uses[rule] = self._uses.get(rule, 0) + 1
            request.count, request.by_rule = count, True
            return rule
        self._unmatched.append(Unmatched(repr(request), tuple(f"{r}: {why}" for r, why in self.explain(request))))
        return None

    def _is_spent(self, rule: Rule, count: int) -> bool:
        if rule.times is not None and self.uses(rule) >= rule.times:
            return True
        return rule.then == "next" and not rule.at_random and count >= len(rule.answers)

    def _reason(self, rule: Rule, request: Request, counts: dict[Rule, int]) -> str | None:
        if self._is_spent(rule, counts.get(rule, 0)):
            return "all of its replies were given"
        return next((each.reason(request) for each in rule.conditions if not each.test(request)), None)

    def _complaint(self, reasons: Sequence[str]) -> str:
        shown = "".join(f"\n  {number}. {reason}" for number, reason in enumerate(reasons, 1))
        return f"No rule of the scripted model answers this request{':' if shown else ': there are none'}{shown}"
