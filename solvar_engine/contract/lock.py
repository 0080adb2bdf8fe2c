"""A lock file that says which process works in a folder, and that a crash does not leave behind for good."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from solvar_engine.contract.errors import UserError


class FolderLock:
    """The lock of one folder: a file that names host and process, held by the kernel while the process lives.

    The kernel's lock goes with its process, so a crashed run never blocks the next one on the same host, and
    two programs that start at once cannot both win. The text of the file serves people, other hosts (a shared
    file system may keep the kernel's locks to one host), and file systems without locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, also from a process of this host that is dead; taking it twice is allowed.

        Raises
        ------
        UserError
            If another living process, or a process on another host, holds it.
        """
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._refuse_if_held(descriptor)
                if self._is_current(descriptor):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(_this_process()).encode(), 0)
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def release(self) -> None:
        """Remove the lock file if this object holds it."""
        if self._descriptor is not None:
            if self._is_current(self._descriptor):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _refuse_if_held(self, descriptor: int) -> None:
        kernel_has_locks = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._in_use(_read_owner(descriptor)) from None
        except OSError:
            kernel_has_locks = False
        owner = _read_owner(descriptor)
        if owner.get("host", socket.gethostname()) != socket.gethostname():
            raise self._in_use(owner)
        if not kernel_has_locks and _is_alive(owner):
            raise self._in_use(owner)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the descriptor is of the file now at the path: its last owner may have removed it."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _in_use(self, owner: dict[str, object]) -> UserError:
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
        return UserError(
            f"{self.path.parent} is in use by {who}: wait for it, or delete {self.path} if it no longer runs."
        )


def _this_process() -> dict[str, object]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _start_time(pid)}


def _read_owner(descriptor: int) -> dict[str, object]:
    """What the lock file says, empty if its writer was killed before it wrote."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_alive(owner: dict[str, object]) -> bool:
    """Whether the process lives and is the same one, not a later one with its number."""
    pid = owner.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return owner.get("started") in (None, _start_time(pid))


def _start_time(pid: int) -> str | None:
    """Start of a process in clock ticks after boot (field 22 of its stat file); None without /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # the second field, the name in parentheses, may itself contain spaces and parentheses
    return text.rsplit(")", 1)[1].split()[19]
