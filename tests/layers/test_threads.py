"""The pool of threads: equal results, settings left alone, no deadlock after a fork, off where it would be noticed."""

import multiprocessing
import threading

import pytest
import torch
from torch.overrides import TorchFunctionMode

from vidformers.layers import cpu, threads
from vidformers.layers.attention import Inputs
from vidformers.layers.cpu import IN_CACHE, attention_in_blocks
from vidformers.layers.threads import run_blocks, threads_for


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def names_of_workers(count: int = 8) -> set[str]:
    """Names of the threads that ran some blocks, each of which waits a moment for the others."""
    seen = set()

    def worker():
        return lambda block: (seen.add(threading.current_thread().name), threading.Event().wait(0.01))

    run_blocks(worker, range(count), 2)
    return seen


def test_blocks_are_run_once_each_on_all_threads():
    done = []
    run_blocks(lambda: done.append, range(100), 2)
    assert sorted(done) == list(range(100))
    assert len(names_of_workers()) == 2
    assert threading.current_thread().name not in names_of_workers()


def test_few_blocks_stay_on_this_thread():
    assert names_of_workers(1) == {threading.current_thread().name}


def test_workers_compute_alone_and_nothing_else_changes():
    inside, later = [], []
    run_blocks(lambda: lambda block: inside.append(torch.get_num_threads()), range(4), 2)
    assert set(inside) == {1}
    assert torch.get_num_threads() == 2
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_failures_come_through():
    def fail(block: int) -> None:
        raise ValueError(f"block {block}")

    with pytest.raises(ValueError, match="block"):
        run_blocks(lambda: fail, range(4), 2)
    assert len(names_of_workers()) == 2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_attention_is_the_same(mode):
    tokens = int(IN_CACHE**0.5)
    inputs = Inputs(*(torch.randn(1, 3, tokens, 8) for _ in range(3)), None, 0.3, 20.0, 0.0)
    with mode():
        shared = attention_in_blocks(inputs)
        torch.set_num_threads(1)
        torch.testing.assert_close(shared, attention_in_blocks(inputs), atol=1e-6, rtol=1e-6)


def test_blocks_of_short_sequences_are_small(monkeypatch):
    """Threads keep what they freed: of many sequences with few keys, queries count too, not their scores alone."""
    seen, attend = [], cpu._attend
    monkeypatch.setattr(cpu, "_attend", lambda block, *rest: seen.append(block.query.numel()) or attend(block, *rest))
    inputs = Inputs(*(torch.randn(100, 4, 16, 256) for _ in range(3)), None, 0.3, 20.0, 0.0)
    with torch.no_grad():
        attention_in_blocks(inputs)
    assert sum(seen) == inputs.query.numel() and max(seen) <= IN_CACHE


class Watching(TorchFunctionMode):
    """A tool that sees every function."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def test_one_thread_where_others_would_be_noticed():
    tensor = torch.ones(1)
    assert threads_for(tensor) == 1, "gradients"
    with torch.no_grad():
        assert threads_for(tensor) == 2
        assert threads_for(tensor.to("meta")) == 1
        assert threads_for(torch.nn.Parameter(tensor)) == 1
        with Watching():
            assert threads_for(tensor) == 1
        with torch.autocast("cpu"):
            assert threads_for(tensor) == 1
        torch.set_num_threads(threads.MOST_THREADS + 1)
        assert threads_for(tensor) == 1


def test_calls_from_several_threads_at_once():
    done = []
    callers = [threading.Thread(target=run_blocks, args=(lambda: done.append, range(50), 2)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert len(done) == 200


def _in_child(queue: multiprocessing.SimpleQueue) -> None:
    queue.put(len(names_of_workers()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_forked_process_has_threads_of_its_own():
    assert len(names_of_workers()) == 2
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_in_child, args=(queue,))
    process.start()
    process.join(60)
    alive = process.is_alive()
    process.kill()
    assert not alive, "a deadlock"
    assert queue.get() == 2
