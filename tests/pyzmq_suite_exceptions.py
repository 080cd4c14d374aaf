"""The tests of pyzmq's suite that cannot pass when every connect goes through an SSH server.

Each by its name, with the reason. `pyzmq_suite` runs them all the same, and tells which passed.
"""

from __future__ import annotations

_ENDPOINT = "expects the peer's address in a monitor's events; the local leg's is there"

_ZAP = "its ZAP handler is on the connecting side, where it sees the local leg's address"

DIFFERENT = {
    "tests/test_auth.py::TestAsyncioAuthentication::test_curve_user_id": _ZAP,
    "tests/test_auth.py::TestThreadAuthentication::test_curve_user_id": _ZAP,
    "tests/test_monitor.py::test_monitor[zmq]": _ENDPOINT,
    "tests/test_monitor.py::test_monitor[asyncio]": _ENDPOINT,
    "tests/test_monitor.py::test_monitor_connected[zmq]": _ENDPOINT,
    "tests/test_monitor.py::test_monitor_connected[asyncio]": _ENDPOINT,
}
"""What the tunnel changes, and the README says so: a test of these that passes is an error."""

_LOGIN = "gives the device 0.2 s to connect, or its PUB drops what it sends; a login takes longer"

RACES = {
    "tests/test_monqueue.py::TestMonitoredQueue::test_monitor": _LOGIN,
    "tests/test_monqueue.py::TestMonitoredQueue::test_monitor_subscribe": _LOGIN,
    "tests/test_monqueue.py::TestMonitoredQueue::test_prefix": _LOGIN,
}
"""What a tunnel's time spoils: it may pass now and then."""

RACES_ANYWAY = {
    "tests/test_log.py::TestPubLog::test_blank_root_topic": (
        "publishes right after subscribing: on a busy machine it waits for ever without us, too"
    ),
}
"""What is decided by time alone, with plain pyzmq as well."""
