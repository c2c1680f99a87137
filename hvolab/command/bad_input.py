"""The errors that a user can cause: each is one line, and exit status 2."""

from __future__ import annotations

from emu.cpu.recall import Unrepeatable
from emu.guest.decode import UnsupportedInstruction
from firmware.assemble import AssemblyError
from hvolab.checked.error import InputError
from hvolab.show.trace_json import TraceError
from hvolab.subject.blame import LoadError
from hvolab.subject.names import UnknownName
from hvolab.subject.scenario import NoGuest
from hvolab.subject.schedule import ScheduleError
from hvolab.subject.script import ScriptError
from kernel_model.boot import LayoutError

BAD_INPUT = (
    AssemblyError,
    InputError,
    LayoutError,
    LoadError,
    NoGuest,
    ScheduleError,
    ScriptError,
    TraceError,
    UnknownName,
    Unrepeatable,
    UnsupportedInstruction,
)
