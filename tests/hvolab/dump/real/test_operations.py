"""What `--do` may say, and that everything else is one line."""

from __future__ import annotations

import pytest
from dumps import real

from hvolab.checked.error import InputError
from hvolab.dump.real.operations import (
    MOST_OPERATIONS,
    WORDS,
    Optimize,
    PoolOperation,
    Restore,
    Shrink,
    Sysctl,
    operations_from,
)


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("optimize:main1_alloc64", Optimize("optimize:main1_alloc64", real("main1_alloc64"))),
        ("restore", Restore("restore")),
        ("sysctl=0", Sysctl("sysctl=0", 0)),
        ("sysctl=1", Sysctl("sysctl=1", 1)),
        ("shrink=0", Shrink("shrink=0", None, 0)),
        ("shrink=32", Shrink("shrink=32", None, 32)),
        ("shrink=2M:4194304", Shrink("shrink=2M:4194304", 9, 1 << 22)),
        ("shrink=1G:0", Shrink("shrink=1G:0", 18, 0)),
    ],
)
def test_an_operation(text: str, operation: PoolOperation) -> None:
    assert operations_from((text,), real) == (operation,)


def refused(*texts: str) -> str:
    with pytest.raises(InputError) as caught:
        operations_from(texts, real)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "''"),
        ("optimise:x", "optimise:x"),
        ("optimize", "optimize"),
        ("Restore", "Restore"),
        ("restore:x", "restore:x"),
        ("restore ", "'restore '"),
        ("sysctl=2", "sysctl=2"),
        ("sysctl", "sysctl"),
        ("shrink", "shrink"),
        ("grow=3", "grow=3"),
        ("a\nb\x1b[31m", "'a\\nb\\x1b[31m'"),
    ],
)
def test_an_unknown_operation_is_told_those_there_are(text: str, shown: str) -> None:
    assert refused(text) == f"--do {shown}: no such operation; there are {WORDS}"


@pytest.mark.parametrize("number", ["", "-1", "x", "1.5", "0x10", "4194305", "9" * 5000, "+3", "²", "1\n"])
def test_a_number_out_of_range(number: str) -> None:
    message = refused(f"shrink={number}")
    assert message.startswith("--do ")
    assert message.endswith(": a number of huge pages is 0 to 4194304")


@pytest.mark.parametrize("size", ["", "4K", "1g", "2M:"])
def test_an_unknown_size(size: str) -> None:
    message = refused(f"shrink={size}:3")
    assert message in (
        f"--do shrink={size}:3: no such size; there are 1G, 2M",
        f"--do shrink={size}:3: a number of huge pages is 0 to 4194304",
    )


def test_too_many_operations() -> None:
    assert len(operations_from(("sysctl=0",) * MOST_OPERATIONS, real)) == 32
    assert refused(*("sysctl=0",) * 33) == "--do: 33 operations; at most 32"
