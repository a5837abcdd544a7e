"""SIGINT and SIGTERM at small programs that run a verb: exit code, what is printed, and that nothing stays alive."""

import os
import pty
import signal
import subprocess
import sys
import textwrap

import pytest

from pipeline.signals import descendants

START = """
    import subprocess, sys, time
    from components.errors import exit_code_of
    from components.stopping import check_stop, pause
    from pipeline import signals
    from pipeline.signals import end_process, run_asked, run_interrupted

    def ready():
        child = subprocess.Popen(["sleep", "1000"])
        print(child.pid, flush=True)

    def main(run, work):
        try:
            code = run(work)
        except KeyboardInterrupt as stop:
            code = exit_code_of(stop)
        end_process(code)
"""
ORDERLY = """
    def work():
        ready()
        try:
            while True: pause(60)
        finally:
            print("left in order", flush=True)

    main(run_asked, work)
"""
DEAF = """
    def work():
        ready()
        while True: time.sleep(60)

    signals.GRACE_SECONDS = GRACE
    main(run_asked, work)
"""
BLOCKED = """
    def work():
        ready()
        while True: print("x" * 100_000, flush=True)  # nobody reads the pipe any more

    signals.GRACE_SECONDS = GRACE
    main(run_asked, work)
"""
INTERRUPTED = """
    def work():
        ready()
        time.sleep(1000)

    main(run_interrupted, work)
"""
ENDS_WELL = """
    def work():
        ready()
        while not signals.stop_requested(): time.sleep(0.01)
        return 0

    main(run_asked, work)
"""


@pytest.fixture
def start():
    """start(program, in_background=False): (process, pid of its child) once it works."""
    processes = []

    def run(program, in_background=False):
        ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" if in_background else ""
        text = ignore + textwrap.dedent(START) + textwrap.dedent(program)
        processes.append(subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True))
        return processes[-1], int(processes[-1].stdout.readline())

    yield run
    for process in processes:
        process.kill()
        process.wait()


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state not in ("", "Z")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("program", [ORDERLY, INTERRUPTED])
def test_a_signal_ends_the_process_and_its_children_with_its_own_code(start, program, number, code):
    process, child = start(program)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code and not is_alive(child)
    assert "left in order" in out or program is INTERRUPTED


def test_a_job_in_the_background_whose_shell_made_it_ignore_ctrl_c_is_stopped_by_it_too(start):
    process, _ = start(ORDERLY, in_background=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


@pytest.mark.parametrize("program", [DEAF, BLOCKED])
def test_a_verb_that_does_not_leave_in_time_is_ended(start, program):
    process, child = start(program.replace("= GRACE", "= 0.5"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143 and not is_alive(child)


def test_a_second_signal_ends_the_process_at_once_but_not_one_that_came_with_the_first(start):
    process, child = start(DEAF.replace("= GRACE", "= 3600"))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # as `timeout` and terminals do
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130 and not is_alive(child)


def test_ctrl_c_at_a_terminal_stops_what_runs_there():
    program = textwrap.dedent(START) + textwrap.dedent(ORDERLY)
    pid, terminal = pty.fork()  # the child has a terminal of its own, and is its foreground job
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program])
    while not os.read(terminal, 1000).strip():
        pass
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    os.close(terminal)


def test_work_that_ends_well_all_the_same_counts_as_done(start):
    process, _ = start(ENDS_WELL)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_descendants_are_children_and_their_children():
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    try:
        grandchild = int(shell.stdout.readline())
        assert descendants(shell.pid) == [grandchild]
    finally:
        subprocess.run(["kill", str(grandchild), str(shell.pid)])
        shell.wait()
