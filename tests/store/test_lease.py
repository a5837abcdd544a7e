"""Leases: of two writers never both, and a dead one is followed by the next."""

import subprocess
import sys
import threading
import time
import uuid

import pytest

from components.errors import LeaseHeld, LeaseLost
from components.store import lease, objects
from components.store.lease import acquire_lease, keep_alive, read_sign_of_life


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """Where a lease is kept."""
    return str(tmp_path / "lease") if request.param == "local" else f"memory://leases/{uuid.uuid4().hex}"


@pytest.fixture
def short(monkeypatch):
    """Leases grow stale, and are renewed, in tenths of a second."""
    monkeypatch.setattr(lease, "TIME_TO_LIVE", 0.4)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)


def silent(line: str) -> None:
    """Nobody to tell."""


def test_the_message_of_a_held_lease_names_the_holder(folder):
    held = acquire_lease(folder, wait=0, tell=silent)
    with pytest.raises(LeaseHeld) as caught:
        acquire_lease(folder, wait=0, tell=silent)
    assert held.holder in str(caught.value) and held.since in str(caught.value)


def test_a_released_lease_is_taken_at_once(folder):
    acquire_lease(folder, wait=0, tell=silent).release()
    started = time.monotonic()
    second = acquire_lease(folder, wait=0, tell=silent)
    assert second.number == 2 and second.held()
    assert time.monotonic() - started < 1


def test_a_silent_holder_is_followed_and_can_no_longer_write(folder, short):
    orphan = acquire_lease(folder, wait=0, tell=silent)
    told = []
    successor = acquire_lease(folder, wait=10, tell=told.append)
    assert successor.held() and not orphan.held()
    assert orphan.holder in told[0]
    for write in (orphan.renew, orphan.check):
        with pytest.raises(LeaseLost, match="taken over"):
            write()


def test_an_orphan_does_not_give_back_what_its_successor_holds(folder, short):
    orphan = acquire_lease(folder, wait=0, tell=silent)
    successor = acquire_lease(folder, wait=10, tell=silent)
    orphan.release()
    assert read_sign_of_life(folder).beat == "taken" and successor.held()


def test_a_living_holder_is_never_followed(folder, short):
    with keep_alive(acquire_lease(folder, wait=0, tell=silent)) as held:
        with pytest.raises(LeaseHeld):
            acquire_lease(folder, wait=1.5, tell=silent)
        held.check()
    assert acquire_lease(folder, wait=0, tell=silent).number == 2


def test_of_many_at_once_one_gets_the_lease(folder):
    won = []

    def race() -> None:
        try:
            won.append(acquire_lease(folder, wait=0, tell=silent))
        except LeaseHeld:
            return

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_sign_of_life_changes_while_the_holder_lives_and_ends_with_it(folder):
    assert read_sign_of_life(folder) is None
    held = acquire_lease(folder, wait=0, tell=silent)
    first = read_sign_of_life(folder)
    held.renew()
    assert first.holder == held.holder and read_sign_of_life(folder) != first
    held.release()
    assert read_sign_of_life(folder) is None


def test_a_killed_process_is_followed(tmp_path, short):
    code = (
        "import sys, time; from components.store.lease import acquire_lease, keep_alive\n"
        "with keep_alive(acquire_lease(sys.argv[1], wait=0, tell=print)): print('at work', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "at work\n"
    child.kill()
    child.wait()
    assert acquire_lease(str(tmp_path), wait=10, tell=silent).number == 2
    assert len(objects.object_sizes(str(tmp_path))) == 2
