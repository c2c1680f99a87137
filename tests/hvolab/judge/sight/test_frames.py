"""Whose a frame is, and since when not."""

from __future__ import annotations

from hvolab.judge.sight.frames import Frames, Loss, Lost


def test_a_frame_that_is_freed_is_lost_and_free_until_it_is_allocated() -> None:
    frames = Frames()
    frames.freed(range(8, 12), 3, 40)
    freed = Lost(Loss.FREED, 3, 40)
    assert [frames.last_lost(pfn) for pfn in (7, 8, 11, 12)] == [None, freed, freed, None]
    assert [frames.freed_and_free(pfn) for pfn in (7, 8, 11, 12)] == [None, freed, freed, None]
    frames.allocated(range(8, 10))
    assert [frames.freed_and_free(pfn) for pfn in (8, 9, 10, 11)] == [None, None, freed, freed]
    assert frames.last_lost(8) == freed, "who had it before has lost it all the same"


def test_the_latest_loss_is_told() -> None:
    frames = Frames()
    frames.freed(range(8, 9), 3, 40)
    frames.allocated(range(8, 9))
    frames.freed(range(8, 9), 5, 60)
    assert frames.last_lost(8) == frames.freed_and_free(8) == Lost(Loss.FREED, 5, 60)


def test_a_frame_put_to_another_use_is_lost_and_not_free() -> None:
    frames = Frames()
    frames.reused(8, 3, 40)
    assert frames.last_lost(8) == Lost(Loss.REUSED, 3, 40)
    assert frames.freed_and_free(8) is None
