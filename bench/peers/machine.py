# SPDX-License-Identifier: MIT
"""What was measured on, and with what."""
import platform


def cpu():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def versions(attend, *names):
    from importlib.metadata import version

    return {"attend": attend.version(), **{n: version(n) for n in names}}
