"""A CPU's threads are values."""

from __future__ import annotations

from machine_programs import one_load

from emu.addr import VirtAddr
from emu.cpu.cpu import GuestThread, KernelThread


def test_a_guest_thread_and_a_kernel_thread_are_values() -> None:
    assert GuestThread("a", VirtAddr(1), {"rax": 2}) == GuestThread("a", VirtAddr(1), {"rax": 2})
    assert KernelThread("b", one_load) == KernelThread("b", one_load)
