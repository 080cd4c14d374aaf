"""A Unix account with a password, for sshd to check."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Account:
    """Who may log in."""

    user: str
    password: str
    authorized_keys: Path
    """Readable for the account, as those of the tests' servers are not."""


@contextlib.contextmanager
def temporary_account() -> Iterator[Account]:
    """Make an account that is gone at the end. Needs root."""
    user = f"tz{secrets.token_hex(4)}"
    password = secrets.token_urlsafe(12)
    home = Path(tempfile.mkdtemp(prefix="tz-home-", dir="/var/tmp"))
    try:
        subprocess.run(["useradd", "-M", "-d", str(home), user], check=True)
        try:
            home.chmod(0o755)
            subprocess.run(["chpasswd"], input=f"{user}:{password}", text=True, check=True)
            (home / "authorized_keys").touch(0o644)
            yield Account(user, password, home / "authorized_keys")
        finally:
            subprocess.run(["userdel", user], check=True, capture_output=True)
    finally:
        shutil.rmtree(home)


def may_make_accounts() -> bool:
    """Tell whether :func:`temporary_account` works here."""
    if sys.platform == "win32":
        return False
    return os.geteuid() == 0 and bool(shutil.which("useradd") and shutil.which("chpasswd"))
