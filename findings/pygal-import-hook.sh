#!/bin/sh
# pygal 3.1.3, a library that draws charts as SVG, puts a finder into sys.meta_path when it is imported, and the
# finder is of the kind that Python has given up: it has no find_spec(). It is the last one, so on 3.11 each
# later import of what is not there is an ImportWarning first. Where warnings are errors, as in test suites, that
# is no ModuleNotFoundError any more: whoever tries an optional import (as the pickle of the standard library does
# with a module of Jython) fails.
# Seen: the finder, and what importing a module that is not there comes to before and where warnings are errors.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'pygal==3.1.3'
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys
import warnings

import pygal

print("pygal", importlib.metadata.version("pygal"), "on Python", sys.version.split()[0])
(finder,) = [one for one in sys.meta_path if type(one).__name__ == "PluginImportFixer"]
print("its finder has find_spec:", hasattr(finder, "find_spec"), "and find_module:", hasattr(finder, "find_module"))
assert not hasattr(finder, "find_spec")

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    try:
        import no_module_has_this_name
    except ModuleNotFoundError:
        print("a module that is not there: ModuleNotFoundError")
print("warnings meanwhile:", [f"{one.category.__name__}: {one.message}" for one in told])

with warnings.catch_warnings():
    warnings.simplefilter("error")
    try:
        import no_module_has_this_name
    except ModuleNotFoundError:
        came = "ModuleNotFoundError"
    except ImportWarning:
        came = "ImportWarning"
print("the same where warnings are errors:", came)
old = sys.version_info < (3, 12)
assert (came == "ImportWarning") == old, "it has changed"
assert bool(told) == old, "it has changed"
PYTHON
