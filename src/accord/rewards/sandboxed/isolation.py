"""What Linux gives to hold code that nobody trusts: namespaces, a private file system that is read-only but for one folder, one way to kill all of it.

Called by the supervisor, a process of its own with one thread, before it starts anything. Each step that this machine does not allow is
written down in `missing` rather than passed over. Sources: man pages unshare(2), pid_namespaces(7), user_namespaces(7), mount_setattr(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_NOSUID, _NODEV, _NOEXEC, _RDONLY, _BIND, _REC, _PRIVATE = 2, 4, 8, 1, 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_SUPERVISORS_USERS = 2_000_000_000
"""Users from here on belong to nobody: each sandbox of a root process takes two."""
_OURS = 10
"""The supervisor with its seven threads, the process that waits for it, and the tests."""


class Isolation:
    """What holds, and what does not."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.namespaced = False
        """True: this process is now process 1 of a process namespace, and everything in it dies with it. False: there is none."""
        self.network = False
        """True: the network is shut off by a namespace. False: it is not."""
        self.users: tuple[int, int] = (0, 0)
        """Users of the answer and of the tests; 0: they keep ours."""
        self.process_limit = 0
        """What RLIMIT_NPROC has to be; 0: it would not hold, the supervisor counts instead."""
        self.proc: int | None = None
        """An open /proc that shows the sandbox's processes."""


def _call(function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Mounts:
    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]

    def mount(self, source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
        name = kind.encode() if kind else None
        _call(self.libc.mount, source.encode(), os.fsencode(target), name, flags, options.encode() or None)

    def set_read_only(self, target: str, *, recursive: bool, value: bool) -> None:
        """MOUNT_ATTR_RDONLY (1) on or off; nosuid (2) always on."""
        attributes = struct.pack("=QQQQ", 2 | value, 0 if value else 1, 0, 0)
        _call(
            self.libc.syscall,
            _MOUNT_SETATTR,
            _AT_FDCWD,
            os.fsencode(target),
            _AT_RECURSIVE if recursive else 0,
            attributes,
            len(attributes),
        )

    def hide(self, folder: str, needed: list[str]) -> None:
        """An empty folder over `folder`, with what is needed below it put back in its place."""
        inside = [path for path in needed if path.startswith(folder + "/")]
        held = [(path, os.open(path, os.O_PATH | os.O_DIRECTORY)) for path in inside]
        self.mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, "size=64k,mode=755")
        for path, handle in held:
            os.makedirs(path, exist_ok=True)
            self.mount(f"/proc/self/fd/{handle}", path, None, _BIND | _REC)
            os.close(handle)


def isolate(job: dict[str, Any]) -> Isolation:
    """Enter namespaces and make the private file system, as far as this machine allows it.

    Args:
        job: `folder` (holds `answer` and `tests`), `needed` (folders that must stay readable), `hidden` (folders that must not),
            `disk_bytes`, `processes`, `namespaces` (False: do not try).
    """
    found = Isolation()
    number = os.getpid()  # before process 1 of a namespace takes our place
    if not sys.platform.startswith("linux"):
        found.missing.append("only Linux has namespaces: files the user can write, other processes and the network are not shut off")
        found.process_limit = 0
        return found
    mounts = _Mounts()
    mounts.libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans of the sandbox come to us
    user = os.getuid()
    entered = job["namespaces"] and _enter(mounts, user)
    if entered:
        found.network = True
        _private_files(mounts, job, found)
        _become_first(mounts, found)
    else:
        why = "were not asked for" if not job["namespaces"] else "are not allowed on this machine"
        found.missing.append(f"namespaces {why}: the answer can write wherever its user can, and only Python's own sockets are refused")
    if user == 0 and os.getuid() == 0:
        if entered or _readable(job["needed"]):
            first = _SUPERVISORS_USERS + 2 * number
            found.users = (first, first + 1)
            for name, owner in zip(("answer", "tests"), found.users, strict=True):
                os.chown(os.path.join(job["folder"], name), owner, owner)
            if not entered:
                os.chmod(job["folder"], 0o711)
        else:
            found.missing.append(
                "Python lies where only root can read it, so the answer runs as root: its processes are counted, not limited"
            )
    found.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    if user or found.users[0]:
        # As a user of its own, the count starts at nothing. Else it includes ours, and without a namespace whatever else the user runs.
        others = 0 if found.users[0] else _OURS + (0 if entered else _threads_of(user, found.proc))
        found.process_limit = job["processes"] + others
    return found


def _enter(mounts: _Mounts, user: int) -> bool:
    spaces = _NEWNS | _NEWIPC | _NEWPID | _NEWNET
    if user == 0 and mounts.libc.unshare(spaces) == 0:
        return True
    group = os.getgid()
    if mounts.libc.unshare(spaces | _NEWUSER) != 0:
        return False
    inner = user or 1000  # not 0: a program started as another user than 0 loses its capabilities
    for name, text in (("setgroups", "deny"), ("uid_map", f"{inner} {user} 1"), ("gid_map", f"{inner} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


def _private_files(mounts: _Mounts, job: dict[str, Any], found: Isolation) -> None:
    folder = os.path.realpath(job["folder"])
    try:
        mounts.mount("none", "/", None, _REC | _PRIVATE)
        options = f"size={job['disk_bytes']},nr_inodes=4096,mode=755"
        mounts.mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, options)
        for name in ("answer", "tests"):
            os.mkdir(os.path.join(folder, name), 0o700)
        needed = [folder, *(os.path.realpath(path) for path in job["needed"])]
        for path in sorted({os.path.realpath(path) for path in job["hidden"]}):
            if os.path.isdir(path) and path not in ("/", *needed):
                mounts.hide(path, needed)
        mounts.set_read_only("/", recursive=True, value=True)
        mounts.set_read_only(folder, recursive=False, value=False)
    except OSError as error:
        found.missing.append(f"the file system could not be made private ({error.strerror}): the answer can write wherever its user can")
        for name in ("answer", "tests"):
            os.makedirs(os.path.join(folder, name), 0o700, exist_ok=True)


def _become_first(mounts: _Mounts, found: Isolation) -> None:
    """Go on as process 1 of the namespace, with the namespace's own /proc; the process that was waits for it and passes on how it ended.

    Signals from inside do not reach process 1, and the namespace's end is its end. A process that left its namespace for its children
    may start no threads, so the supervisor has to be such a child.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)  # returns when everything in the namespace is gone
        os._exit(os.waitstatus_to_exitcode(status) & 255)
    found.namespaced = True
    mounts.libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    mounts.libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: the answer may have the same user and must not read or trace this process
    flags = _NOSUID | _NODEV | _NOEXEC | _RDONLY
    try:
        mounts.mount("proc", "/proc", "proc", flags)
    except OSError:
        found.missing.append(
            "/proc could not be shown for the sandbox alone, so it is empty: memory and processes have limits for each process only"
        )
        mounts.mount("tmpfs", "/proc", "tmpfs", flags)


def _readable(paths: list[str]) -> bool:
    """Whether any user can read below these folders: every folder on the way lets everybody through."""
    for path in paths:
        path = os.path.realpath(path)
        while path != "/":
            if not os.stat(path).st_mode & 0o001:
                return False
            path = os.path.dirname(path)
    return True


def _stat(proc: int, name: str) -> list[str]:
    handle = os.open(f"{name}/stat", os.O_RDONLY, dir_fd=proc)
    try:
        return os.read(handle, 4096).decode(errors="replace").rpartition(")")[2].split()
    finally:
        os.close(handle)


def processes(found: Isolation) -> dict[int, tuple[int, int]]:
    """The sandbox's processes: number to (threads, resident bytes). In a namespace, numbers are the namespace's."""
    if found.proc is None:
        return {}
    read: dict[int, tuple[int, int, int]] = {}
    for name in os.listdir(found.proc):
        if name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                fields = _stat(found.proc, name)
                read[int(name)] = (int(fields[1]), int(fields[17]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
    if found.namespaced:
        return {number: values[1:] for number, values in read.items() if number != 1}
    ours, new = {os.getpid()}, True
    while new:
        new = {number for number, values in read.items() if values[0] in ours} - ours
        ours |= new
    return {number: read[number][1:] for number in ours if number in read and number != os.getpid()}


def _threads_of(user: int, proc: int) -> int:
    count = 0
    for name in os.listdir(proc):
        if name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                if os.stat(name, dir_fd=proc).st_uid == user:
                    count += int(_stat(proc, name)[17])
    return count


def kill_all(found: Isolation) -> None:
    """End every process of the sandbox, whatever session or parent it gave itself."""
    if found.namespaced:
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # everybody in the namespace but process 1
        return
    if not hasattr(os, "fork"):
        return
    for user in found.users:
        if user:
            _kill_user(user)
    for _ in range(200):
        left = list(processes(found))
        if not left:
            return
        for number in left:  # stopped first, so that none starts another while its siblings are killed
            with suppress(OSError):
                os.kill(number, signal.SIGSTOP)
        for number in left:
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.005)


def _kill_user(user: int) -> None:
    """kill(-1) as that user reaches all of its processes at once and no other."""
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
