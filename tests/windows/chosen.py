"""Which of the suite's tests run on Windows, and why the others do not."""

from __future__ import annotations

UNIX = {
    "differential": "its crews are processes that are suspended and resumed by signals",
    "endurance": "suspends programs by signals, for minutes",
    "faults/test_forks.py": "os.fork",
    "faults/test_forgery.py": "imports fcntl; it is about backend='openssh', and files",
    "faults/test_hostile_servers.py": "imports fcntl; locks a file against its reader",
    "faults/test_ordinary_life.py": "signals to the program, os.fork, descriptors' limits",
    "faults/test_orphans.py": "SIGKILL, and what Linux says of processes (see windows)",
    "faults/test_privacy.py": "reads /proc, modes of files and directories, other users",
    "faults/test_scale.py": "imports resource; counts descriptors and threads by /proc",
    "gateway/config/test_config.py": "imports pwd; compares with ssh -G",
    "gateway/config/test_random_config.py": "imports pwd; compares with ssh -G",
    "gateway/openssh/test_forwarder.py": "about backend='openssh', and paths of Unix sockets",
    "gateway/openssh/test_process.py": "imports fcntl; it is about backend='openssh'",
    "gateway/reach/test_shell.py": "takes sh, its signals, and /proc",
    "gateway/trust/test_certificate.py": "runs ssh-keygen",
    "handles/test_local_leg.py": "about Unix sockets' buffers, by /proc",
    "integration": "takes network namespaces",
    "shared/test_directory.py": "modes and owners of directories, paths of Unix sockets",
    "test_check.py": "imports termios",
    "test_deadline.py": "about what SIGALRM interrupts",
    "test_names.py": "imports pwd; takes accounts of Linux",
    "test_namespaces.py": "takes network namespaces",
    "test_openssh_backend.py": "Python has no Unix sockets there, and so the backend is an error",
    "test_prompts.py": "imports termios",
    "test_surroundings.py": "runs env, sh and ps; reads /proc",
    "unchanged": "takes network namespaces",
}
"""Files and folders of the suite that are not collected there, and why."""

_AGENT = "an agent at a Unix socket (for Windows's, see windows)"

UNIX_TESTS = {
    "gateway/trust/test_known_hosts.py::test_add_creates_a_private_file_in_a_private_directory": (
        "files' modes"
    ),
    "gateway/trust/test_known_hosts.py::test_add_keeps_the_file_and_its_mode": "files' modes",
    "gateway/trust/test_known_hosts.py::test_add_follows_a_symbolic_link": (
        "Wine: it says that it has made a symbolic link, and what is there is none"
    ),
    "test_asyncio.py::test_the_local_leg[isolated-a path]": "a Unix socket",
    "test_asyncio.py::test_the_local_leg[threads-a path]": "a Unix socket",
    "test_asyncio.py::test_only_the_user_reaches_the_local_leg": "the modes of a Unix socket",
    "test_asyncio.py::test_a_local_endpoint_that_is_taken_is_an_error": (
        "libzmq's number of the error"
    ),
    "test_auth.py::test_a_key_in_the_agent": _AGENT,
    "test_demo.py::test_the_demo_fits_in_60_columns[sshd]": "the demo has none on Windows",
    "test_demo.py::test_an_sshd_that_does_not_start_is_not_waited_for": "the same",
    "test_install.py::test_the_twins_may_be_imported_afterwards": "gevent, not installed there",
    "test_keys.py::test_a_key_file_that_was_named_must_be_usable[open to others]": "files' modes",
    "test_keys.py::test_a_key_file_that_was_named_must_be_usable[pipe]": "a FIFO",
    "test_keys.py::test_a_default_key_that_is_unusable_is_passed_over": "files' modes",
    "test_keys.py::test_a_certificate_in_the_agent": _AGENT,
    "test_keys.py::test_a_key_that_is_named_by_its_public_half": _AGENT,
    "test_keys.py::test_the_agent_opens_a_key_that_is_locked": _AGENT,
    "test_keys.py::test_an_agent_that_refuses_to_sign": _AGENT,
    "test_keys.py::test_no_signature_is_asked_for_in_vain": _AGENT,
    "test_keys.py::test_a_locked_agent": _AGENT,
    "test_keys.py::test_an_agent_of_no_use_is_passed_over": _AGENT,
    "test_keys.py::test_an_agent_that_never_signs": _AGENT,
    "test_keys.py::test_a_session_returns_when_a_silent_agent_speaks_again": _AGENT,
    "test_keys.py::test_a_gateway_ends_while_the_agent_is_silent": _AGENT,
    "test_keys.py::test_keys_are_offered_in_the_order_of_openssh": _AGENT,
    "test_keys.py::test_keys_that_the_program_named_come_first": _AGENT,
    "test_keys.py::test_identities_only_leaves_the_agents_other_keys_out": _AGENT,
    "test_keys.py::test_certificate_files_come_first": _AGENT,
    "test_keys.py::test_where_the_agent_is": _AGENT,
    "test_keys.py::test_a_key_that_is_let_in_takes_one_request": _AGENT,
    "test_keys.py::test_too_many_keys_are_told": _AGENT,
    "test_keys.py::test_an_rsa_key_does_not_sign_with_sha1": _AGENT,
    "test_keys.py::test_short_rsa_keys_are_not_offered_wherever_they_are": _AGENT,
    "test_proxy_command.py::test_messages_go_over_ssh_itself": "runs ssh, which Wine does not have",
    "test_proxy_command.py::test_a_command_that_fails_is_told": "sh, and signals",
    "test_proxy_command.py::test_a_command_that_says_nothing_is_given_up": "sh, and signals",
    "test_proxy_command.py::test_a_command_that_we_may_not_kill_holds_nothing_up": "signals",
    "test_proxy_command.py::test_ctrl_c_does_not_reach_the_command": "sessions, signals, /proc",
    "test_proxy_command.py::test_an_ssh_that_cannot_ask_is_told_of_proxy_jump": (
        "runs ssh, which Wine does not have"
    ),
    "test_socket_classes.py::test_a_program_that_indexes_its_context_can_be_imported": (
        "ipykernel, not installed there"
    ),
    "test_ssh_module.py::test_a_forked_child_may_open_tunnels_of_its_own": "os.fork",
    "test_ssh_names.py::test_a_file_that_others_may_write_is_not_read": "files' modes",
    "test_ssh_names.py::test_what_to_do_without_a_common_algorithm_is_told": (
        "about backend='openssh' (for what is told there, see windows)"
    ),
    "test_run.py::test_a_forked_process_that_never_comes_back_has_told_it_too": "os.fork",
    "test_run.py::test_what_cannot_be_run_is_told_as_a_shell_does": "files that may be executed",
    "test_run.py::test_a_program_that_uses_libzmq_itself_is_warned_of": "ELF files",
    "test_tunnels.py::test_the_local_leg_at_a_given_path": "a Unix socket",
    "test_tunnels.py::test_a_context_may_have_a_local_leg_for_all": "a Unix socket",
    "test_tunnels.py::test_a_local_port_that_is_taken_is_an_error": "libzmq's number of the error",
    "test_tunnels.py::test_a_tcp_port_of_a_local_leg_is_kept_while_the_peer_is_down": (
        "Windows denies access to a port that is kept, and does not call it in use"
    ),
}
"""Tests of the other files that are left out there, and why."""

FILES = (
    "tests/windows",
    "tests/test_connect.py::test_publish_and_subscribe",
    "tests/test_connect.py::test_a_message_of_64_megabytes",
    "tests/gateway/test_alive.py",
    "tests/gateway/test_clocks.py",
    "tests/gateway/test_redial.py",
    "tests/gateway/trust/test_known_hosts.py::"
    "test_processes_that_add_at_a_time_tear_and_repeat_no_line",
    "tests/shared/system/test_locks.py",
    "tests/test_auth.py::test_accept_new_keeps_what_known_hosts_has",
    "tests/test_proxy_command.py::test_a_command_ends_with_a_gateway_that_is_killed",
    "tests/faults/test_healing.py::test_traffic_resumes_within_a_second_of_a_killed_session",
    "tests/faults/test_healing.py::test_a_silent_link_is_found[sshtunnel-passes again]",
    "tests/test_lifetimes.py::test_pending_messages_survive_without_term",
    "tests/test_lifetimes.py::test_a_finite_linger_is_obeyed",
    "tests/test_hops.py::test_messages_go_over_three_servers_in_a_row",
    "tests/test_shared_sessions.py::test_a_session_persists_for_the_next_context",
    "tests/test_asyncio.py::test_request_and_reply",
    "tests/test_run.py::test_an_unchanged_program_connects_through_the_server",
)
"""Those that CI runs there, files and tests: what there is time for."""
