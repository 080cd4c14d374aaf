"""What a run's figures depend on: the machine, and the versions of everything."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import zmq

PACKAGES = ("pyzmq", "paramiko", "cryptography", "sshtunnel", "asyncssh", "pexpect", "psutil")


def machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "kernel": platform.release().partition("-")[0],
        "architecture": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu() -> str:
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor()


def versions() -> dict[str, str]:
    openssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    import tunneledzmq

    return {
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "openssh": openssh.split(",")[0].strip(),
        "openssl": openssh.split(",")[-1].strip(),
        "tunneledzmq": tunneledzmq.__version__,
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
