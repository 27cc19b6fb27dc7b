"""`accord doctor`: what this machine can do, what is missing, what will be slow and why, whether models know where an answer ends."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

from accord import __version__
from accord.config.options import DoctorOptions

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "gguf")


def run(options: DoctorOptions) -> int:
    """Print one line a fact; returns 4 when something needed is missing, or a model that was named cannot be trained as it is."""
    missing = []
    print(f"accord {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in PACKAGES:
        try:
            print(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            print(f"  {name} is missing: pip install {name}")
    wrong = [] if missing else _look(options)
    if missing or wrong:
        print(f"Missing: {', '.join(missing)}" if missing else f"Not ready: {', '.join(wrong)}", file=sys.stderr)
        return 4
    print("Ready: accord demo")
    return 0


def _look(options: DoctorOptions) -> list[str]:
    """Print what there is; returns which of the models named something has to be done about."""
    from accord.planning import checkup

    for finding in checkup.machine_findings():
        print(f"  {finding}")
    print("What will be slow:")
    for finding in checkup.slow_findings(measure=not options.quick):
        print(f"  {finding}")
    print("Models:")
    names = options.model or list(dict.fromkeys(checkup.cached_models()))
    if not names:
        print(f"  none fetched yet; {checkup.STARTER} (98 MB) comes with the first run")
    wrong = []
    for name in names:
        findings = checkup.model_findings(name)
        print(*(f"  {finding}" for finding in findings), sep="\n")
        if options.model and any(finding.advice for finding in findings):
            wrong.append(name)
    return wrong
