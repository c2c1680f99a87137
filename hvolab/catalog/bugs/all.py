"""Linux's own HVO bugs, and others one step away: each with the variant that has it, and an order to see it.

Without a variant a scenario is upstream's, and nothing goes wrong in it, in its own order or (see
docs/findings.md) in any other. The scripts were found by `hvolab explore NAME --variant V` and shrunk.
"""

from __future__ import annotations

from hvolab.catalog.bugs.bug import ordered
from hvolab.catalog.bugs.failures import RESTORE_BULK_RETRY, RESTORE_OUT_OF_MEMORY, ROLLBACK_SECOND
from hvolab.catalog.bugs.flush_bugs import (
    FLUSH_HEAD_READER,
    FLUSH_READER,
    FLUSH_SLEEPER,
    INVLPG_GLOBALS,
    SWITCHING_CPU,
    TWO_SIZES,
    UNFREEZE_BEFORE_SWEEP,
)
from hvolab.catalog.bugs.kernel_bugs import (
    ERROR_WHILE_GROWING,
    ERROR_WHILE_SHRINKING,
    FROZEN_TAIL,
    HOTPLUGGED,
    KEY_OPTIMIZE,
    KEY_RESTORE,
    ROLLBACK,
    SECOND_ERROR,
    SPLIT_NEIGHBOURS,
    SPLIT_WRITER,
    UP_AND_DOWN,
)
from hvolab.subject.scenario import Scenario

BUGS: tuple[Scenario, ...] = tuple(
    ordered(scenario)
    for scenario in (
        FLUSH_READER,
        FLUSH_HEAD_READER,
        FLUSH_SLEEPER,
        SWITCHING_CPU,
        UNFREEZE_BEFORE_SWEEP,
        UP_AND_DOWN,
        FROZEN_TAIL,
        SPLIT_NEIGHBOURS,
        SPLIT_WRITER,
        HOTPLUGGED,
        KEY_OPTIMIZE,
        KEY_RESTORE,
        ERROR_WHILE_GROWING,
        ERROR_WHILE_SHRINKING,
        SECOND_ERROR,
        ROLLBACK,
        ROLLBACK_SECOND,
        RESTORE_OUT_OF_MEMORY,
        RESTORE_BULK_RETRY,
        INVLPG_GLOBALS,
        TWO_SIZES,
    )
)
