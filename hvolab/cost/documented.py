"""The cost table that is used where none is given: from what is published, at 3 GHz.

A model, not a machine: what each number is from, docs/costs.md says, and what it is good for.
"""

from __future__ import annotations

from hvolab.subject.costs import CostTable

CYCLES_A_MICROSECOND = 3_000

DOCUMENTED = CostTable(
    "published figures at 3 GHz",
    # synchronize_rcu() sleeps, for milliseconds: no cycles of a CPU, so it is counted and not reckoned.
    grace_period=0,
    # The request itself, beside what it makes CPUs do.
    flush=0,
    # Entry, handler and return on a CPU that is interrupted: see ipi_target.
    interrupt=1_200,
    # "about 100 ns": arch/x86/mm/tlb.c on tlb_single_page_flush_ceiling.
    invlpg=300,
    # 376 ns for INVPCID type 2 on a Skylake: Linux d8bced79af1d.
    full_flush=1_128,
    # With tlbsync 1.2 us for all: 4 % of 31 us a loop of tlb_flush2_threads on 36 cores with INVLPGB.
    broadcast=300,
    # Tens of cycles while the page tables are in the data caches.
    walk=30,
    # With interrupt and one INVLPG 0.6 us a CPU: 40 % of 49 us a loop on those 36 cores with interrupts.
    ipi_target=300,
    # The rest of a round trip of 1 to 3 us between two CPUs.
    ipi_delivery=1_500,
    tlbsync=3_300,
    access=4,
)
