"""Installed into a fresh environment, every module can be imported, typed, with its data."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("emu", "firmware", "kernel_model", "hvolab")

IMPORT_ALL = """
import importlib, pkgutil, sys
from pathlib import Path
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    assert "site-packages" in package.__file__, package.__file__
    assert (Path(package.__file__).parent / "py.typed").exists(), name
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print("all imported")
"""


@pytest.mark.slow
def test_an_installed_copy_imports_and_runs(tmp_path: Path) -> None:
    """What it depends on is taken from the environment of the tests; what builds it is fetched."""
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh" / "bin" / "python"
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", ROOT, source], check=True)
    (packages,) = (tmp_path / "fresh" / "lib").glob("python*/site-packages")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", str(source)], check=True, cwd=tmp_path
    )
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    done = subprocess.run(
        [python, "-c", IMPORT_ALL, *PACKAGES], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "all imported"), done.stderr
    command = tmp_path / "fresh" / "bin" / "hvolab"
    shown = subprocess.run([command, "list"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "stale-read" in shown
    ran = subprocess.run([command, "run", "tail-write"], cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 1
    assert sys.version_info >= (3, 11)
