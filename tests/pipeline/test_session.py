"""Steps that run at the same time."""

import threading

from pipeline.dag import groups_of


def test_a_failure_is_said_while_the_steps_beside_it_go_on(finished, monkeypatch):
    session, said = finished[2], threading.Event()
    group = next(steps for steps in groups_of(session.steps) if steps[0].name == "tokenizer")
    lines = []

    def say(line):
        lines.append(line)
        said.set()

    def run_step(step):
        if step.name == "judge":
            raise RuntimeError("no space left")
        assert said.wait(timeout=60)  # ends only after the failure was said
        return step.name

    monkeypatch.setattr(session.progress, "say", say)
    monkeypatch.setattr(session, "run_step", run_step)
    results, error = session.run_group(group)
    assert results == ["tokenizer", "classifier"] and str(error) == "no space left"
    assert lines == ["judge: failed, the steps beside it go on: no space left"]
