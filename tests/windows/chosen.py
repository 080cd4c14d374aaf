"""Which of the suite's tests run on Windows, and why the others do not."""

from __future__ import annotations

UNIX = {
    "differential": "its crews are processes that are suspended and resumed by signals",
    "endurance": "suspends programs by signals, for minutes",
    "faults/test_forgery.py": "imports fcntl; it is about backend='openssh', and files",
    "faults/test_hostile_servers.py": "imports fcntl; locks a file against its reader",
    "faults/test_ordinary_life.py": "signals to the program, os.fork, descriptors' limits",
    "faults/test_orphans.py": "SIGKILL, and what Linux says of processes (see windows)",
    "faults/test_privacy.py": "reads /proc, modes of files and directories, other users",
    "faults/test_scale.py": "imports resource; counts descriptors and threads by /proc",
    "gateway/config/test_config.py": "imports pwd; compares with ssh -G",
    "gateway/config/test_random_config.py": "imports pwd; compares with ssh -G",
    "gateway/openssh/test_forwarder.py": "about backend='openssh', and paths of Unix sockets",
    "handles/test_local_leg.py": "about Unix sockets' buffers, by /proc",
    "integration": "takes network namespaces",
    "shared/test_directory.py": "modes and owners of directories, paths of Unix sockets",
    "test_check.py": "imports termios",
    "test_names.py": "imports pwd; takes accounts of Linux",
    "test_namespaces.py": "takes network namespaces",
    "test_openssh_backend.py": "Python has no Unix sockets there, and so the backend is an error",
    "test_prompts.py": "imports termios",
    "test_surroundings.py": "runs env; locales, and paths of Unix sockets",
    "unchanged": "takes network namespaces",
}
"""Files and folders of the suite that are not collected there, and why."""

FILES = (
    "tests/windows",
    "tests/test_connect.py",
    "tests/gateway/test_alive.py",
    "tests/gateway/test_clocks.py",
    "tests/gateway/test_redial.py",
)
"""Those that CI runs there: what there is time for."""
