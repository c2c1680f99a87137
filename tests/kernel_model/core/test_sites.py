"""The places in the file, each by a name of its own."""

from __future__ import annotations

from kernel_model.core.sites import FlushSite


def test_what_is_changed_for_a_batch_is_flushed_later() -> None:
    assert {site for site in FlushSite if site.defers} == {
        FlushSite.SPLIT_OF_BATCH,
        FlushSite.REMAP_OF_BATCH,
        FlushSite.RESTORE_OF_BATCH,
    }


def test_each_place_says_what_it_is() -> None:
    assert len({site.value for site in FlushSite}) == len(FlushSite) == 11
