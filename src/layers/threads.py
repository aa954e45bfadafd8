"""A kept pool of threads for work in blocks that need not wait for each other.

PyTorch computes every product on all its threads, which wait for each other at its end. Where other programs use the
same cores, each of these waits may last until the system runs a thread again that it had put aside. Here every thread
takes one block after the other and computes it alone.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

from .modules import is_computed_as_called


Block = TypeVar("Block")
Worker = Callable[[], Callable[[Block], None]]

MOST_THREADS = 16
"""With more threads, Python, which they need for starting each operation, would be what they wait for."""

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def threads_for(tensor: torch.Tensor) -> int:
    """How many threads may share work on a tensor: those that PyTorch has here, or one where that can't be.

    It can't for other devices, where gradients are wanted, under autocast, and in programs that are traced or watched,
    which know of one thread alone. With very many threads it doesn't pay.
    """
    num_threads = torch.get_num_threads()
    return num_threads if is_computed_as_called(tensor) and num_threads <= MOST_THREADS else 1


def run_blocks(make_worker: Worker, blocks: Sequence[Block], num_threads: int) -> None:
    """Run blocks on several threads of one core each, in no order.

    Args:
        make_worker: gives what computes a block, once for each thread. It is called in this one, which should allocate
            what the others fill: each keeps up to 64 MiB of what it allocated and freed itself.
        blocks: what there is to do.
        num_threads: as many threads. With one, this thread does everything, on all of PyTorch's threads.
    """
    rest = iter(blocks)
    if num_threads == 1 or len(blocks) < num_threads:
        _work(make_worker(), rest)
        return
    pool, mode = _pool(num_threads), torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad
    workers = [make_worker() for _ in range(num_threads)]
    for done in [pool.submit(_work_in, mode, worker, rest) for worker in workers]:
        done.result()


def _work_in(
    mode: Callable[[], AbstractContextManager], compute: Callable[[Block], None], rest: Iterator[Block]
) -> None:
    with mode():
        _work(compute, rest)


def _work(compute: Callable[[Block], None], rest: Iterable[Block]) -> None:
    """Take blocks until there are none left; other threads may take from the same iterator."""
    for block in rest:
        compute(block)


def _pool(num_threads: int) -> ThreadPoolExecutor:
    """The threads, made when they are first asked for."""
    with _lock:
        if num_threads not in _pools:
            _pools[num_threads] = _make_pool(num_threads)
        return _pools[num_threads]


def _make_pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads for which PyTorch has one thread each. The setting of all others stays as it is."""
    pool, started = ThreadPoolExecutor(num_threads, "vidformers"), threading.Barrier(num_threads + 1)

    def start() -> None:
        torch.get_num_threads()  # or the thread's first operation would take over the setting of the others
        torch.set_num_threads(1)  # of this thread, but it is also what threads that start later get
        started.wait()

    for _ in range(num_threads):
        pool.submit(start)
    started.wait()
    torch.set_num_threads(num_threads)
    return pool


def _forget() -> None:
    """In a new process, which has none of the threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
