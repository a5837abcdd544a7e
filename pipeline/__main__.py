"""`python -m pipeline`."""

import sys

from components.errors import ExitCode
from pipeline.cli import main
from pipeline.signals import end_process

code = main()
if code in (ExitCode.STOPPED, ExitCode.TERMINATED):
    end_process(code)  # a regular exit waits for the threads of steps that are still running
sys.exit(code)
