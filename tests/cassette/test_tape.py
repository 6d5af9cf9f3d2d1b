"""Who gets which of several answers to the same request."""

from __future__ import annotations

import random

from emulator.inference.cassette.canonical import Question
from emulator.inference.cassette.tape import Asker, Claim, Piece, RecordedAnswer, Take, Tape

FIRST = Question("POST", "/v1/chat/completions", "first")
SECOND = Question("POST", "/v1/chat/completions", "second")
MODELS = Question("GET", "/v1/models", "")


def answer(said: str) -> RecordedAnswer:
    return RecordedAnswer(200, {}, 0.0, (Piece(0.0, said.encode()),), is_stream=False)


def tape(*takes: tuple[str, str | None, Question], repeat: bool = True) -> Tape:
    """A tape of answers: what is said, to which trajectory, to which question."""
    made = Tape(repeat)
    for said, trajectory, question in takes:
        made.add(Take(question, answer(said), trajectory))
    return made


def ask(it: Tape, trajectory: str | None, question: Question = FIRST, *, anew: bool = False) -> str | None:
    """What a trajectory is told."""
    claim = claimed(it, trajectory, question, anew=anew)
    return None if claim is None else claim.take.answer.body.decode()


def claimed(it: Tape, trajectory: str | None, question: Question = FIRST, *, anew: bool = False) -> Claim | None:
    return it.claim(question, None if trajectory is None else Asker("job", trajectory), anew=anew)


GROUP = [(f"answer {number}", f"t-{number}", FIRST) for number in range(8)]


def test_a_group_of_the_same_names_is_told_the_same_in_any_order() -> None:
    for seed in range(10):
        it = tape(*GROUP)
        names = [f"t-{number}" for number in range(8)]
        random.Random(seed).shuffle(names)
        assert {name: ask(it, name) for name in names} == {name: said for said, name, _ in GROUP}


def test_a_group_of_other_names_is_told_what_the_group_was_each_its_own() -> None:
    it = tape(*GROUP)
    assert sorted(str(ask(it, f"new-{number}")) for number in range(8)) == [said for said, _, _ in GROUP]


def test_who_plays_the_part_of_another_does_so_to_its_end() -> None:
    it = tape(*GROUP, *((f"{said}, then", name, SECOND) for said, name, _ in GROUP))
    for name in ("x", "y", "z"):
        first = ask(it, name)
        assert ask(it, name, SECOND) == f"{first}, then"


def test_asking_again_gives_the_next_answer_of_its_own_and_then_the_last_again() -> None:
    it = tape(("one", "t", FIRST), ("other", "u", FIRST), ("two", "t", FIRST))
    assert [ask(it, "t") for _ in range(4)] == ["one", "two", "two", "two"]
    assert ask(it, "u") == "other"


def test_asking_again_gives_nothing_where_that_is_wanted() -> None:
    it = tape(("one", "t", FIRST), repeat=False)
    assert [ask(it, "t") for _ in range(2)] == ["one", None]


def test_asking_again_while_recording_gives_nothing_so_that_the_model_is_asked() -> None:
    it = tape(("one", "t", FIRST))
    assert [ask(it, "t", anew=True) for _ in range(2)] == ["one", None]
    assert ask(it, "u", anew=True) is None


def test_when_all_parts_were_played_they_are_played_again() -> None:
    it = tape(*GROUP[:2], ("then", "t-0", SECOND))
    assert [ask(it, f"new-{number}") for number in range(4)] == ["answer 0", "answer 1", "answer 0", "answer 1"]
    assert ask(it, "new-2", SECOND) == "then"


def test_no_part_is_played_again_where_answers_must_not_be_given_twice() -> None:
    it = tape(*GROUP[:2], repeat=False)
    assert [ask(it, f"new-{number}") for number in range(3)] == ["answer 0", "answer 1", None]


def test_answers_of_no_trajectory_are_given_in_their_order() -> None:
    anonymous = [("one", None, FIRST), ("two", None, FIRST)]
    assert [ask(tape(*anonymous), None)] == ["one"]
    it = tape(*anonymous)
    assert [ask(it, None) for _ in range(3)] == ["one", "two", "two"]
    it = tape(*anonymous)
    assert [ask(it, name) for name in ("t", "u", "t")] == ["one", "two", "one"]


def test_an_answer_that_did_not_reach_its_client_is_given_again() -> None:
    it = tape(("one", "t", FIRST), ("two", "t", FIRST))
    claim = claimed(it, "t")
    assert claim is not None
    it.give_back(claim)
    assert [ask(it, "t") for _ in range(2)] == ["one", "two"]


def test_a_tape_that_was_rewound_is_played_from_its_beginning() -> None:
    it = tape(*GROUP, repeat=False)
    names = [f"new-{number}" for number in range(8)]
    first = [ask(it, name) for name in names]
    assert ask(it, names[0]) is None
    it.rewind()
    assert [ask(it, name) for name in names] == first


def test_a_question_that_only_others_asked_is_answered_all_the_same() -> None:
    it = tape(("mine", "t", FIRST), ("its", "u", SECOND))
    assert ask(it, "t") == "mine"
    assert [ask(it, "t", SECOND) for _ in range(2)] == ["its", "its"]
    assert ask(it, "u", SECOND) == "its"


def test_the_same_name_in_another_job_is_told_the_same() -> None:
    it = tape(("one", "t", FIRST), repeat=False)
    for job in ("job", "another job"):
        claim = it.claim(FIRST, Asker(job, "t"), anew=False)
        assert claim is not None


def test_what_is_recorded_is_not_told_to_the_rest_of_the_group() -> None:
    it = tape()
    for number in range(3):
        asker = Asker("job", f"t-{number}")
        assert it.claim(FIRST, asker, anew=True) is None
        assert it.record(FIRST, answer(str(number)), asker, 0) is not None
    assert [take.trajectory for take in it] == ["t-0", "t-1", "t-2"]


def test_what_is_recorded_by_who_plays_a_part_belongs_to_the_part() -> None:
    it = tape(("one", "t", FIRST))
    assert ask(it, "new") == "one"
    take = it.record(SECOND, answer("two"), Asker("job", "new"), 1)
    assert take is not None
    assert take.trajectory == "t"


def test_what_is_no_sample_has_one_answer_for_everybody() -> None:
    it = tape()
    take = it.record(MODELS, answer("all"), Asker("job", "t"), 3)
    assert take is not None
    assert (take.trajectory, take.turn) == (None, None)
    assert it.record(MODELS, answer("more"), None, None) is None
    assert [ask(it, name, MODELS, anew=True) for name in ("t", None, "t")] == ["all", "all", "all"]
