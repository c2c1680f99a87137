"""What is set up to be reckoned: who uses what, and that there is room for it."""

from __future__ import annotations

import pytest

from emu.events import Loaded
from hvolab.cost.workload import MOST_FOLIOS, Workload
from hvolab.subject.outcome import Completed
from hvolab.subject.picker import InOrder
from hvolab.subject.run import collect, run
from kernel_model.layout import VMEMMAP_START
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M, Hstate


@pytest.mark.parametrize(
    ("cpus", "folios", "size"),
    [(2, 1, HSTATE_2M), (3, 4, HSTATE_2M), pytest.param(2, 1, HSTATE_1G, marks=pytest.mark.slow)],
)
def test_every_other_cpu_uses_each_folio_and_memory_of_its_own_before_and_after(
    cpus: int, folios: int, size: Hstate
) -> None:
    workload, events = Workload(cpus, folios, size), []
    setup = workload.setup()
    done = run(setup, lambda _system: InOrder(), (collect(events),))
    assert done.outcome == Completed()
    assert not done.findings
    uses = [event for _, event in events if isinstance(event, Loaded) and "_touches" in str(event.site)]
    struct_pages = [event for event in uses if event.va >= VMEMMAP_START]
    assert {event.cpu for event in uses} == set(range(1, cpus))
    assert len(struct_pages) == 2 * (cpus - 1) * 8 * folios
    assert len(uses) == 2 * (cpus - 1) * (8 * folios + 16)
    assert len(uses) <= workload.loads


def test_the_largest_batch_fits_into_memory() -> None:
    boot = Workload(2, MOST_FOLIOS, HSTATE_2M).setup().boot
    last = boot.huge_pages[-1]
    assert boot.memory_bytes > (last.pfn + 512) << 12
    assert boot.memory_bytes <= 32 << 30
