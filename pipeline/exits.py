"""Exit codes of the command line as text, for --help; the codes are in components/errors.py."""

from components.errors import ExitCode


def exit_code_table() -> str:
    """One line per code: the code and what it means."""
    return "\n".join(["exit codes:", *(f"  {code.value:<4} {code.meaning}" for code in ExitCode)]) + "\n"
