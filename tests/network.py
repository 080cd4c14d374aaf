"""Network namespaces: a client, a bastion, and an inner network that only the bastion reaches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BASTION = "10.0.0.1"
CLIENT = "10.0.0.2"
GATEWAY = "10.0.1.1"
INNER = "10.0.1.2"

POSSIBLE = sys.platform == "linux" and os.geteuid() == 0 and bool(shutil.which("ip"))
"""Whether there may be namespaces here: they need Linux, root and `ip`."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Network:
    """The names of its namespaces."""

    client: str
    bastion: str
    inner: str

    @staticmethod
    def within(namespace: str) -> list[str]:
        """Return the words that run a command there."""
        return ["ip", "netns", "exec", namespace]

    def create(self) -> None:
        for namespace in (self.client, self.bastion, self.inner):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        self._link(self.client, CLIENT, self.bastion, BASTION)
        self._link(self.bastion, GATEWAY, self.inner, INNER)

    def remove(self) -> None:
        for namespace in (self.client, self.bastion, self.inner):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)

    @staticmethod
    def _link(one: str, one_address: str, other: str, other_address: str) -> None:
        ends = (f"to-{other}"[-15:], f"to-{one}"[-15:])
        ip("link", "add", ends[0], "netns", one, "type", "veth", "peer", ends[1], "netns", other)
        for namespace, end, address in (
            (one, ends[0], one_address),
            (other, ends[1], other_address),
        ):
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", namespace, "link", "set", end, "up")


@contextmanager
def private_network(mark: str) -> Iterator[Network]:
    """Make a network for the body.

    Args:
        mark: what tells its namespaces' names from others'.

    Raises:
        subprocess.CalledProcessError: there are no namespaces here.

    """
    name = f"tz{os.getpid()}{mark}"
    network = Network(f"{name}-c", f"{name}-b", f"{name}-i")
    try:
        network.create()
        yield network
    finally:
        network.remove()
