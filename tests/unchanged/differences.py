"""The tests of others' suites that cannot pass through an SSH server, each with the reason."""

from __future__ import annotations

_LIVES_SHORTLY = "its plugin is a process that lives for 300 ms, in which it has yet to log in"

_READY_TOO_EARLY = "its plugin says that it is started before it connects, which takes a login"

_STOPPED_TOO_EARLY = (
    "ends the program a second after its start; a login may take longer, before which it does not "
    "catch SIGTERM"
)

_SILENCE = "wants nothing on stderr, where circusctl logs that nobody listens behind the server"

DIFFERENT: dict[str, dict[str, str]] = {
    "circus": {
        "test_arbiter.TestTrainer::test_plugins": _READY_TOO_EARLY,
        "test_circusctl.CommandlineTest::test_help_for_add_command": _SILENCE,
        "test_circusctl.CommandlineTest::test_help_switch_no_command": _SILENCE,
        **{
            f"test_plugin_resource_watcher.TestResourceWatcher::test_resource_watcher_{what}": (
                _LIVES_SHORTLY
            )
            for what in ("max_cpu", "max_mem", "max_mem_abs", "min_cpu", "min_mem", "min_mem_abs")
        },
        "test_plugin_watchdog.TestPluginWatchDog::test_watchdog_discovery_found": _LIVES_SHORTLY,
    },
    # On a busy machine.
    "jupyter_client": {"tests.test_kernelapp::test_kernelapp_lifecycle": _STOPPED_TOO_EARLY},
}
"""By the name of the suite, and that of the test."""
