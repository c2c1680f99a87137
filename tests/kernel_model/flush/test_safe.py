"""Policies that are right."""

from __future__ import annotations

from flush_seen import dropped, flushed
from hvo_lab import Lab, lab_2m

from emu.paging.models import coherent
from kernel_model.core.sites import FlushSite
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.safe import FULL, IDEAL, PER_FOLIO
from kernel_model.flush.upstream import UPSTREAM

TWO = (0x4000, 0x4200)


def list_of_two(policy: NamedPolicy) -> Lab:
    lab = lab_2m(*TWO, cpus=2, policy=policy)
    lab.optimize_list()
    return lab


def test_before_v6_7_each_folio_of_a_list_is_flushed_by_itself() -> None:
    """Both lie in one PMD: one split, above the ceiling, and eight pages for each."""
    lab = list_of_two(PER_FOLIO)
    assert flushed(lab) == [(FlushSite.SPLIT_OF_BATCH, 512), *[(FlushSite.REMAP_OF_BATCH, 8)] * 2]
    assert dropped(lab, 1) == [None, 8, 8]
    lab.mark()
    lab.restore_list()
    assert flushed(lab) == [(FlushSite.RESTORE_OF_BATCH, 8)] * 2
    assert dropped(lab, 1) == [8, 8]


def test_a_batch_ends_alike_however_it_was_flushed() -> None:
    one, other = list_of_two(UPSTREAM), list_of_two(PER_FOLIO)
    assert bytes(one.machine.memory.read(0, 1 << 24)) == bytes(other.machine.memory.read(0, 1 << 24))


def test_full_never_flushes_a_range() -> None:
    lab = lab_2m(cpus=2, policy=FULL)
    lab.optimize(lab.config.huge_pages[0])
    assert flushed(lab) == [(FlushSite.SPLIT, 512), (FlushSite.REMAP, 8)]
    assert dropped(lab, 0) == dropped(lab, 1) == [None, None]


def test_where_hardware_keeps_tlbs_coherent_nobody_flushes_or_waits() -> None:
    lab = lab_2m(*TWO, cpus=2, policy=IDEAL)
    lab.optimize_list()
    lab.restore_list()
    assert flushed(lab) == dropped(lab, 0) == dropped(lab, 1) == []
    assert {cpu.mmu.model for cpu in lab.machine.cpus} == {coherent(lab.config.model)}
