"""A JSON file that nobody vouches for: what is refused, and how, in one line."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from hvolab.checked.error import InputError
from hvolab.checked.load import DEFAULT_LIMITS, FileLimits, load_json, one_line


def loaded(data: bytes, tmp_path: Path, limits: FileLimits = DEFAULT_LIMITS) -> object:
    path = tmp_path / "file"
    path.write_bytes(data)
    return load_json(path, limits)


def refusal(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> str:
    """The message that `path` is refused with, the path itself taken off."""
    with pytest.raises(InputError) as error:
        load_json(path, limits)
    file, colon, problem = str(error.value).partition(": ")
    assert (file, colon) == (str(path), ": ")
    assert "\n" not in problem
    return problem


def refusal_of(data: bytes, tmp_path: Path, limits: FileLimits = DEFAULT_LIMITS) -> str:
    path = tmp_path / "file"
    path.write_bytes(data)
    return refusal(path, limits)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.json") == "cannot read: No such file or directory"


def test_a_directory(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "cannot read: Is a directory"


def test_a_name_no_file_can_have() -> None:
    with pytest.raises(InputError) as error:
        load_json(Path("a\0b"), DEFAULT_LIMITS)
    assert str(error.value) == "'a\\x00b': cannot read: embedded null byte"


def test_a_name_of_two_lines_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines"
    with pytest.raises(InputError) as error:
        load_json(path, DEFAULT_LIMITS)
    assert str(error.value) == f"{str(path)!r}: cannot read: No such file or directory"


def test_a_file_too_large_as_it_is(tmp_path: Path) -> None:
    limits = FileLimits(file_bytes=10)
    assert loaded(b'"12345678"', tmp_path, limits) == "12345678"
    assert refusal_of(b'"123456789"', tmp_path, limits) == "too large: more than 10 bytes"


def test_a_file_too_large_once_decompressed(tmp_path: Path) -> None:
    limits = FileLimits(document_bytes=10)
    fits, bomb = gzip.compress(b'"12345678"', mtime=0), gzip.compress(b" " * 1_000_000)
    assert loaded(fits, tmp_path, limits) == "12345678"
    assert refusal_of(bomb, tmp_path, limits) == "too large: more than 10 bytes decompressed"
    assert refusal_of(b" " * 11, tmp_path, limits) == "too large: more than 10 bytes decompressed"


def test_the_limits_when_none_are_given() -> None:
    assert FileLimits() == FileLimits(file_bytes=64 * 2**20, document_bytes=256 * 2**20, depth=32)


PACKED = gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (PACKED[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        (PACKED[:-8] + bytes(8), f"CRC check failed 0x0 != {zlib.crc32(b'{}'):#x}"),
        (b"\x1f\x8b\x07" + bytes(20), "Unknown compression method"),
    ],
)
def test_gzip_data_that_is_damaged(data: bytes, problem: str, tmp_path: Path) -> None:
    assert refusal_of(data, tmp_path) == f"damaged gzip data: {problem}"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b'{"a": 1', "Expecting ',' delimiter: line 1 column 8 (char 7)"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"b": 1, "a": 1, "a": 2}', "the key 'a' occurs twice in one object"),
    ],
)
def test_a_file_that_is_not_json(data: bytes, problem: str, tmp_path: Path) -> None:
    assert refusal_of(data, tmp_path) == f"not JSON: {problem}"


def test_a_number_longer_than_python_converts(tmp_path: Path) -> None:
    assert refusal_of(b"9" * 5000, tmp_path).startswith("not JSON: Exceeds the limit (4300 digits)")


@pytest.mark.parametrize("depth", [33, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_document_nested_too_deep(opening: bytes, closing: bytes, depth: int, tmp_path: Path) -> None:
    data = opening * depth + b"1" + closing * depth
    assert refusal_of(data, tmp_path) == "nested too deep: more than 32 levels"


def test_a_document_nested_as_deep_as_allowed(tmp_path: Path) -> None:
    assert loaded(b"[" * 32 + b"]" * 32, tmp_path) != []


def test_what_decides_between_plain_and_gzip_is_the_content(tmp_path: Path) -> None:
    assert loaded(PACKED, tmp_path) == loaded(b"{}", tmp_path) == {}


def test_a_name_stays_on_one_line() -> None:
    assert one_line(Path("a b")) == "a b"
    assert one_line(Path("a\nb")) == "'a\\nb'"
