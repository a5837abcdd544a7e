"""The progress line of a draw."""

from components.generator.sampling_progress import show_sampling
from components.progress import Progress


def test_the_shown_progress_ends_with_the_last_image(capsys):
    report = show_sampling(Progress())
    for drawn in (0, 2, 5):
        report(drawn, 5)
    lines = capsys.readouterr().out.splitlines()
    assert "0/5 images" in lines[0] and "5/5 images" in lines[-1]
