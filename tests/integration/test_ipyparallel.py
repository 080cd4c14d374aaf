"""ipyparallel: a controller behind an SSH server; clients and engines in front of it."""

from __future__ import annotations

import sys

import pytest

from tests.integration.conftest import Cluster
from tests.polling import wait_until
from tests.programs import run_program, start_program

PACKAGES = ["ipyparallel", "numpy"]

pytestmark = pytest.mark.timeout(120)


def test_a_client_maps_and_moves_large_arrays(cluster: Cluster) -> None:
    output = run_program(
        """
        import ipyparallel, numpy

        with TunneledContext(ssh=server) as ctx, ipyparallel.Client(file, context=ctx) as client:
            client.wait_for_engines(2, timeout=20)
            print(client.load_balanced_view().map_sync(lambda x: x * x, range(8)))
            array = numpy.arange(100_000_000 // 8, dtype=float)
            client[0].push({"array": array}, block=True)
            print(client[0].apply_sync(lambda: float(array.sum())) == array.sum())
            print((client[0].pull("array", block=True) == array).all())
            stats = [tunnel.stats() for tunnel in ctx.tunnels]
            print(max(one.bytes_sent for one in stats) // 10**8)
            print(max(one.bytes_received for one in stats) // 10**8)
            client.close()
        """,
        prefix=cluster.site.near,
        timeout=60,
        server=cluster.site.sshd.server,
        file=cluster.file("client"),
    )
    assert output.splitlines() == ["[0, 1, 4, 9, 16, 25, 36, 49]", "True", "True", "1", "1"]


def test_a_client_with_sshserver_uses_our_tunnels(cluster: Cluster) -> None:
    output = run_program(
        """
        import ipyparallel, tunneledzmq.ssh

        tunneledzmq.ssh.install()
        with ipyparallel.Client(file, sshserver=server) as client:
            client.wait_for_engines(2, timeout=20)
            print(client[:].map_sync(lambda x: x + 1, range(4)))
            print({tunnel.server for tunnel in client._mux_socket.tunnels} == {server})
        """,
        prefix=cluster.site.near,
        server=cluster.site.sshd.server,
        file=cluster.file("client"),
    )
    assert output.splitlines() == ["[1, 2, 3, 4]", "True"]


def test_a_cluster_survives_killed_sessions_and_a_killed_engine(cluster: Cluster) -> None:
    """Tunnels heal by themselves; what was asked before must be asked again.

    ipyparallel's clients have a new ZeroMQ identity with each connection, so that the answers to
    what they submitted over the old one go nowhere, with any transport.
    """
    source = """
        import time
        import ipyparallel

        def work(x):
            import time
            time.sleep(0.1)
            return x * x

        def stalled():
            before = [x for x, task in tasks.items() if not task.ready()]
            client.wait([tasks[x] for x in before], timeout=3)
            after = [x for x in before if not tasks[x].ready()]
            return after if after == before else []

        with TunneledContext(ssh=server) as ctx, ipyparallel.Client(file, context=ctx) as client:
            client.wait_for_engines(3, timeout=20)
            view = client.load_balanced_view()
            tasks = {x: view.apply_async(work, x) for x in range(40)}
            tasks[5].get(timeout=20)
            print("in the middle", flush=True)
            deadline = time.monotonic() + 30
            while not all(task.ready() for task in tasks.values()):
                assert time.monotonic() < deadline
                tasks.update({x: view.apply_async(work, x) for x in stalled()})
            assert {x: task.get() for x, task in tasks.items()} == {x: x * x for x in range(40)}
            assert {tunnel.reconnects for tunnel in ctx.tunnels} == {1}
            print("complete", flush=True)
            while len(client.ids) == 3:
                time.sleep(0.05)
            print(client[:].map_sync(lambda x: x * x, range(4)))
        """
    site = cluster.site
    before = set(site.sshd.sessions())
    given = {"server": site.sshd.server, "file": cluster.file("client")}
    with (
        cluster.engine() as engine,
        start_program(source, prefix=site.near, **given) as program,
    ):
        assert program.stdout
        line = program.stdout.readline()
        assert line == "in the middle\n", program.communicate()
        # The client's and the new engine's; what they dial anew ends with them.
        assert len(set(site.sshd.sessions()) - before) >= 2
        site.sshd.kill_sessions(spare=before)
        assert program.stdout.readline() == "complete\n", program.communicate()
        engine.kill()
        assert program.communicate(timeout=40) == ("[0, 1, 4, 9]\n", "")
    wait_until(lambda: set(site.sshd.sessions()) == before)


def test_what_was_under_way_when_the_session_was_lost_is_with_the_hub(cluster: Cluster) -> None:
    source = """
        import time
        import ipyparallel

        def work(x):
            import time
            time.sleep(3)
            return x * x

        with TunneledContext(ssh=server) as ctx, ipyparallel.Client(file, context=ctx) as client:
            client.wait_for_engines(2, timeout=20)
            task = client[:2].apply_async(work, 7)
            while client.queue_status()["unassigned"] or not all(
                client.queue_status(engine)["queue"] for engine in client.ids[:2]
            ):
                time.sleep(0.05)
            print("under way", flush=True)
            while any(not tunnel.reconnects for tunnel in ctx.tunnels):
                time.sleep(0.05)
            while client.result_status(task.msg_ids)["pending"]:
                time.sleep(0.05)
            results = client.result_status(task.msg_ids, status_only=False)
            print([results[each] for each in task.msg_ids])
        """
    site = cluster.site
    before = set(site.sshd.sessions())
    given = {"server": site.sshd.server, "file": cluster.file("client")}
    with start_program(source, prefix=site.near, **given) as program:
        assert program.stdout
        line = program.stdout.readline()
        assert line == "under way\n", program.communicate()
        site.sshd.kill_sessions(spare=before)
        assert program.communicate(timeout=40) == ("[49, 49]\n", "")
    wait_until(lambda: set(site.sshd.sessions()) == before)


def test_an_engine_runs_unchanged_with_its_nanny(cluster: Cluster) -> None:
    """The nanny interrupts the engine, and tells the controller of its death at once."""
    site = cluster.site
    words = ("-m", "tunneledzmq", "run", "--ssh", site.sshd.server, "--except", "127.0.0.1", "--")
    engine = (sys.executable, "-m", "ipyparallel.engine", f"--file={cluster.file('engine')}")
    with site.running(site.near, *words, *engine):
        output = run_program(
            """
            import os, signal, time
            import ipyparallel

            def outcome(task):
                try:
                    return task.get(timeout=30)
                except ipyparallel.RemoteError as exc:
                    return exc.ename

            with (
                TunneledContext(ssh=server) as ctx,
                ipyparallel.Client(file, context=ctx) as client,
            ):
                client.wait_for_engines(3, timeout=30)
                engine = client[max(client.ids)]
                sleeping = engine.apply_async(time.sleep, 60)
                while not sleeping.ready():
                    client.send_signal(signal.SIGINT, targets=engine.targets, block=True)
                    sleeping.wait(0.5)
                print(outcome(sleeping))
                print(outcome(engine.apply_async(os._exit, 1)))
            """,
            prefix=site.near,
            timeout=60,
            server=site.sshd.server,
            file=cluster.file("client"),
        )
    assert output.split() == ["KeyboardInterrupt", "EngineError"]
