"""The record of an unfinished encode job: which shards it has already."""

from components.codes.job_record import JobRecord, RejectedRow, ShardResult, record_shard
from components.codes.writer import write_shard
from components.images.rejects import Reject

ATTEMPT = "000001-test"


def test_a_job_record_gives_only_results_with_intact_files(codes, tmp_path):
    folder = str(tmp_path)
    made = [
        ShardResult(f"part-{n}.parquet", "s", write_shard(folder, ATTEMPT, f"part-{n}.parquet", codes.shard(n, n + 9)))
        for n in range(3)
    ]
    empty = ShardResult("part-9.parquet", "s", None, (RejectedRow(7, -8, Reject("k", "u", "empty", "0 bytes")),))
    for done in (*made, empty):
        record_shard(folder, ATTEMPT, done)
    JobRecord(folder, ATTEMPT).close_wave(0, made[:1])
    (tmp_path / made[2].shard.path).write_bytes(b"cut")
    record = JobRecord(folder, ATTEMPT)
    assert sorted(record.recorded_results(), key=lambda result: result.name) == [*made[:2], empty]
    record.clear()
    assert JobRecord(folder, ATTEMPT).recorded_results() == []


def test_a_recorded_wave_leaves_the_marks_of_the_next_one(codes, tmp_path):
    folder = str(tmp_path)
    made = [
        ShardResult(f"part-{n}.parquet", "s", write_shard(folder, ATTEMPT, f"part-{n}.parquet", codes.shard(n, n + 9)))
        for n in range(2)
    ]
    for done in made:  # the second belongs to the next wave, which is begun before this one ends
        record_shard(folder, ATTEMPT, done)
    JobRecord(folder, ATTEMPT).close_wave(0, made[:1])
    assert sorted(JobRecord(folder, ATTEMPT).recorded_results(), key=lambda result: result.name) == made
