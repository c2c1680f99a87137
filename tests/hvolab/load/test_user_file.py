"""What a user's file is taken for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from user_files import PATCH, written

from hvolab.judge.own import OwnJudge
from hvolab.load.user_file import functions_changed, load
from hvolab.subject.axes import Chosen
from hvolab.subject.blame import LoadError
from hvolab.subject.costs import CostTable
from hvolab.subject.scenario import Scenario
from kernel_model.flush.policy import NamedPolicy
from kernel_model.variants.named import NamedVariant

MAKING = "mine.py:2, in <module>: TypeError: kernel(0, ...)"
JUDGE = "mine.py:2, in <module>: TypeError: judge(start, KIND, ...)"

EVERYTHING = """
from hvolab.api import *

class MyHvo(HugetlbVmemmap):
    "another order"
    async def vmemmap_remap_range(self, start, end, walk): return 0

class MyPool(Hugetlb):
    async def dissolve_free_hugetlb_folio(self, folio): return 0

class Skips(UpstreamFlush):
    def targets(self, initiator): return frozenset()

class FromScratch(FlushPolicy):
    async def dispatch(self, stale): return Ticket(stale)
    async def rely(self, ticket): pass

class _Hidden(HugetlbVmemmap):
    async def vmemmap_remap_range(self, start, end, walk): return 0

class NotAThing:
    pass

BOTH = NamedVariant("both", "two classes at once", _Hidden, MyPool)
MODEL = CpuModel("mine", LazySpec())
TABLE = CostTable("mine", interrupt=5)

async def nothing(kernel, huge): pass

SCENE = scenario("my-scene", [kernel(0, nothing)], huge_page=HUGE_PAGE)

@judge(0, Stored)
def counts(state, event, sight): return state, []
"""


def test_a_thing_is_what_it_is_made_from(tmp_path: Path) -> None:
    found = load(str(written(tmp_path, EVERYTHING)))
    told = [(type(thing), thing.name) for thing in found.things]
    assert told == [
        (NamedVariant, "MyHvo"),
        (NamedPolicy, "Skips"),
        (NamedPolicy, "FromScratch"),
        (NamedVariant, "both"),
        (type(found.things[4]), "mine"),
        (CostTable, "mine"),
        (Scenario, "my-scene"),
        (OwnJudge, "counts"),
    ]
    assert found.variants[0].summary == "another order"


def test_the_only_one_of_its_kind_is_used_unless_another_is_asked_for(tmp_path: Path) -> None:
    found = load(str(written(tmp_path, EVERYTHING)))
    asked = Chosen(variant="both", policy="Skips")
    assert found.completed(asked) == replace(asked, cpu_model="mine")
    with pytest.raises(
        LoadError, match=r"mine.py has more than one variant, MyHvo, both: say --variant NAME, or"
    ):
        found.completed(Chosen(policy="Skips"))
    with pytest.raises(LoadError, match=r"brings the CPU model mine, and --cpu-model asks for lazy$"):
        found.completed(replace(asked, cpu_model="lazy"))
    one = load(f"{tmp_path / 'mine.py'}:Skips")
    assert one.completed(Chosen()) == Chosen(policy="Skips")


def test_two_files_with_one_text_are_one(tmp_path: Path) -> None:
    first, second = written(tmp_path, PATCH, "a.py"), written(tmp_path, PATCH, "b.py")
    assert load(str(first)).digest == load(str(second)).digest
    written(tmp_path, PATCH + "\n", "b.py")
    assert load(str(first)).digest != load(str(second)).digest


def test_nothing_is_written_beside_it(tmp_path: Path) -> None:
    load(str(written(tmp_path, PATCH)))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_the_functions_that_a_variant_changes_are_told_by_name(tmp_path: Path) -> None:
    written(tmp_path, EVERYTHING)
    assert functions_changed(load(str(written(tmp_path, PATCH)))) == {"vmemmap_remap_range"}
    written(tmp_path, EVERYTHING)
    assert functions_changed(load(f"{tmp_path / 'mine.py'}:Skips")) is None, "a policy changes every flush"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 3", "mine.py has nothing to run: no variant, policy, CPU model, scenario, judge, cost table"),
        ("def f(:", "mine.py:1: invalid syntax"),
        ("1 / 0", "mine.py:1, in <module>: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "mine.py:1, in <module>: SystemExit: 0"),
        ("while True: pass", "mine.py:1, in <module>: it goes on and on without making a step"),
        ("from hvolab.api import nothing", None),
        (
            "from hvolab.api import *\n@judge(0, Store)\ndef j(state, event, sight): return state, []",
            f"{JUDGE}: <class 'emu.cpu.ops.Store'> is no kind of event",
        ),
        (
            "from hvolab.api import *\n@judge(0)\ndef j(state, event, sight): return state, []",
            f"{JUDGE}: it names no kind of event to be told of",
        ),
        (
            "from hvolab.api import *\nx = kernel(0, lambda kernel, huge: None)",
            f"{MAKING} wants an async function: nothing is awaited in another",
        ),
        (
            "from hvolab.api import *\nasync def a(kernel): pass\nx = kernel(0, a)",
            f"{MAKING.replace('2', '3')} wants a function of (kernel, huge)",
        ),
        ("x = " + "-" * 100_000 + "1", "mine.py: it cannot be read: MemoryError"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, source: str, said: str | None) -> None:
    with pytest.raises(LoadError) as raised:
        load(str(written(tmp_path, source)))
    assert "\n" not in str(raised.value)
    if said is None:
        assert str(raised.value).startswith(
            "mine.py:1, in <module>: ImportError: cannot import name 'nothing'"
        )
    else:
        assert str(raised.value) == said


def test_a_name_that_is_not_in_the_file_says_what_is_like_it(tmp_path: Path) -> None:
    path = written(tmp_path, PATCH)
    with pytest.raises(LoadError, match=r"^mine.py has nothing to run called 'patch'; did you mean Patch\?$"):
        load(f"{path}:patch")
    with pytest.raises(LoadError, match=r"^mine.py has nothing to run called 'x'; it has: Patch$"):
        load(f"{path}:x")
    with pytest.raises(LoadError, match=r"^'mine' is no FILE.py or FILE.py:NAME$"):
        load("mine")
    with pytest.raises(LoadError, match=r"^cannot read nowhere.py: No such file or directory$"):
        load("nowhere.py")


def test_a_file_that_is_no_text_or_too_large_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"x = '\xff'")
    with pytest.raises(LoadError, match=r"byte 5 is no UTF-8$"):
        load(str(path))
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(LoadError, match=r"1048577 bytes, at most 1048576$"):
        load(str(path))


def test_a_name_that_is_taken_is_one_line(tmp_path: Path) -> None:
    source = PATCH.replace("class Patch", "class upstream")
    found = load(str(written(tmp_path, source)))
    with pytest.raises(LoadError, match=r"mine.py: there is a variant 'upstream' already$"):
        _ = found.axes


def test_several_guest_programs_of_one_cpu_do_not_lie_on_each_other(tmp_path: Path) -> None:
    """The second once overwrote the first, which then ran it twice."""
    source = """
        from hvolab.api import *
        STORE = "mov qword ptr [rdi], {}\\nhlt"
        MINE = scenario(
            "mine",
            [guest(cpu, STORE.format(n), rdi=HUGE_PAGE.folio + 8 * n) for n, cpu in enumerate((1, 1, 2))],
            huge_page=HUGE_PAGE,
        )
    """
    (mine,) = load(str(written(tmp_path, source))).things
    assert isinstance(mine, Scenario)
    placed = [(actor.program.origin, actor.program.code) for actor in mine.build(3).actors]  # type: ignore[union-attr]
    assert len({origin for origin, _ in placed}) == len({code for _, code in placed}) == 3


def test_a_file_may_begin_as_every_file_of_the_project_does(tmp_path: Path) -> None:
    """`annotations` is an object that it leaves in the module, and was taken for state."""
    source = (
        "from __future__ import annotations\nfrom hvolab.api import *\nT = CostTable('mine', interrupt=5)\n"
    )
    assert [thing.name for thing in load(str(written(tmp_path, source))).things] == ["mine"]


def test_a_policy_that_says_itself_what_a_flush_is_need_not_say_when_it_can_be_relied_on(
    tmp_path: Path,
) -> None:
    source = """
    from hvolab.api import *

    class Later(FlushPolicy):
        async def dispatch(self, stale):
            return Ticket(stale, await announce(stale, self._setup.online, 1))

        async def flush(self, stale):
            await self.dispatch(stale)

        async def release(self, ticket, pages):
            await pages.free()
    """
    assert [thing.name for thing in load(str(written(tmp_path, source))).things] == ["Later"]
