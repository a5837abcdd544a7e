"""`make chaos`: faults put into small real pipelines at random points, each run again until done, then checked.

    python -m tests.chaos [--seed N] [--faults K] [--minutes M] [--only PHASE[/FAULT]] [--write]

Trial number i has the seed N + i. It is repeated alone with `--seed <its seed> --faults 1` and the same `--only`, which
limits what is drawn from.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.encode import EncodeScene
from tests.chaos.encode_s3 import EncodeS3Scene
from tests.chaos.ray_processes import RayScene
from tests.chaos.report import describe_outcome, print_table, write_results
from tests.chaos.run import RunScene
from tests.chaos.servers import ServersScene
from tests.chaos.trials import NotTried, Outcome, Scene, Trial, UndisturbedRunFailed, draw_trial

MEMORY_DISK = "/dev/shm"
"""Where trials work if it is there: on a real disk most of their time would be its."""
SCENES = (EncodeScene, EncodeS3Scene, RunScene, ServersScene, RayScene)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; returns 1 when one of them did not recover."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the first trial")
    parser.add_argument("--faults", type=int, default=200, help="number of trials")
    parser.add_argument("--minutes", type=float, default=20.0, help="no trial begins later than this")
    parser.add_argument("--only", default="", help="phase, phase/fault, or the beginning of one")
    parser.add_argument("--folder", type=Path, help="where to work; what failed stays there")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/chaos.json")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    in_memory = MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-", dir=in_memory))
    outcomes = play_trials(folder, options.seed, options.faults, options.minutes * 60, options.only)
    print_table(outcomes)
    if options.write:
        write_results(outcomes, options.only)
    failed = [outcome for outcome in outcomes if outcome.problems]
    if failed:
        print(f"{len(failed)} of {len(outcomes)} trials failed; what they left lies in {folder}")
    elif not options.folder:
        shutil.rmtree(folder)
    return 1 if failed else 0


def play_trials(folder: Path, seed: int, count: int, seconds: float, only: str) -> list[Outcome]:
    """`count` trials from `seed` on, as many as begin within `seconds`; prints a line for each."""
    with opened_scenes(folder, only) as scenes:
        by_phase = {phase: scene for scene in scenes for phase in scene.phases}
        outcomes = []
        end = time.monotonic() + seconds
        for number in range(seed, seed + count):
            if time.monotonic() > end:
                print(f"the time is over after {len(outcomes)} trials")
                break
            trial = draw_trial(number, scenes, only)
            outcome = play_one(by_phase[trial.phase], trial)
            outcomes.append(outcome)
            print(describe_outcome(outcome), flush=True)
    return outcomes


def play_one(scene: Scene, trial: Trial) -> Outcome:
    """One trial; an error of the checks is a problem too."""
    try:
        return scene.play(trial)
    except NotTried as reason:
        return Outcome(trial=trial, problems=[], exit_codes=[], seconds_lost=0.0, not_tried=str(reason))
    except UndisturbedRunFailed:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        return Outcome(trial=trial, problems=[problem], exit_codes=[], seconds_lost=0.0)


@contextlib.contextmanager
def opened_scenes(folder: Path, only: str) -> Iterator[list[Scene]]:
    """The scenes that `only` does not leave out; servers that they started end with the body."""
    with contextlib.ExitStack() as until_end:
        scenes: list[Scene] = []
        for scene_class in SCENES:
            kinds = [f"{phase}/{fault}" for phase, faults in scene_class.phases.items() for fault in faults]
            if any(kind.startswith(only) for kind in kinds):
                scene = scene_class(folder / scene_class.name.replace(" ", "-"))
                until_end.callback(scene.close)
                scenes.append(scene)
        yield scenes


if __name__ == "__main__":
    sys.exit(main())
