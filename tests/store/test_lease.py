"""Leases: at most one of two writers, and a dead one is succeeded by the next."""

import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace

import pytest

from components.errors import LeaseHeld, LeaseLost
from components.store import lease, objects, processes
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


def ignore(line: str) -> None:
    """Report nothing."""


def test_the_message_of_a_held_lease_names_the_holder(folder):
    held = acquire_lease(folder, wait_seconds=0, report=ignore)
    with pytest.raises(LeaseHeld) as caught:
        acquire_lease(folder, wait_seconds=0, report=ignore)
    assert held.holder in str(caught.value) and held.since in str(caught.value)


def test_a_released_lease_is_taken_at_once(folder):
    acquire_lease(folder, wait_seconds=0, report=ignore).release()
    started = time.monotonic()
    second = acquire_lease(folder, wait_seconds=0, report=ignore)
    assert second.number == 2 and second.held()
    assert time.monotonic() - started < 1


def test_a_silent_holder_is_succeeded_and_can_no_longer_write(folder, short):
    orphan = acquire_lease(folder, wait_seconds=0, report=ignore)
    lines = []
    successor = acquire_lease(folder, wait_seconds=10, report=lines.append)
    assert successor.held() and not orphan.held()
    assert orphan.holder in lines[0]
    for write in (orphan.renew, orphan.check):
        with pytest.raises(LeaseLost, match="taken over by a newer run"):
            write()


def test_an_orphan_does_not_release_the_lease_of_its_successor(folder, short):
    orphan = acquire_lease(folder, wait_seconds=0, report=ignore)
    successor = acquire_lease(folder, wait_seconds=10, report=ignore)
    orphan.release()
    assert read_sign_of_life(folder).beat == "taken" and successor.held()


def test_a_living_holder_is_never_succeeded(folder, short):
    with keep_alive(acquire_lease(folder, wait_seconds=0, report=ignore)) as held:
        with pytest.raises(LeaseHeld):
            acquire_lease(folder, wait_seconds=1.5, report=ignore)
        held.check()
    assert acquire_lease(folder, wait_seconds=0, report=ignore).number == 2


def test_of_many_at_once_one_gets_the_lease(folder):
    won = []

    def race() -> None:
        try:
            won.append(acquire_lease(folder, wait_seconds=0, report=ignore))
        except LeaseHeld:
            return

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_sign_of_life_changes_with_each_renewal_and_ends_with_the_lease(folder):
    assert read_sign_of_life(folder) is None
    held = acquire_lease(folder, wait_seconds=0, report=ignore)
    first = read_sign_of_life(folder)
    held.renew()
    assert first.holder == held.holder and read_sign_of_life(folder) != first
    held.release()
    assert read_sign_of_life(folder) is None


def test_a_killed_process_is_succeeded(tmp_path, short):
    code = (
        "import sys, time; from components.store.lease import acquire_lease, keep_alive\n"
        "lease = acquire_lease(sys.argv[1], wait_seconds=0, report=print)\n"
        "with keep_alive(lease): print('at work', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "at work\n"
    child.kill()
    child.wait()
    assert acquire_lease(str(tmp_path), wait_seconds=10, report=ignore).number == 2
    assert len(objects.object_sizes(str(tmp_path))) == 2


def test_a_lease_whose_driver_ended_is_taken_at_once(tmp_path):
    code = (
        "import sys; from components.store.lease import acquire_lease\n"
        "acquire_lease(sys.argv[1], wait_seconds=0, report=print, ends_with_driver=True)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert acquire_lease(str(tmp_path), wait_seconds=0, report=ignore).number == 2


def test_a_lease_that_was_given_back_is_not_held(folder):
    held = acquire_lease(folder, wait_seconds=0, report=ignore)
    copy_in_a_worker = replace(held)
    held.release()
    lease._lost.clear()  # what another process does not know
    assert not copy_in_a_worker.held()
    with pytest.raises(LeaseLost, match="given back"):
        copy_in_a_worker.renew()
    assert read_sign_of_life(folder) is None


def test_a_lost_lease_is_reported_once_and_refused_without_asking_the_store(folder, short, monkeypatch):
    lost = threading.Event()
    with keep_alive(acquire_lease(folder, wait_seconds=0, report=ignore), lost.set) as orphan:
        lease._create(folder, orphan.number + 1, ends_with_driver=False)
        assert lost.wait(10)
        monkeypatch.setattr(objects, "object_sizes", lambda folder: {})  # a store that forgot everything
        with pytest.raises(LeaseLost):
            orphan.check()


def test_a_created_lease_whose_answer_was_lost_is_ones_own(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    create, tries = MemoryFileSystem.pipe_file, []

    def answer_lost(self, path, value, mode="overwrite", **more):
        tries.append(path)
        if mode == "create" and len(tries) > 1:
            raise FileExistsError(path)
        create(self, path, value, mode=mode, **more)
        if mode == "create":
            raise ConnectionResetError("the answer was lost")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", answer_lost)
    held = acquire_lease(f"memory://leases/{uuid.uuid4().hex}", wait_seconds=0, report=ignore)
    assert held.number == 1 and held.held() and len(tries) == 2


def test_a_process_of_another_namespace_with_the_same_host_name_is_not_taken_for_dead(tmp_path, monkeypatch):
    """Two containers may share a host name; each counts its processes from 1."""
    held = acquire_lease(str(tmp_path), wait_seconds=0, report=ignore, ends_with_driver=True)
    boot, namespace, pid, started = held.process.split(" ")
    gone = f"{boot} {namespace} {pid} {int(started) + 1}"
    assert not processes.has_ended(held.process) and processes.has_ended(gone)
    monkeypatch.setattr(processes, "_process_namespace", lambda: f"{boot} pid:[1]")
    assert not processes.has_ended(gone)


def test_a_pause_of_the_watcher_is_not_the_holders_silence(folder, monkeypatch):
    acquire_lease(folder, wait_seconds=0, report=ignore)
    now = [0.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])
    watch = lease._Watch(folder)
    watch.look()
    now[0] = 3600.0  # the watcher was stopped, and perhaps the holder with it
    watch.look()
    assert watch.silence <= lease.LONGEST_LOOK_SECONDS and not watch.is_free()


def test_old_numbers_are_removed(folder):
    for _ in range(lease.LEASES_KEPT + 3):
        acquire_lease(folder, wait_seconds=0, report=ignore).release()
    assert len(objects.object_sizes(folder)) == lease.LEASES_KEPT
    assert acquire_lease(folder, wait_seconds=0, report=ignore).number == lease.LEASES_KEPT + 4
