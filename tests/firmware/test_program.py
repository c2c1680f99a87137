"""`firmware.program`: what a Program promises, and every value it refuses to be."""

from dataclasses import FrozenInstanceError

import pytest

from firmware.program import Argument, Program, Result, UnknownLabel

ORIGIN = 0xFFFFFFFF81000000


def make(
    *,
    arguments: tuple[Argument, ...] = (),
    results: tuple[Result, ...] = (),
    origin: int = ORIGIN,
    code: bytes = b"\x90\xf4",
    labels: dict[str, int] | None = None,
) -> Program:
    known = {"start": ORIGIN, "done": ORIGIN + 1} if labels is None else labels
    return Program("demo", "Does it stop?", arguments, results, "nop\nhlt", origin, code, known)


def test_addresses() -> None:
    program = make()
    assert program.end == ORIGIN + 2
    assert program.address_of("done") == ORIGIN + 1


def test_an_unknown_label_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownLabel) as caught:
        make().address_of("middle")
    assert str(caught.value) == "program demo has no label 'middle'; it has: start, done"
    assert isinstance(caught.value, KeyError)
    with pytest.raises(UnknownLabel) as caught:
        make(labels={}).address_of("middle")
    assert str(caught.value) == "program demo has no label 'middle'; it has: none"


def test_a_program_is_a_value() -> None:
    labels = {"start": ORIGIN}
    program = make(labels=labels)
    labels["start"] = 0
    assert program.address_of("start") == ORIGIN
    assert program == make(labels={"start": ORIGIN})
    assert program != make()
    assert hash(program) == hash(make(labels={"start": ORIGIN}))
    with pytest.raises(TypeError):
        program.labels["start"] = 0  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        program.origin = 0  # type: ignore[misc]


def test_the_widest_program() -> None:
    program = make(code=bytes(4096), labels={"end": ORIGIN + 4096})
    assert program.end == program.address_of("end") == ORIGIN + 4096


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": ORIGIN + 1}, "origin 0xffffffff81000001 is not the start of a page"),
        ({"origin": -4096}, "origin -0x1000 is not the start of a page"),
        ({"origin": 1 << 64}, "origin 0x10000000000000000 is not the start of a page"),
        ({"code": b""}, "0 bytes of code; 1 to 4096 are allowed"),
        ({"code": bytes(4097)}, "4097 bytes of code; 1 to 4096 are allowed"),
        ({"labels": {"far": ORIGIN + 3}}, "label 'far' at 0xffffffff81000003 lies outside the code"),
        ({"labels": {"low": ORIGIN - 1}}, "label 'low' at 0xffffffff80ffffff lies outside the code"),
        ({"arguments": (Argument("stack", "rsp", "", ""),)}, "'rsp' cannot hold an argument or a result"),
        ({"results": (Result("half", "eax", ""),)}, "'eax' cannot hold an argument or a result"),
        (
            {"arguments": (Argument("a", "rdi", "", ""), Argument("b", "rdi", "", ""))},
            "'rdi' is described twice",
        ),
        ({"results": (Result("a", "rax", ""), Result("b", "rax", ""))}, "'rax' is described twice"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(**change)  # type: ignore[arg-type]
    assert str(caught.value) == f"program demo: {message}"
