"""The judges together: errors of the model, the end of a run, and no false alarms."""

from __future__ import annotations

from random import Random

import pytest
from judge_lab import HEAD, WORD, guest, lab, oldest, only_finding, reader

from emu.choice import Choice, Question, VersionQuestion
from emu.mmu import without_rule
from emu.paging.models import COHERENT, LAZY, MODELS, SKYLAKE, CpuModel
from emu.paging.tlb import Rule
from hvolab.catalog import scenario
from hvolab.catalog.common import optimize, restore
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import Pct
from hvolab.judge.verdict import Verdict
from hvolab.subject.outcome import Completed, OutOfSteps, Run
from hvolab.subject.pattern import Loads, SetsPte
from hvolab.subject.run import run
from hvolab.subject.scenario import with_program
from hvolab.subject.script import ScriptPicker, ToEnd, Until
from kernel_model.core.kconfig import KernelConfig
from kernel_model.flush.broken import SKIPS_LAST_CPU

# --- model error ----------------------------------------------------------------------------------------


def test_a_tlb_that_ignores_invlpg_of_globals_is_caught_before_the_kernel_is_blamed() -> None:
    model = without_rule(SKYLAKE, Rule.INVLPG_REMOVES_GLOBALS)
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    done = lab(optimize(0), reader(), script=script, model=model).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.MODEL_ERROR
    assert finding.also == (Verdict.MISSED_FLUSH, Verdict.USE_AFTER_FREE)
    assert finding.why[1].startswith("the invalidation at event ")
    assert finding.why[1].endswith(" should have removed it")
    assert done.model_error
    assert not done.wrong  # never a verdict on a kernel


LARGE_KEPT = {
    "the whole TLB": (Rule.ALL_REMOVES_GLOBALS, KernelConfig()),
    "page by page": (Rule.INVLPG_REMOVES_LARGE, KernelConfig(tlb_single_page_flush_ceiling=512)),
}


@pytest.mark.parametrize("name", LARGE_KEPT)
@pytest.mark.parametrize("model", [SKYLAKE, LAZY], ids=lambda model: model.name)
def test_a_tlb_that_keeps_a_large_entry_through_the_flush_of_the_split_is_caught(
    name: str, model: CpuModel
) -> None:
    rule, config = LARGE_KEPT[name]
    script = (Until(1, Loads(WORD)), Until(0, SetsPte(HEAD)), ToEnd(1), ToEnd(0))
    made = lab(optimize(0), reader(), script=script, model=without_rule(model, rule), kernel=config)
    made.strategy = oldest
    done = made.run()
    assert Verdict.MODEL_ERROR in [f.verdict for f in done.findings if f.where.cpu == 1]
    assert done.model_error


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_with_all_its_rules_no_model_is_caught(model: CpuModel) -> None:
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    made = lab(optimize(0), restore(0), reader(), script=script, model=model)
    made.strategy = oldest
    done = made.run()
    assert not done.model_error
    assert not done.findings


# --- the end of a run -----------------------------------------------------------------------------------


def test_a_guest_that_spins_without_pause_is_cut_off() -> None:
    made = lab(guest(0, "again:\n jmp again\n hlt"), cpus=1)
    made.most_steps = 500
    done = made.run()
    assert isinstance(done.outcome, OutOfSteps)
    assert done.outcome.steps == 500
    assert str(done.outcome).startswith("cut off after 500 steps; cpu0 was in guest 0xffffffff81100000: jmp ")
    assert not done.findings


# --- no false alarms ------------------------------------------------------------------------------------


def replay_line(name: str, cpus: int, done: Run) -> str:
    found = "; ".join(f"{f.verdict.value}: {f.cause} ({f.where})" for f in done.findings)
    return f"hvolab run {name} --cpus {cpus} --schedule '{done.schedule}'\n{found}"


HARMLESS = {Verdict.LEGAL, Verdict.EQUIVALENT}


def check_seeds(name: str, cpus: int, seeds: range) -> None:
    setup = scenario(name).build(cpus)
    search = Pct(seeds.start, len(seeds) + 1, depth=4)
    freedoms = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
    search.begin()
    run(setup, lambda _system: search.guide(freedoms))  # PCT takes the length from it
    assert len(seeds) > 0
    for _ in seeds:
        assert search.begin()
        done = run(setup, lambda _system: search.guide(freedoms))
        assert isinstance(done.outcome, Completed), replay_line(name, cpus, done)
        assert not done.findings, replay_line(name, cpus, done)
        assert {use.verdict for use in done.uses} <= HARMLESS, replay_line(name, cpus, done)


@pytest.mark.parametrize("cpus", [2, 3])
@pytest.mark.parametrize("name", ["stale-read", "remap"])
def test_upstream_has_no_violation_in_any_order(name: str, cpus: int) -> None:
    check_seeds(name, cpus, range(12))


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [2, 3])
@pytest.mark.parametrize("name", ["stale-read", "flush-begun-before", "remap"])
def test_upstream_has_no_violation_in_many_orders(name: str, cpus: int) -> None:
    check_seeds(name, max(cpus, scenario(name).cpus_min), range(12, 90))


BUSY = """
again:
    mov rax, [rdi + 8]
    mov rbx, [rdi + 4104]
    mov rcx, [rdi + 28680]
    dec rsi
    jne again
    hlt
"""


class AnyOrder:
    """Every choice at random. Finds little, but makes many stale uses."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def pick(self, enabled: list[Choice]) -> Choice:
        return self._random.choice(enabled)

    def answer(self, question: Question) -> int:
        return self._random.randrange(question.options) if isinstance(question, VersionQuestion) else 0

    def finish(self) -> None:
        """Any end is fine."""


def busy_readers(cpus: int, model: CpuModel, seed: int) -> Run:
    """cpu0 optimizes and restores twice; all others read the head and two tails all the time."""
    readers = [guest(cpu, BUSY, "busy", head=int(HEAD), times=40) for cpu in range(1, cpus)]
    made = lab(optimize(0), restore(0), optimize(0), restore(0), *readers, cpus=cpus, model=model)
    made.strategy = lambda _lab: AnyOrder(seed)
    return made.run()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_readers_at_work_while_the_kernel_remaps_see_nothing_wrong(model: CpuModel) -> None:
    stale = 0
    for seed in range(3):
        done = busy_readers(3, model, seed)
        assert not done.findings, replay_line("busy readers", 3, done)
        assert {use.verdict for use in done.uses} <= HARMLESS, replay_line("busy readers", 3, done)
        stale += sum(use.times for use in done.uses)
    assert (stale > 0) == (model != COHERENT), "the test would show nothing"


@pytest.mark.parametrize("model", [SKYLAKE, LAZY], ids=lambda model: model.name)
def test_the_same_readers_find_a_flush_that_leaves_a_cpu_out(model: CpuModel) -> None:
    """That the test above passes says something only if this one does."""
    readers = [guest(cpu, BUSY, "busy", head=int(HEAD), times=40) for cpu in (1, 2)]
    made = lab(optimize(0), restore(0), *readers, cpus=3, model=model, policy=SKIPS_LAST_CPU)
    made.strategy = lambda _lab: AnyOrder(0)
    found = made.run().findings
    assert Verdict.MISSED_FLUSH in {finding.verdict for finding in found}
    assert {finding.where.cpu for finding in found} == {2}


def test_a_program_of_ones_own_finds_the_same() -> None:
    """with_program() gives the readers of a scenario another program, and the verdict stays."""
    setup = with_program(
        scenario("missed-cpu").build(2), "mine.S", "mov rax, [rdi]\nnop\nmov rcx, [rdi]\nhlt"
    )
    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine))
    finding = only_finding(done)
    assert finding.verdict is Verdict.MISSED_FLUSH
    assert (finding.where.code, finding.where.instruction) == ("mine.S", "mov rcx, qword ptr [rdi]")
