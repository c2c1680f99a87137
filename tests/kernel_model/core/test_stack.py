"""Kernel stacks: a page of list heads for each CPU."""

from __future__ import annotations

import pytest

from kernel_model.core.lists import LIST_HEAD_BYTES
from kernel_model.core.stack import Stacks


def test_a_kernel_stack_hands_out_a_page_of_list_heads() -> None:
    stacks = Stacks(2)
    heads = []
    with stacks.list_head(0) as first, stacks.list_head(0) as second, stacks.list_head(1) as other:
        heads = [first, second, other]
    assert heads[1] - heads[0] == LIST_HEAD_BYTES
    assert abs(heads[2] - heads[0]) >= 4096
    with stacks.list_head(0) as again:
        assert again == heads[0]


def test_a_full_kernel_stack_is_an_overflow() -> None:
    stacks = Stacks(1)

    def nest(depth: int) -> None:
        with stacks.list_head(0):
            if depth:
                nest(depth - 1)

    nest(4096 // LIST_HEAD_BYTES - 1)
    with pytest.raises(OverflowError, match="kernel stack of cpu0 is full"):
        nest(4096 // LIST_HEAD_BYTES)
