"""Peak memory of a command in a process of its own, in MiB."""

import sys

from support.cli import launch

CODE = """
import re, sys
from mtljax.main import main
status = main(sys.argv[1:])
# ru_maxrss would include the memory of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print("peak", int(peak) / 1024, file=sys.stderr)
sys.exit(status)
"""


def peak_memory(*arguments, cwd=None):
    """Runs the command line with these arguments and returns its peak resident memory."""
    process = launch([sys.executable, "-c", CODE, *map(str, arguments)], cwd=cwd)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return float(errors.split("peak ")[-1])
