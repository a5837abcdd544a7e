"""`python -m pipeline`."""

import os
import sys

from components.errors import ExitCode
from pipeline.cli import main

code = main()
if code == ExitCode.STOPPED:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a regular exit waits for the threads of steps that are still running
sys.exit(code)
