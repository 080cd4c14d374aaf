"""Directories for Unix sockets: where they are made, what is swept, what comes back."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.leaks import descriptors
from tunneledzmq.shared import directory
from tunneledzmq.shared.directory import (
    RuntimeDirectory,
    remove,
    remove_abandoned,
    remove_restored,
    restore,
    sweep,
)
from tunneledzmq.shared.system import account


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where they are made, and nowhere else; with a path that is short enough."""
    base = Path(tempfile.mkdtemp(prefix="tz-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    yield base
    shutil.rmtree(base)


def test_one_is_private_and_goes(base: Path) -> None:
    made = RuntimeDirectory()
    assert Path(made.path).parent == base
    assert os.stat(made.path).st_mode & 0o777 == 0o700
    made.remove()
    assert not list(base.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no umask")
def test_one_that_is_made_with_a_umask_for_files_lets_its_owner_in(base: Path) -> None:
    before = os.umask(0o177)
    try:
        made = RuntimeDirectory()
        assert os.stat(made.path).st_mode & 0o777 == 0o700
        shutil.rmtree(made.path)
        restore(made.path)
        assert os.stat(made.path).st_mode & 0o777 == 0o700
        made.remove()
    finally:
        os.umask(before)
    assert not list(base.iterdir())


@pytest.mark.parametrize("fault", ["open to others", "too long", "missing"])
def test_a_base_that_will_not_do_is_passed_over(
    fault: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / ("x" * 60 if fault == "too long" else "bad")
    if fault != "missing":
        bad.mkdir()
        bad.chmod(0o777 if fault == "open to others" else 0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(bad))
    made = RuntimeDirectory()
    try:
        assert Path(made.path).parent == base
    finally:
        made.remove()


def test_a_base_that_others_may_write_will_do_if_they_cannot_rename_there(base: Path) -> None:
    base.chmod(0o1777)
    made = RuntimeDirectory()
    assert Path(made.path).parent == base
    made.remove()


def test_without_any_base_the_variables_are_named(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_is_fit", lambda base: False)
    with pytest.raises(OSError, match=r"TMPDIR and XDG_RUNTIME_DIR"):
        RuntimeDirectory()


def test_what_is_stale_is_swept(base: Path) -> None:
    stale, alive = RuntimeDirectory(), RuntimeDirectory()
    (Path(stale.path) / "1").touch()
    stale.release()
    sweep()
    assert [str(path) for path in base.iterdir()] == [alive.path]
    alive.remove()


def test_where_another_system_locks_nothing_is_swept(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Wine, Windows's Python would find /tmp, and no lock on what is alive there."""
    spec = importlib.util.spec_from_file_location("account_of_windows", account.__file__)
    assert spec is not None and spec.loader is not None
    of_windows = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(sys, "platform", "win32")
        spec.loader.exec_module(of_windows)
    monkeypatch.setattr(directory, "account", of_windows)
    assert "/tmp" not in list(directory._bases())


def test_what_only_has_such_a_name_is_not_swept(base: Path) -> None:
    theirs = base / "tunneledzmq-gateway-photos"
    theirs.mkdir(0o700)
    (theirs / "1.jpg").touch()
    sweep()
    assert (theirs / "1.jpg").exists()


def test_one_that_was_removed_comes_back_private_and_locked(base: Path) -> None:
    made = RuntimeDirectory()
    remove(made.path)
    restore(made.path)
    assert os.stat(made.path).st_mode & 0o777 == 0o700
    made_by_us = Path(made.path)
    sweep()
    assert made_by_us.exists(), "somebody uses it"
    remove_restored()
    assert not made_by_us.exists()
    made.remove()


def test_one_that_somebody_else_has_made_meanwhile_is_not_used(base: Path) -> None:
    made = RuntimeDirectory()
    remove(made.path)
    os.mkdir(made.path, 0o755)
    os.chmod(made.path, 0o755)
    with pytest.raises(PermissionError):
        restore(made.path)
    os.rmdir(made.path)
    made.remove()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits")
def test_one_that_cannot_be_emptied_for_want_of_descriptors_is_swept_later(base: Path) -> None:
    made = RuntimeDirectory()
    (Path(made.path) / "1").touch()
    made.release()
    with no_descriptors():
        remove(made.path)
    assert (Path(made.path) / "1").exists()
    sweep()
    assert not list(base.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits")
def test_one_that_is_empty_goes_without_any_descriptor(base: Path) -> None:
    made = RuntimeDirectory()
    (Path(made.path) / directory.STDERR).touch()
    made.release()
    with no_descriptors():
        remove(made.path)
    assert not list(base.iterdir())


def test_all_that_is_in_one_goes(base: Path) -> None:
    made = RuntimeDirectory()
    (Path(made.path) / "s1" / "deeper").mkdir(parents=True)
    (Path(made.path) / "s1" / "deeper" / "1").touch()
    (Path(made.path) / "link").symlink_to(base)
    made.remove()
    assert not list(base.iterdir())


def test_one_that_two_remove_at_once_goes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one's last file goes between two steps of ours, and its mark comes back."""
    made = RuntimeDirectory()
    made.release()
    real, calls = os.rmdir, []

    def rmdir(path: str) -> None:
        calls.append(path)
        if len(calls) == 1:
            os.symlink(".", os.path.join(path, directory._MARK))
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", rmdir)
        remove(made.path)
    assert not list(base.iterdir())


@pytest.mark.parametrize("left", ["", "held", "a socket"])
def test_one_that_could_not_be_removed_goes_with_its_last_socket(base: Path, left: str) -> None:
    """As where a socket was being put in another's place meanwhile."""
    made = RuntimeDirectory()
    socket = Path(made.path) / "1"
    if left != "held":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(directory, "_remove_entry", lambda path: None)
            socket.touch()
            made.remove()
        if left != "a socket":
            socket.unlink()
    remove_abandoned(made.path)
    assert list(base.iterdir()) == ([Path(made.path)] if left else [])
    made.remove()
    remove_abandoned(made.path)
    assert not list(base.iterdir())


def test_one_in_whose_making_ctrl_c_is_pressed_leaves_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(directory, "_mark", interrupted)
    before = descriptors()
    with pytest.raises(KeyboardInterrupt):
        RuntimeDirectory()
    assert descriptors() == before
    assert not list(base.iterdir())


def test_one_that_was_made_when_ctrl_c_is_heard_goes(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir

    def interrupted(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        RuntimeDirectory()
    assert not list(base.iterdir())


def test_one_whose_name_is_taken_gets_another(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter([b"name", b"name", b"more"])
    monkeypatch.setattr(os, "urandom", lambda size: next(names))
    one, other = RuntimeDirectory(), RuntimeDirectory()
    assert one.path != other.path
    for made in (one, other):
        made.remove()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave none to be opened."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # 0 is the lowest: what is open stays open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
