"""What ssh runs to ask its gateway: the program behind SSH_ASKPASS and ProxyCommand.

It is started as a file, by an interpreter without site-packages, and so imports nothing of this
package::

    helper.py SOCKET prompt TEXT    asks for a secret and prints it (see SSH_ASKPASS in ssh(1))
    helper.py SOCKET connection     gets a connection to the server, and hands it to ssh
                                    (see ProxyUseFdpass in ssh_config(5))
"""

from __future__ import annotations

import sys

# What `socket` is made of: ssh waits for this program, and `socket` takes longer than all else.
from _socket import AF_UNIX, SHUT_WR, SOCK_STREAM, SOL_SOCKET, socket

# Environment variable with the number of the ssh that logs in to the server. All others that ask
# are on the way there: they log in to its hops.
MASTER = "TUNNELEDZMQ_SSH"

# A descriptor, as it travels: SCM_RIGHTS with one C int.
SCM_RIGHTS = 1
ROOM = 64


def main(path: str, what: str, text: str = "") -> int:
    """Ask the gateway that listens on the Unix socket at `path`."""
    gateway = socket(AF_UNIX, SOCK_STREAM)
    gateway.connect(path)
    question = (what, *about_prompt(), text) if what == "prompt" else (what,)
    gateway.sendall("\0".join(question).encode(errors="replace"))
    gateway.shutdown(SHUT_WR)
    return hand_over(gateway) if what == "connection" else tell(gateway)


def about_prompt() -> tuple[str, str]:
    """Return who prompts, ``master`` or ``hop``, and what ssh says about the kind of its prompt."""
    import os

    who = "master" if os.environ.get(MASTER) == str(os.getppid()) else "hop"
    return who, os.environ.get("SSH_ASKPASS_PROMPT", "")


def tell(gateway: socket) -> int:
    """Print the answer. Its first byte tells an empty one from none."""
    answer = b""
    while data := gateway.recv(4096):
        answer += data
    if not answer:
        return 1
    sys.stdout.buffer.write(answer[1:] + b"\n")
    return 0


def hand_over(gateway: socket) -> int:
    """Pass the descriptor that the gateway sends on to ssh, which waits at our output."""
    _, passed, _, _ = gateway.recvmsg(1, ROOM)
    if not passed:
        return 1
    ssh = socket(AF_UNIX, SOCK_STREAM, 0, 1)
    ssh.sendmsg([b"\0"], [(SOL_SOCKET, SCM_RIGHTS, passed[0][2])])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
