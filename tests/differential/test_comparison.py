"""The comparison itself: what it takes for the same, and what it finds."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import count
from typing import Any

import psutil
import pytest
import zmq

from tests.differential.compare import differences
from tests.differential.crew import Crew
from tests.differential.generate import PAIRS, generate
from tests.differential.program import Declaration, Program, Step
from tests.differential.run import Run
from tests.differential.seen import Events, Seen
from tests.differential.trial import PAUSE, Trial, Verdict
from tests.differential.ways import Direct
from tests.differential.worker import Task
from tests.logins import arguments_for
from tests.peers import ROOT
from tests.polling import wait_until
from tests.sshd import OpenSSHServer

NAMES = ("one", "other")

PROGRAM = Program(
    0,
    (Declaration("n0", "PUSH", {"RECONNECT_IVL": 20}),),
    (Declaration("f0", "PULL"),),
    (
        Step("f0", "bind"),
        Step("n0", "open"),
        Step("n0", "connect", ("f0",)),
        Step("", "settle"),
        *(Step("n0", "send", (None, (b"n0:%d|" % number,))) for number in range(6)),
        Step("f0", "drain"),
        Step("f0", "restart"),
        Step("", "settle"),
        Step("n0", "close", (1000,)),
        Step("", "end_with", ("term", 1000)),
    ),
)


@pytest.fixture(scope="module")
def seen() -> Seen:
    """What the program sees on plain TCP."""
    return Run(PROGRAM, Direct()).run()


def test_a_program_sees_what_its_steps_say(seen: Seen) -> None:
    assert seen.results[:-1] == ["ok"] * (len(PROGRAM.steps) - 1)
    assert seen.results[-1] == "ended"
    assert seen.received["f0"] == {"n0": [f"'n0:{number}|'" for number in range(6)]}
    assert seen.events["n0-f0"].order == "CHDCH"
    assert seen.events["n0-f0"].stopped


def test_a_second_run_waits_for_what_the_first_one_saw(seen: Seen) -> None:
    assert differences(PROGRAM, seen, Run(PROGRAM, Direct(), seen).run(), NAMES) == []


def test_a_run_that_waits_calls_into_the_sockets_as_one_that_does_not() -> None:
    """A look for room to send takes a message in advance, which then outlives a disconnect."""
    program = Program(
        0,
        (Declaration("n0", "XSUB"),),
        (Declaration("f0", "XPUB"),),
        (
            Step("f0", "bind"),
            Step("n0", "open"),
            Step("n0", "subscribe", (b"",)),
            Step("n0", "connect", ("f0",)),
            Step("", "settle"),
            Step("f0", "send", (None, (b"f0:0|",))),
            Step("", "idle", (0.2,)),
            Step("n0", "send", (None, (b"n0:0|",))),
            Step("n0", "disconnect", ("f0",)),
            Step("", "settle"),
            Step("", "drain_all", (("n0",),)),
        ),
    )
    first = Run(program, Direct()).run()
    assert differences(program, first, Run(program, Direct(), first).run(), NAMES) == []


def test_what_is_sent_late_is_told_from_the_next_connection() -> None:
    """libzmq still sends what it has for a peer that was down at the disconnect, when it comes."""
    program = Program(
        0,
        (Declaration("n0", "PUSH", {"RECONNECT_IVL": 20}),),
        (Declaration("f0", "PULL"),),
        (
            Step("n0", "open"),
            Step("n0", "connect", ("f0",)),
            Step("n0", "send", (None, (b"n0:0|",))),
            Step("n0", "disconnect", ("f0",)),
            Step("", "settle"),
            Step("n0", "connect", ("f0",)),
            Step("f0", "bind"),
            Step("", "idle", (0.3,)),
            Step("", "settle"),
            Step("", "drain_all", (("f0",),)),
            Step("f0", "close"),
            Step("", "settle"),
        ),
    )
    seen = Run(program, Direct()).run()
    assert seen.received["f0"] == {"n0": ["'n0:0|'"]}
    assert seen.events["n0-f0"].uncounted
    assert seen.states[8] == "{} {'f0': 1}"
    assert seen.states[11] == "{} {}"


def test_a_connect_that_is_a_no_op_is_not_taken_for_another_peers() -> None:
    """It leaves LAST_ENDPOINT as it was."""
    program = Program(
        0,
        (Declaration("n0", "SUB", {"RECONNECT_IVL": 20}),),
        (Declaration("f0", "XPUB"), Declaration("f1", "XPUB")),
        (
            Step("f0", "bind"),
            Step("n0", "open"),
            Step("n0", "subscribe", (b"a",)),
            Step("n0", "connect", ("f0",)),
            Step("n0", "connect", ("f1",)),
            Step("", "settle"),
            Step("n0", "disconnect", ("f1",)),
            Step("n0", "connect", ("f0",)),
            Step("f1", "bind"),
            Step("", "idle", (0.3,)),
        ),
    )
    seen = Run(program, Direct()).run()
    assert (seen.events["n0-f0"].order, seen.events["n0-f1"].order) == ("CH", "")


def test_a_connect_that_takes_time_is_no_time_without_a_connection() -> None:
    class Slow(Direct):
        def connect(self, sock: zmq.Socket[bytes], addr: str) -> None:
            time.sleep(1)
            super().connect(sock, addr)

    assert Run(PROGRAM, Slow()).run().events["n0-f0"].down < 0.9


def test_which_of_several_connections_had_the_last_message_is_a_matter_of_time() -> None:
    near, far = Declaration("n0", "PULL", {"CONFLATE": 1}), Declaration("f0", "PUSH")
    program = Program(0, (near,), (far,), ())

    def seen(messages: list[str], connections: int) -> Seen:
        repeated = {"n0-f0"} if connections > 1 else set()
        return Seen(received={"n0": {"f0": messages}}, repeated=repeated)

    assert differences(program, seen(["a"], 2), seen(["b"], 2), NAMES) == []
    assert differences(program, seen(["a"], 2), seen([], 2), NAMES)
    assert differences(program, seen(["a"], 1), seen(["b"], 1), NAMES)


def test_who_of_several_reaches_a_peer_first_when_it_comes_is_a_matter_of_time() -> None:
    steps = (
        Step("n0", "open"),
        Step("n1", "open"),
        Step("n0", "connect", ("f0",)),
        Step("n1", "connect", ("f0",)),
        Step("f0", "bind"),
        Step("", "settle"),
    )
    program = Program(
        0,
        (Declaration("n0", "DEALER"), Declaration("n1", "DEALER")),
        (Declaration("f0", "DEALER"),),
        steps,
    )

    def seen(n0: list[str], n1: list[str]) -> Seen:
        received = {"n0": {"f0": n0}, "n1": {"f0": n1}, "f0": {}}
        return Seen(["ok"] * 6, [0] * 6, [""] * 6, received)

    one = seen(["first", "third"], ["second"])
    assert differences(program, one, seen(["second"], ["first", "third"]), NAMES) == []
    assert differences(program, one, seen(["second"], ["third"]), NAMES)
    assert differences(program, one, seen(["second", "first"], ["first", "third"]), NAMES)
    alone = (*steps[:1], *steps[2:3], steps[4], steps[1], steps[3], steps[5])
    assert (
        differences(program.with_steps(alone), one, seen(["second"], ["first", "third"]), NAMES)
        == []
    )
    early = (steps[4], steps[0], steps[2], steps[5], steps[1], steps[3])
    assert differences(program.with_steps(early), one, seen(["second"], ["first", "third"]), NAMES)


def test_whose_question_comes_first_is_a_matter_of_time() -> None:
    """The answers of a DEALER go out in that order."""
    steps = (
        Step("f0", "bind"),
        Step("n0", "open"),
        Step("n0", "connect", ("f0",)),
        Step("", "settle"),
        Step("n1", "open"),
        Step("n1", "connect", ("f0",)),
        Step("", "settle"),
        Step("f0", "serve"),
    )
    nears = Declaration("n0", "DEALER"), Declaration("n1", "DEALER")
    program = Program(0, nears, (Declaration("f0", "DEALER"),), steps)

    def seen(n0: list[str], n1: list[str]) -> Seen:
        return Seen(["ok"] * 8, [0] * 8, [""] * 8, {"n0": {"f0": n0}, "n1": {"f0": n1}})

    one = seen(["answer|n0:0|"], ["answer|n1:0|"])
    assert differences(program, one, seen(["answer|n1:0|"], ["answer|n0:0|"]), NAMES) == []
    assert differences(program, one, seen(["answer|n1:0|"], ["answer|n1:0|"]), NAMES)
    unasked = program.without(7, 8)
    assert differences(unasked, one, seen(["answer|n1:0|"], ["answer|n0:0|"]), NAMES)


def test_which_of_several_peers_is_there_first_is_a_matter_of_time() -> None:
    """It is the first to be asked, with IMMEDIATE, and answers."""
    steps = (Step("n0", "connect", ("f0",)), Step("n0", "connect", ("f1",)))

    def program(**options: int) -> Program:
        fars = Declaration("f0", "REP"), Declaration("f1", "REP")
        return Program(0, (Declaration("n0", "DEALER", options),), fars, steps)

    def seen(first: str, second: str) -> Seen:
        asked = {first: {"n0": ["'n0:0|'"]}, second: {"n0": ["'n0:1|'"]}}
        answers = {first: ["'answer|n0:0|'"], second: ["'answer|n0:1|'"]}
        return Seen(["ok"] * 2, [0] * 2, [""] * 2, {**asked, "n0": answers})

    assert differences(program(IMMEDIATE=1), seen("f0", "f1"), seen("f1", "f0"), NAMES) == []
    assert differences(program(), seen("f0", "f1"), seen("f1", "f0"), NAMES)
    less = seen("f1", "f0")
    del less.received["n0"]["f0"]
    assert differences(program(IMMEDIATE=1), seen("f0", "f1"), less, NAMES)


def test_answers_are_told_apart_by_their_questions() -> None:
    program = Program(
        0,
        (Declaration("n0", "REQ"),),
        (Declaration("f0", "REP"),),
        (
            Step("f0", "bind"),
            Step("n0", "open"),
            Step("n0", "connect", ("f0",)),
            Step("n0", "send", (None, (b"n0:0|" + b"." * 300,))),
            Step("f0", "serve"),
            Step("n0", "recv"),
        ),
    )
    received = Run(program, Direct()).run().received
    assert received["n0"]["f0"][0].startswith("b'answer|n0:0|'...312:")


def test_a_peer_that_says_nothing_is_waited_for() -> None:
    program = Program(
        0,
        (Declaration("n0", "PUSH", {"RECONNECT_IVL": 200}),),
        (Declaration("f0", "MUTE"),),
        (
            Step("n0", "open"),
            Step("n0", "connect", ("f0",)),
            Step("", "idle", (0.1,)),
            Step("f0", "bind"),
            Step("", "settle"),
        ),
    )
    assert Run(program, Direct()).run().events["n0-f0"].order == "C"


def _lost(seen: Seen) -> None:
    del seen.received["f0"]["n0"][3]


def _overtaken(seen: Seen) -> None:
    seen.received["f0"]["n0"].reverse()


def _twice(seen: Seen) -> None:
    seen.received["f0"]["n0"] *= 2


def _from_nowhere(seen: Seen) -> None:
    seen.received["n0"]["?"] = ["''"]


def _broken(seen: Seen) -> None:
    seen.events["n0-f0"].order += "DCH"


def _unheard(seen: Seen) -> None:
    seen.events["n0-f0"].stopped = False


def _refused(seen: Seen) -> None:
    seen.results[2] = "ValueError"


def _unsettled(seen: Seen) -> None:
    seen.states[3] = "{} {}"


def _impatient(seen: Seen) -> None:
    seen.events["n0-f0"] = Events("CHDCH", 100, 1.0, uncounted=False, stopped=True)


@pytest.mark.parametrize(
    "change",
    [
        _lost,
        _overtaken,
        _twice,
        _from_nowhere,
        _broken,
        _unheard,
        _refused,
        _unsettled,
        _impatient,
    ],
)
def test_what_differs_is_found(seen: Seen, change: Callable[[Seen], None]) -> None:
    first = deepcopy(seen)
    first.events["n0-f0"] = Events("CHDCH", 10, 1.0, uncounted=False, stopped=True)
    second = deepcopy(first)
    change(second)
    assert len(differences(PROGRAM, first, second, NAMES)) == 1


def test_time_makes_no_difference(seen: Seen) -> None:
    first, second = deepcopy(seen), deepcopy(seen)
    first.events["n0-f0"] = Events("CHDCH", 30, 1.0, uncounted=False, stopped=True)
    second.events["n0-f0"] = Events("CHDCH", 100, 3.0, uncounted=False, stopped=True)
    second.seconds = 10 * first.seconds
    assert differences(PROGRAM, first, second, NAMES) == []


class _Forgetful(Direct):
    """Loses the fourth message."""

    name = "forgetful"

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self.ctx.socket(kind, socket_class=_ForgetfulSocket)
        return sock


class _ForgetfulSocket(zmq.Socket[bytes]):
    _sent: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent = 0

    def send_multipart(self, *args: Any, **kwargs: Any) -> Any:
        self._sent += 1
        return None if self._sent == 4 else super().send_multipart(*args, **kwargs)


@pytest.mark.timeout(120)
def test_a_difference_is_made_small() -> None:
    trial = Trial(PROGRAM.without(11, 14), lambda _: _Forgetful(), patience=1)
    verdict = trial.verdict()
    assert (verdict.outcome, verdict.again) == ("different", "4 of 4")
    small = trial.shrink(20)
    assert "f0 from n0: direct 4 messages, tunnelled 3" in small.found[0]
    assert small.listing.count("n0.send") == 4
    assert "settle" not in small.listing


@pytest.mark.timeout(120)
def test_what_plain_tcp_does_otherwise_when_connects_take_time_is_no_difference() -> None:
    """Here LINGER has run out when the peer comes."""
    program = Program(
        0,
        (Declaration("n0", "PUSH", {"RECONNECT_IVL": 20}), Declaration("n1", "PUSH")),
        (Declaration("f0", "PULL"),),
        (
            Step("n0", "open"),
            Step("n0", "connect", ("f0",)),
            Step("n0", "send", (None, (b"n0:0|",))),
            Step("n1", "open"),
            Step("n0", "close", (1500,)),
            *[Step("n1", "connect_to", ("tcp://127.77.7.7:7000",))] * 15,
            Step("f0", "bind"),
            Step("f0", "drain", (0.5,)),
            Step("n1", "close", (0,)),
            Step("", "end_with", ("term", 0)),
        ),
    )
    verdict = Trial(program, lambda _: Direct(PAUSE), patience=1).verdict()
    assert verdict.outcome == "discarded"
    assert "f0 from n0: direct 1 messages, tunnelled 0" in verdict.found[0]


@pytest.mark.parametrize(
    ("odd_one", "outcome"), [(None, "different"), (1, "discarded"), (9, "discarded")]
)
def test_what_plain_tcp_does_otherwise_now_and_then_is_no_difference(
    seen: Seen, odd_one: int | None, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = deepcopy(seen)
    other.results[-1] = "hangs"
    trial = Trial(PROGRAM, lambda _: Direct())
    tries = count()

    def direct(*_: object) -> Seen:
        return other if next(tries) == odd_one else seen

    monkeypatch.setattr(trial, "_direct", direct)
    monkeypatch.setattr(trial, "_other", lambda *_: other)
    assert trial.verdict().outcome == outcome


def test_a_seed_is_a_program() -> None:
    assert str(generate(7)) == str(generate(7)) != str(generate(8))


def test_all_pairs_are_drawn() -> None:
    programs = [generate(seed) for seed in range(300)]
    assert {program.near[0].kind for program in programs} == set(PAIRS)
    assert {far for pair in PAIRS.values() for far in pair} | {"MUTE"} == {
        far.kind for program in programs for far in program.far
    }
    assert any(program.own_session for program in programs)


def test_what_time_decides_is_not_drawn() -> None:
    """Two PAIRs that wait for one peer; two messages where only one is kept."""
    for program in map(generate, range(1000)):
        up: set[str] = set()
        waiting: dict[str, str] = {}
        changes: Counter[str] = Counter()
        for step in program.steps:
            if step.do == "bind":
                up.add(step.who)
                waiting.pop(step.who, None)
            elif step.do == "open":
                up.add(step.who)
            elif step.do == "close":
                up.discard(step.who)
            elif step.do == "connect" and step.who in up and step.args[0] not in up:
                assert program.near[0].kind != "PAIR" or step.args[0] not in waiting, program
                waiting[step.args[0]] = step.who
            elif step.do in ("subscribe", "unsubscribe"):
                changes[step.who] += 1
        for near in program.near:
            assert changes[near.name] <= 1 or not near.options.get("CONFLATE"), program


@pytest.mark.timeout(180)
@pytest.mark.parametrize("tunnelled", [False, True], ids=["direct", "tunnelled"])
def test_a_crew_does_its_tasks(openssh: OpenSSHServer, tunnelled: bool) -> None:
    seeds = range(4)
    verdicts: dict[int, Verdict] = {}

    def report(task: Task, verdict: Verdict) -> None:
        verdicts[task.seed] = verdict

    tasks: Iterator[Task] = map(Task, seeds)
    Crew(4, arguments_for(openssh) if tunnelled else None, tasks, report).run()
    assert verdicts.keys() == set(seeds)
    if not tunnelled:
        assert {verdict.outcome for verdict in verdicts.values()} <= {"same", "once", "discarded"}


def test_ctrl_c_ends_a_run_with_its_summary() -> None:
    command = [sys.executable, "-u", "-m", "tests.differential", "--itself", "--jobs", "2"]
    run = subprocess.Popen(
        [*command, "--show", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert run.stdout and run.stdout.readline().startswith("seed")
    wait_until(lambda: len(psutil.Process(run.pid).children()) == 2, what="the workers run")
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    assert run.returncode in (0, 1)
    assert "programs in" in output
    assert "Traceback" not in output
