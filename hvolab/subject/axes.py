"""The axes of what is run: each is chosen by name, by an option of its own, and combines with all others.

kernel form, variant, flush policy, CPU model, kernel configuration, failures, memory origin. A name belongs
to one axis only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from emu.paging.models import ERRATA, LAZY, MODELS, CpuModel
from hvolab.subject.names import Table, UnknownName
from kernel_model.boot import BootConfig, KernelForm
from kernel_model.core.history import History
from kernel_model.core.kconfig import CONFIGS
from kernel_model.flush.broken import BROKEN
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.safe import SAFE
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.mm.failures import (
    AllocationFailures,
    EachMayFail,
    FailAt,
    FailFrom,
    FailUntilFreed,
    NoFailures,
)
from kernel_model.mm.image import VmemmapOrigin
from kernel_model.variants.catalog import VARIANTS as ALL_VARIANTS
from kernel_model.variants.named import UPSTREAM_HVO, NamedVariant

FORMS = Table.of("kernel form", KernelForm, lambda one: one.value)
VARIANTS = Table.of("variant", ALL_VARIANTS, lambda one: one.name, "hvolab list variants")
POLICIES = Table.of("flush policy", (UPSTREAM, *SAFE, *BROKEN), lambda one: one.name)
# By what they are known for.
_CPU_ALIASES = {
    "intel": "lazy",
    "amd": "lazy-amd",
    "amd-invlpgb": "lazy-invlpgb",
    "invlpg-spares-globals": "lazy-alder-lake",
    "strict-multi-size": "lazy-erratum-383",
    "bbm-required": "lazy-bbm-required",
}
CPU_MODELS = Table.of("CPU model", (*MODELS, *ERRATA), lambda one: one.name, aliases=_CPU_ALIASES)
CONFIGURATIONS = Table("kernel configuration", CONFIGS)
ORIGINS = Table.of("memory origin", VmemmapOrigin, lambda one: one.name.lower().replace("_", "-"))


@dataclass(frozen=True, slots=True)
class Axes:
    """What there is by name on the axes that a user's own file can add to."""

    variants: Table[NamedVariant]
    policies: Table[NamedPolicy]
    cpu_models: Table[CpuModel]

    def variant(self, name: str) -> NamedVariant:
        """Raises UnknownName; of a name that is another axis' now it says which option has it."""
        if name not in self.variants and name in RETIRED:
            raise UnknownName(f"{name!r} is no variant any more: {RETIRED[name]}")
        for option, kind, known in (
            ("--policy", self.policies.kind, name in self.policies),
            ("--cpu-model", self.cpu_models.kind, name in self.cpu_models),
        ):
            if name not in self.variants and known:
                raise UnknownName(f"{name!r} is a {kind}: {option} {name}")
        return self.variants.find(name)


BUILT_IN = Axes(VARIANTS, POLICIES, CPU_MODELS)

# What a variant once stood for that differs in another axis: the option that it is now.
RETIRED = {
    "no-op-flush-tlb-all": "--policy flush-all-no-op",
    "local-only-flush": "--policy local-only",
    "flush-skips-idle": "--policy skips-idle",
    "flush-skips-one": "--policy skips-last-cpu",
    "no-flush": "--policy never",
    "invlpg-spares-globals": "--cpu-model lazy-alder-lake",
    "erratum-383": "--cpu-model lazy-erratum-383",
}

_AT = re.compile(r"at:(\d{1,7}(?:,\d{1,7}){0,63})", re.ASCII)
_FROM = re.compile(r"(from|until-freed):(\d{1,7})", re.ASCII)


def failures_of(text: str) -> AllocationFailures:
    """What ``none``, ``any``, ``at:2,5``, ``from:2`` and ``until-freed:2`` mean. Raises UnknownName."""
    if text == "none":
        return NoFailures()
    if text == "any":
        return EachMayFail()
    if found := _AT.fullmatch(text):
        return FailAt(frozenset(map(int, found[1].split(","))))
    if found := _FROM.fullmatch(text):
        position = int(found[2])
        return FailFrom(position) if found[1] == "from" else FailUntilFreed(position)
    raise UnknownName(
        f"there are no failures {text!r}; there are: none, any, at:N[,N...], from:N, until-freed:N"
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an invocation asks for on each axis, by name; None leaves the scenario's own."""

    kernel: str | None = None
    variant: str | None = None
    policy: str | None = None
    cpu_model: str | None = None
    config: str | None = None
    failures: str | None = None
    origin: str | None = None

    @property
    def options(self) -> dict[str, str | None]:
        """By the option that says it, in the order in which a replay line has them."""
        return {
            "--kernel": self.kernel,
            "--variant": self.variant,
            "--policy": self.policy,
            "--cpu-model": self.cpu_model,
            "--config": self.config,
            "--failures": self.failures,
            "--origin": self.origin,
        }

    @property
    def nothing(self) -> bool:
        return all(name is None for name in self.options.values())

    @property
    def deviates(self) -> bool:
        """Whether kernel, policy or CPU are asked for by name."""
        return not self.variant is self.policy is self.cpu_model is None

    def apply(self, boot: BootConfig, axes: Axes = BUILT_IN) -> BootConfig:
        """That system, but for what is asked. Raises UnknownName.

        Bugs show in what a CPU may have cached, so CPUs are lazy ones where something deviates, unless a
        model is asked for.
        """
        if self.kernel is not None:
            boot = replace(boot, form=FORMS.find(self.kernel))
        if self.variant is not None:
            boot = replace(boot, variant=axes.variant(self.variant))
        if self.policy is not None:
            boot = replace(boot, policy=axes.policies.find(self.policy))
        if self.cpu_model is not None:
            boot = replace(boot, model=axes.cpu_models.find(self.cpu_model))
        elif self.deviates and not boot.model.is_lazy:
            boot = replace(boot, model=LAZY)
        if self.config is not None:
            boot = replace(boot, kernel=CONFIGURATIONS.find(self.config))
        if self.failures is not None:
            boot = replace(boot, failures=failures_of(self.failures))
        if self.origin is not None:
            boot = replace(boot, origin=ORIGINS.find(self.origin))
        return boot


# One step away from upstream on a CPU that does what the manual says.
Deviation: TypeAlias = NamedVariant | NamedPolicy | CpuModel


def option_of(deviation: Deviation) -> tuple[str, str]:
    """The option that chooses it, and its name."""
    match deviation:
        case NamedVariant(name=name):
            return "--variant", name
        case NamedPolicy(name=name):
            return "--policy", name
        case CpuModel(name=name):
            return "--cpu-model", name
        case _:
            assert_never(deviation)


def deviating(boot: BootConfig, deviation: Deviation) -> BootConfig:
    """That system, but for one thing; on lazy CPUs, unless the deviation is a CPU."""
    model = boot.model if boot.model.is_lazy else LAZY
    match deviation:
        case NamedVariant():
            return replace(boot, variant=deviation, model=model)
        case NamedPolicy():
            return replace(boot, policy=deviation, model=model)
        case CpuModel():
            return replace(boot, model=deviation)
        case _:
            assert_never(deviation)


def is_in(deviation: Deviation, boot: BootConfig) -> bool:
    """Whether that is what the system deviates in."""
    match deviation:
        case NamedVariant():
            return boot.variant is deviation
        case NamedPolicy():
            return boot.policy is deviation
        case CpuModel():
            return boot.model is deviation
        case _:
            assert_never(deviation)


def deviations_of(boot: BootConfig) -> int:
    """In how many of kernel, policy and CPU it differs from upstream on CPUs that do what the manual says."""
    return sum((boot.variant is not UPSTREAM_HVO, boot.policy is not UPSTREAM, boot.model in ERRATA))


def history_of(deviation: Deviation) -> History | None:
    """The commit that mended it, where a kernel had it; of a CPU, the commit that works around it."""
    match deviation:
        case NamedVariant(history=history) | NamedPolicy(history=history):
            return history
        case CpuModel(name=name):
            return _WORKED_AROUND.get(name)
        case _:
            assert_never(deviation)


_WORKED_AROUND = {
    "lazy-alder-lake": History(
        "ce0b15d11ad8",
        "x86/mm: Avoid incomplete Global INVLPG flushes",
        "v6.4",
        "kernel translations outlive a flush that has returned",
    ),
}
