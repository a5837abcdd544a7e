"""Plain progress lines, as a log file or CI sees them."""

import pytest

from components.progress import Progress, format_duration


@pytest.fixture
def clock(monkeypatch):
    """The clock of the progress lines; add to its only element to let time pass."""
    seconds = [0.0]
    monkeypatch.setattr("components.progress.time.monotonic", lambda: seconds[0])
    return seconds


def test_a_line_tells_what_is_done_the_rate_and_the_time_left(clock, capsys):
    progress = Progress()
    progress.update("codes", done=0, total=100, unit="images")
    clock[0] = 10.0
    progress.update("codes", done=25, total=100, unit="images", rate=2.5, note="no rejects")
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["codes", "0%", "0/100", "images,", "starting"]
    assert second.split() == ["codes", "25%", "25/100", "images,", "2", "images/s,", "0:30", "left", "no", "rejects"]


def test_the_time_left_is_that_of_this_run_s_own_speed(clock, capsys):
    progress = Progress()
    progress.update("codes", done=80, total=100, unit="images")  # 80 of an earlier run
    clock[0] = 10.0
    progress.update("codes", done=90, total=100, unit="images")
    assert capsys.readouterr().out.splitlines()[-1].endswith("0:10 left")


def test_a_job_has_few_lines_and_its_last_one_once(clock, capsys):
    progress = Progress()
    for done in range(5):
        clock[0] = float(done)
        progress.update("codes", done=done, total=4, unit="images")
    progress.finish("codes")
    assert len(capsys.readouterr().out.splitlines()) == 2  # the first and the last
    progress.update("codes", done=4, total=4, unit="images")
    progress.finish("codes")
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (95, "1:35"), (3661, "1:01:01"), (-3, "0:00")])
def test_durations(seconds, text):
    assert format_duration(seconds) == text
