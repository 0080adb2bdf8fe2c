"""How one process starts the others on its machine, and ends them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_NOTICE = 120.0
_SECONDS_TO_STOP = 10.0


def is_one_of_several() -> bool:
    """Whether this process was started to be one of several, by `launched` or by torchrun."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """Number of this process among those of all machines, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process among those of this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))


def visible_gpus() -> int:
    """How many GPUs the driver shows to this process, which CUDA_VISIBLE_DEVICES may limit; PyTorch is not loaded."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


@contextmanager
def launched(count: int, arguments: Sequence[str]) -> Iterator[Callable[[], bool]]:
    """Start further processes with the same arguments, so that there are ``count`` with this one, the first.

    They are told by the environment, as torchrun does it, and stopped if this one fails.

    Yields
    ------
    callable
        Whether one of them has failed.
    """
    if count == 1 or is_one_of_several():
        yield lambda: False
        return
    before = dict(os.environ)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    os.environ.update(WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no name of this machine needs to be known for that
    command = [sys.executable, "-m", "solvar_engine", *arguments]
    others: list[subprocess.Popen[bytes]] = []
    ended = threading.Event()
    try:
        for number in range(1, count):
            own = {"RANK": str(number), "LOCAL_RANK": str(number)}
            others.append(subprocess.Popen(command, env={**os.environ, **own}, stdin=subprocess.DEVNULL))
        os.environ.update(RANK="0", LOCAL_RANK="0")
        threading.Thread(target=_watch, args=(others, ended), name="process-watch", daemon=True).start()
        yield lambda: any(process.poll() for process in others)
        for process in others:
            process.wait(_SECONDS_TO_STOP)
    finally:
        ended.set()
        for process in others:
            process.terminate()
        for process in others:
            _end(process)
        os.environ.clear()
        os.environ.update(before)


def _watch(others: Sequence[subprocess.Popen[bytes]], ended: threading.Event) -> None:
    """Stop this process where one of the others has died and it waits for that one, as GPUs do, without noticing."""
    while not ended.wait(_SECONDS_BETWEEN_LOOKS):
        if any(process.poll() for process in others):
            if not ended.wait(_SECONDS_TO_NOTICE):
                os.kill(os.getpid(), signal.SIGTERM)
            if not ended.wait(_SECONDS_TO_STOP):
                os._exit(128 + signal.SIGTERM)
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
