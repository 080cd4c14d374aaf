"""From what the program asked for to a command line of ssh(1).

ssh reads the config file itself. ``ssh -G`` tells what it makes of it: whom messages name, how
long a login may take, and where neither options nor file say anything, so that the defaults are
this package's.
"""

from __future__ import annotations

import errno
import math
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from ...shared.environment import environment_of_others
from ...shared.interpreter import find_interpreter, is_called_python
from ...shared.system.polling import LONGEST_WAIT
from ..config import methods_of, server_name
from ..login import Login, LoginError, Request
from . import helper
from .hops import Hops

__all__ = ["OpenSSHLogin", "helper_command", "master_command", "resolve"]

# In a frozen program it is a file only because of a hook (see tunneledzmq.pyinstaller).
_HELPER = os.path.splitext(os.path.abspath(helper.__file__))[0] + ".py"

# Of the user's config file, what has nothing to do with our channels, or would get in their way.
_OURS = {
    "ControlMaster": "yes",
    "ControlPersist": "no",
    "LogLevel": "DEBUG1",  # host keys' fingerprints, and which channel failed
    "BatchMode": "no",  # secrets are ours to give; whether the user may be asked is kept
    "ClearAllForwardings": "yes",
    "ExitOnForwardFailure": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "Tunnel": "no",
    "UpdateHostKeys": "no",
    "VisualHostKey": "no",
}

# The same, of versions that have not always been there.
_OURS_IF_KNOWN = {"ForkAfterAuthentication": "no"}

# By which word each method is allowed.
_METHODS = {
    "publickey": "PubkeyAuthentication",
    "keyboard-interactive": "KbdInteractiveAuthentication",
    "password": "PasswordAuthentication",
}

# It is two times faster than OpenSSH's own first choice.
_FAST_CIPHER = "aes128-gcm@openssh.com"

# What we need came one after the other: the last was "accept-new".
_OLDEST = (7, 6)

_CONNECT_TIMEOUT = 10.0

# Seconds for what is killed to end.
_KILL_GRACE = 0.5

_ALIVE_INTERVAL = 15


@dataclass(frozen=True)
class OpenSSHLogin(Login):
    """How to log in with ``ssh``; what ssh itself sees to is not in it."""

    command: list[str] = field(default_factory=list)
    """The command line of the master: the program, and its arguments."""

    connects_itself: bool = False
    """The config file has a ProxyJump or a ProxyCommand: that is ssh's."""

    hops: Hops | None = None
    """Those of the config file's ProxyJump."""

    patience: float = 0.0
    """Seconds after which ssh gives a server up that does not answer."""

    control_path: str = ""
    """Where the user's own master may be, which has logged in already."""

    def __repr__(self) -> str:
        return f"<OpenSSHLogin {self.server}>"


def resolve(request: Request) -> OpenSSHLogin:
    """Ask ssh what it makes of the options and of the config file.

    Raises:
        LoginError: there is no ssh, or the options or the config file cannot be used.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        raise LoginError(
            "GatewayError",
            errno.ENOENT,
            f"{request.host}: there is no ssh program on PATH for backend='openssh': install it "
            "(the package is often named openssh-client), or use backend='sshtunnel'",
        )
    given = _flags(_given(request))
    command = [ssh, *_config_file(request), *given]
    destination = ["-T", *_who(request), "--", request.host]
    # What it says with no config file at all is its own default.
    found, default = _ask(
        request,
        ssh,
        # Without -N, it refuses to go to the background (ForkAfterAuthentication).
        [*command, "-G", "-N", *destination],
        [ssh, "-F", "none", "-G", "-T", "--", request.host],
    )
    known_hosts, identity_files = _files(request, found, default)
    own = {
        **_OURS,
        **{name: value for name, value in _OURS_IF_KNOWN.items() if name.lower() in found},
        **_defaults(request, found, default),
        **_methods(request, found),
        **known_hosts,
    }
    if "ServerAliveInterval" in own:
        found["serveraliveinterval"] = [own["ServerAliveInterval"]]
    flags = _flags(own.items()) + [f"-oIdentityFile={_quoted(path)}" for path in identity_files]
    timeout = _number(found, "connecttimeout") or _CONNECT_TIMEOUT
    user, host, port = found["user"][0], found["hostname"][0], int(found["port"][0])
    strict = request.strict_host_key_checking or found["stricthostkeychecking"][0]
    server = server_name(user, host, port)
    jumps = request.jump == "config" and found.get("proxyjump", ["none"]) != ["none"]
    return OpenSSHLogin(
        server=server,
        host=host,
        port=port,
        user=user,
        address_family=_address_family(found),
        bind_address=found.get("bindaddress", [None])[0],
        behind_hop=request.jump == "given",
        connect_timeout=request.connect_timeout or timeout,
        strict_host_key_checking={"ask": "yes", "true": "yes", "false": "no"}.get(strict, strict),
        # For the advice of messages.
        user_known_hosts=request.known_hosts or found.get("userknownhostsfile", [""])[0].split(),
        keyfiles=request.keyfiles,
        passphrase=request.passphrase,
        password=request.password,
        batch_mode=found.get("batchmode") == ["yes"],
        # ssh sees to it itself.
        server_alive_interval=0,
        patience=_number(found, "serveraliveinterval") * _number(found, "serveralivecountmax"),
        host_key_alias=found.get("hostkeyalias", [None])[0],
        command=[*command, *flags, "-N", *destination],
        connects_itself=request.jump == "config"
        and any(
            found.get(name, ["none"]) != ["none"]
            for name in ("proxyjump", "proxycommand", "bindinterface")
        ),
        hops=Hops(server, ssh, given, python()) if jumps else None,
        control_path=_users_master(request, found),
    )


def master_command(login: OpenSSHLogin, control_path: str, gateway: str, hop: str) -> list[str]:
    """Return the command line of a master.

    Args:
        login: where and how to log in.
        control_path: where it is to listen.
        gateway: path of the Unix socket where the gateway listens.
        hop: where the program may stand that it is to start for its hops.

    Raises:
        LoginError: its hops cannot be told our options.
        OSError: what it needs cannot be written.
    """
    ssh, *arguments = login.command
    flags = [f"-oControlPath={_quoted(control_path)}"]
    if not login.connects_itself:
        # The gateway has made the connection. First of all, since a ProxyJump excludes it.
        proxy = shlex.join(helper_command(gateway, "connection")).replace("%", "%%")
        flags += ["-oProxyUseFdpass=yes", f"-oProxyCommand={proxy}"]
    if login.hops is not None and login.hops.write(hop):
        return login.hops.command(hop, [*flags, *arguments])
    return [ssh, *flags, *arguments]


def helper_command(gateway: str, what: str) -> list[str]:
    """Return the command line of :mod:`helper`, which speaks to the gateway."""
    return [python(), "-I", "-S", _HELPER, gateway, what]


def python() -> str:
    """Return the interpreter of what ssh is to start for us.

    Raises:
        LoginError: there is none, or what it is to run is only inside a frozen program.
    """
    interpreter = find_interpreter()
    if interpreter is None or not is_called_python(interpreter):
        interpreter = shutil.which("python3")
    if interpreter is None or not os.path.exists(_HELPER):
        missing = "the file helper.py" if interpreter else "a Python interpreter (python3 in PATH)"
        raise LoginError(
            "GatewayError",
            errno.ENOTSUP,
            f"backend='openssh' needs {missing}, which this frozen program does not have: use "
            "backend='sshtunnel'",
        )
    return interpreter


def _who(request: Request) -> list[str]:
    user = ["-l", request.user] if request.user is not None else []
    return [*user, *(["-p", str(request.port)] if request.port is not None else [])]


def _config_file(request: Request) -> list[str]:
    if request.config_file is None:
        return ["-F", "none"]
    if not request.default_config:
        return ["-F", request.config_file]
    if _at_home(request):
        return []
    # ssh would look into the home directory of the password database, not into $HOME.
    return ["-F", request.config_file if os.path.exists(request.config_file) else "none"]


def _at_home(request: Request) -> bool:
    try:
        return os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir) == os.path.realpath(request.home)
    except KeyError:
        return False


def _given(request: Request) -> Iterator[tuple[str, str]]:
    """Yield the options that the program gave, in ssh_config(5)'s names."""
    if request.known_hosts is not None:
        yield "UserKnownHostsFile", " ".join(map(_quoted, request.known_hosts))
        yield "GlobalKnownHostsFile", "/dev/null"
    if request.strict_host_key_checking is not None:
        strict = request.strict_host_key_checking
        yield "StrictHostKeyChecking", "yes" if strict == "ask" else strict
    if request.compression is not None:
        yield "Compression", "yes" if request.compression else "no"
    if request.ciphers is not None:
        yield "Ciphers", ",".join(request.ciphers)
    if request.connect_timeout is not None:
        yield "ConnectTimeout", str(math.ceil(request.connect_timeout))
    if request.server_alive_interval is not None:
        yield "ServerAliveInterval", str(math.ceil(request.server_alive_interval))
    if request.server_alive_count_max is not None:
        yield "ServerAliveCountMax", str(request.server_alive_count_max)
    if not request.agent:
        yield "IdentityAgent", "none"
    if request.jump != "config":
        yield "ProxyJump", "none"
    for path in request.keyfiles or ():
        yield "IdentityFile", _quoted(path)


def _flags(options: Iterable[tuple[str, str]]) -> list[str]:
    return [f"-o{name}={value}" for name, value in options]


def _quoted(path: str) -> str:
    """Quote a path for ssh_config(5), where a percent sign begins a token."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


Settings = dict[str, list[str]]


def _ask(request: Request, ssh: str, *commands: list[str]) -> list[Settings]:
    """Run ``ssh -G`` several times at once."""
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**environment_of_others(), "LC_ALL": "C"},
            cwd="/",
            start_new_session=True,
        )
        for command in commands
    ]
    timeout = min(request.connect_timeout or _CONNECT_TIMEOUT, LONGEST_WAIT)
    deadline = time.monotonic() + timeout
    try:
        answers = [
            process.communicate(timeout=deadline - time.monotonic()) for process in processes
        ]
    except subprocess.TimeoutExpired:
        for process in processes:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # what a "Match exec" runs, too
        for process in processes:
            # What we may not kill, and that has its standard error, lives on.
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_KILL_GRACE)
        raise _useless(request, f"ssh -G does not end within {timeout:g} s") from None
    return [
        _parse(request, ssh, said, errors, process.returncode)
        for process, (said, errors) in zip(processes, answers, strict=True)
    ]


def _parse(request: Request, ssh: str, said: str, errors: str, status: int) -> Settings:
    found: Settings = {}
    for line in said.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value)
    if status == 0 and {"user", "hostname", "port", "connecttimeout"} <= found.keys():
        return found
    _check_version(request, ssh)
    raise _useless(request, "; ".join(errors.split("\n")).strip("; \r") or "ssh -G failed")


def _useless(request: Request, text: str) -> LoginError:
    return LoginError(
        "SSHConnectionError",
        errno.EINVAL,
        f"{request.host}: ssh cannot use the options, or its config file: {text}",
    )


def _check_version(request: Request, ssh: str) -> None:
    said = subprocess.run(
        [ssh, "-V"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment_of_others(),
    )
    match = re.match(r"OpenSSH_\D*(\d+)\.(\d+)", said.stderr)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST:
        raise LoginError(
            "GatewayError",
            errno.ENOTSUP,
            f"{request.host}: backend='openssh' needs OpenSSH {_OLDEST[0]}.{_OLDEST[1]} or later; "
            f"{ssh} is {said.stderr.strip() or 'something else'}. backend='sshtunnel' needs none",
        )


def _defaults(request: Request, found: Settings, default: Settings) -> dict[str, str]:
    """Set what neither the options nor the config file say."""
    unset = {name for name in found if found[name] == default.get(name)}
    own = {}
    if "serveraliveinterval" in unset and request.server_alive_interval is None:
        own["ServerAliveInterval"] = str(_ALIVE_INTERVAL)
    if found.get("stricthostkeychecking") == ["ask"]:
        own["StrictHostKeyChecking"] = "yes"
    ciphers = found.get("ciphers", [""])[0].split(",")
    if "ciphers" in unset and _FAST_CIPHER in ciphers:
        ciphers.remove(_FAST_CIPHER)
        own["Ciphers"] = ",".join([_FAST_CIPHER, *ciphers])
    if found.get("canonicalizehostname") == ["true"]:
        own["CanonicalizeHostname"] = "always"  # "yes" means: without a ProxyCommand
    return own


def _methods(request: Request, found: Settings) -> dict[str, str]:
    """Let what the program gave be used, whatever the file says."""
    given = methods_of(request)
    own = {
        _METHODS[method]: "yes"
        for method in given
        if found.get(_METHODS[method].lower()) in (["no"], ["false"])
    }
    if "preferredauthentications" in found:
        wanted = found["preferredauthentications"][0].split(",")
        own["PreferredAuthentications"] = ",".join(dict.fromkeys([*wanted, *given]))
    if request.password is not None and found.get("numberofpasswordprompts") == ["0"]:
        own["NumberOfPasswordPrompts"] = "1"
    return own


def _files(
    request: Request, found: Settings, default: Settings
) -> tuple[dict[str, str], list[str]]:
    """Find the default files where $HOME is, as everywhere in Python."""
    if _at_home(request):
        return {}, []
    directory = os.path.join(request.home, ".ssh")
    own = {}
    if found.get("userknownhostsfile") == default.get("userknownhostsfile"):
        paths = [os.path.join(directory, name) for name in ("known_hosts", "known_hosts2")]
        own["UserKnownHostsFile"] = " ".join(map(_quoted, paths))
        found["userknownhostsfile"] = [" ".join(paths)]
    files = found.get("identityfile", [])
    if files != default.get("identityfile", []):
        return own, []
    return own, [os.path.join(directory, os.path.basename(path)) for path in files]


def _number(found: Settings, name: str) -> float:
    try:
        return float(found[name][0])
    except (KeyError, ValueError):  # "none"
        return 0.0


def _address_family(found: Settings) -> int:
    family = found.get("addressfamily", ["any"])[0]
    return {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(family, 0)


def _users_master(request: Request, found: Settings) -> str:
    """Return where the user's master may be, if the login is the config file's to describe."""
    ours = (
        request.keyfiles,
        request.passphrase,
        request.password,
        request.known_hosts,
        request.strict_host_key_checking,
        request.ciphers,
        request.compression,
    )
    if any(value is not None for value in ours) or request.jump != "config" or not request.agent:
        return ""
    return found.get("controlpath", [""])[0]
