"""What keeping freed memory does to a process, seen in the pages that the system hands out."""

import platform
import subprocess
import sys
import textwrap

import pytest

from ifguide.runtime.allocator import FROM_THE_SYSTEM, KEPT, keep_freed_memory

FAULTS = """
    import resource, sys
    from ifguide.runtime.allocator import keep_freed_memory

    def pages():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def fill(times):
        for _ in range(times):
            first, second = b"1" * size, b"2" * size
            del first, second

    way, size = sys.argv[1], int(sys.argv[2])
    assert way == "plain" or keep_freed_memory()
    fill(2)  # the heap grows once
    before = pages()
    fill(10)
    print(pages() - before)
"""

HUGE_PAGE = 2 << 20
"""The largest that a system hands out without being asked; most hand out a 512th of it."""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library has the option")


def fault_count(way: str, size: int) -> int:
    """Pages handed out while two blocks of `size` bytes are made and freed ten times in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(FAULTS), way, str(size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@glibc
def test_freed_memory_is_used_again_without_new_pages():
    size = FROM_THE_SYSTEM // 2
    assert fault_count("keep", size) < 20
    assert fault_count("plain", size) > 10 * 2 * size / HUGE_PAGE / 2


@glibc
def test_large_blocks_go_back_to_the_system():
    size = 2 * FROM_THE_SYSTEM
    assert fault_count("keep", size) > 10 * 2 * size / HUGE_PAGE / 2


@glibc
def test_free_memory_below_a_block_in_use_goes_back_when_asked():
    code = """
        import psutil
        from ifguide.runtime.allocator import keep_freed_memory, return_freed_memory

        def held():
            return psutil.Process().memory_info().rss

        keep_freed_memory()
        blocks = [b"1" * (1 << 20) for _ in range(300)]
        last = b"2" * (1 << 16)
        del blocks
        before = held()
        return_freed_memory()
        print(before - held())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) > 200 << 20


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_the_numbers_fit_the_option():
    assert 0 < FROM_THE_SYSTEM < KEPT < 2**31  # mallopt takes an int
