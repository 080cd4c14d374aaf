"""Compares what a program saw on two ways, with slack for time alone."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import SequenceMatcher

from tests.differential.program import Program
from tests.differential.seen import Events, Seen

RETRIES = 5
"""How many more or fewer retries may be by chance, besides some of them."""


NONE = Events("", 0, 0, uncounted=False, stopped=False)


def differences(program: Program, first: Seen, second: Seen, names: tuple[str, str]) -> list[str]:
    """Return in words where two runs of a program differ; empty if they are the same."""
    found: list[str] = []
    # A STREAM need not wait for a peer to write: what it has written waits in the gateway.
    writes_at_once = any(near.kind == "STREAM" for near in program.near)
    for number, step in enumerate(program.steps):
        results = first.results[number], second.results[number]
        if writes_at_once:
            results = _written(results[0]), _written(results[1])
        if results[0] != results[1]:
            found.append(f"step {number}, {step}: {_both(names, *results)}")
        states = first.states[number], second.states[number]
        if states[0] != states[1]:
            found.append(f"connections after step {number}: {_both(names, *states)}")
    conflating = {near.name for near in program.near if near.options.get("CONFLATE")}
    dealt = _dealt_by_time(program)
    if dealt:
        received = [_together(seen.received, dealt) for seen in (first, second)]
        first = replace(first, received=received[0])
        second = replace(second, received=received[1])
    for receiver in sorted(first.received.keys() | second.received.keys()):
        ours, theirs = first.received.get(receiver, {}), second.received.get(receiver, {})
        for sender in sorted(ours.keys() | theirs.keys()):
            one, other = ours.get(sender, []), theirs.get(sender, [])
            # The subscriptions of several peers come to an XPUB in any order.
            if sender == "?" and program.near[0].kind != "STREAM":
                one, other = sorted(one), sorted(other)
            if {f"{receiver}-{sender}", f"{sender}-{receiver}"} & first.repeated:
                one, other = sorted(one), sorted(other)
                if receiver in conflating:
                    # The last one of several connections: any one's last.
                    one, other = one and ["one"], other and ["one"]
            if one != other:
                found.append(f"{receiver} from {sender}: {_messages(names, one, other)}")
    for pair in sorted(first.events.keys() | second.events.keys()):
        events = first.events.get(pair, NONE), second.events.get(pair, NONE)
        if writes_at_once:
            events = tuple(replace(each, stopped=True) for each in events)
        found += _events(pair, *events, pair in first.repeated, names)
    return found


def kind(program: Program, found: list[str]) -> str:
    """Return what it is that differs, without names and numbers: `SUB: events of n-f`."""
    where = re.sub(r"\b([nf])\d+", r"\1", found[0].partition(":")[0])
    where = re.sub(r"step \d+", "a step", where).partition("(")[0]
    return f"{program.near[0].kind}: {where}"


def _dealt_by_time(program: Program) -> set[str]:
    """Return who deals messages out to several sockets in an order that time alone decides.

    That is a peer that several sockets connect to at once, or ask: they reach it in any order, and
    so do their questions. It is also a socket that uses only those connections that are up.
    """
    users: dict[str, set[str]] = {}
    # Those of them that may not be connected yet.
    coming: dict[str, set[str]] = {}
    up, busy = set(), set()
    for step in program.steps:
        if step.do in ("connect", "connect_as"):
            for sockets in users, coming:
                sockets.setdefault(step.args[0], set()).add(step.who)
        elif step.do in ("bind", "restart"):
            up.add(step.who)
            coming[step.who] = set(users.get(step.who, ()))
        elif step.do == "close":
            up.discard(step.who)
        elif step.do == "settle":
            coming = {peer: sockets for peer, sockets in coming.items() if peer not in up}
        elif step.do == "serve" and len(users.get(step.who, ())) > 1:
            busy.add(step.who)
        busy |= {peer for peer in up if len(coming.get(peer, ())) > 1}
    busy |= {
        near.name
        for near in program.near
        if near.options.get("IMMEDIATE") and sum(near.name in each for each in users.values()) > 1
    }
    kinds = {each.name: each.kind for each in (*program.near, *program.far)}
    return {name for name in busy if kinds[name] in ("PUSH", "DEALER", "REQ")}


def _together(
    received: dict[str, dict[str, list[str]]], senders: set[str]
) -> dict[str, dict[str, list[str]]]:
    """Put together what some senders' receivers got of each, and what all answered to it."""
    apart = {
        receiver: {name: log for name, log in by_sender.items() if name not in senders}
        for receiver, by_sender in received.items()
    }
    for sender in senders:
        logs = [by_sender.get(sender, []) for by_sender in received.values()]
        apart.setdefault("all", {})[sender] = sorted(text for log in logs for text in log)
        answers = apart.pop(sender, {})
        apart[sender] = {"all": sorted(text for log in answers.values() for text in log)}
    return apart


def _written(result: str) -> str:
    """Return what a step came to, whenever it was written what was sent to a peer that is down."""
    refused = ("Again(EAGAIN)", "ZMQError(EHOSTUNREACH)")
    return "refused" if result in refused else result.removeprefix("waited, ")


def _both(names: tuple[str, str], first: object, second: object) -> str:
    return f"{names[0]} {first}, {names[1]} {second}"


def _messages(names: tuple[str, str], first: list[str], second: list[str]) -> str:
    text = _both(names, f"{len(first)} messages", len(second))
    for change, start, end, other_start, other_end in SequenceMatcher(
        None, first, second, autojunk=False
    ).get_opcodes():
        if change != "equal":
            one, other = first[start:end], second[other_start:other_end]
            return f"{text}; from {start} on {_both(names, one[:3], other[:3])}"
    return text


def _events(
    pair: str, one: Events, other: Events, mingled: bool, names: tuple[str, str]
) -> list[str]:
    orders = one.order, other.order
    if mingled:
        orders = "".join(sorted(one.order)), "".join(sorted(other.order))
    if one.uncounted or other.uncounted:
        # As often as there was time for, but nothing else.
        orders = (
            "".join(sorted(set(orders[0]) - set("CFDP"))),
            "".join(sorted(set(orders[1]) - set("CFDP"))),
        )
    found = []
    if orders[0] != orders[1]:
        found.append(f"events of {pair}: {_both(names, one.order, other.order)}")
    if one.stopped != other.stopped:
        found.append(f"end of the events of {pair}: {_both(names, one.stopped, other.stopped)}")
    if not one.uncounted and not _same_pace(one, other):
        pace = [f"{events.retries} in {events.down:.1f} s" for events in (one, other)]
        found.append(f"retries of {pair}: {_both(names, *pace)}")
    return found


def _same_pace(one: Events, other: Events) -> bool:
    """Tell whether retries came about as often, as seen from the one that had less time."""
    less, more = sorted((one, other), key=lambda events: events.down)
    if not less.down:
        return True
    expected = more.retries * less.down / more.down
    return abs(less.retries - expected) <= RETRIES + 0.6 * max(less.retries, expected)
