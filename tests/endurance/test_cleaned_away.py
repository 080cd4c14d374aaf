"""The local sockets are removed behind our back, as at the end of a login or by a cleaner."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

import pytest

from tests.faults.injection import kill_gateway, kill_session
from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import ObedientProgram
from tests.sshd import OpenSSHServer

Remote = Callable[..., Peer]


@pytest.mark.lasts(45)
def test_a_program_goes_on_when_the_directory_of_the_local_sockets_is_removed(
    openssh: OpenSSHServer, remote: Remote
) -> None:
    with ObedientProgram(
        """
        from tests.faults.injection import discard_answers, time_to_heal
        ctx = TunneledContext()
        sock = ctx.socket(zmq.DEALER)
        sock.linger = 10_000
        sock.connect(addr, ssh=options)
        """,
        options=arguments_for(openssh),
        addr=remote("router").address,
    ) as program:
        program.do("time_to_heal(sock)")
        local = program.tell("sock.tunnels[0].local")
        shutil.rmtree(os.path.dirname(local.removeprefix("ipc://")))
        time.sleep(15)
        program.do("discard_answers(sock); time_to_heal(sock, 1)")
        kill_session(openssh)
        program.do("discard_answers(sock); time_to_heal(sock, 5)")
        time.sleep(15)
        kill_gateway()
        program.do("discard_answers(sock); time_to_heal(sock, 5)")
        time.sleep(15)
        assert program.tell("sock.tunnels[0].state") == "up"
        assert program.tell("sock.tunnels[0].reconnects") == 2
        program.do("sock.close(); ctx.term()", timeout=10)
