"""Exit codes of the command line, from the error tree: what --help prints and the documents list."""

from components.errors import ExitCode


def exit_code_table() -> str:
    """One line per code: the code and what it means."""
    return "\n".join(["exit codes:", *(f"  {code.value:<4} {code.meaning}" for code in ExitCode)]) + "\n"
