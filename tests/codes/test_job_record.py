"""The record of an unfinished encode job: which shards it has already."""

from components.codes.job_record import JobRecord, ShardResult, record_shard
from components.codes.writer import write_shard
from components.images.rejects import Reject

ATTEMPT = "000001-test"


def test_a_job_record_finds_only_results_with_intact_files(codes, tmp_path):
    folder = str(tmp_path)
    made = [
        ShardResult(f"part-{n}.parquet", write_shard(folder, ATTEMPT, f"part-{n}.parquet", codes.shard(n, n + 9)))
        for n in range(3)
    ]
    empty = ShardResult("part-9.parquet", None, (Reject("k", "u", "empty", "0 bytes"),))
    JobRecord(folder, ATTEMPT).close_wave(0, made[:1])
    for done in (made[1], made[2], empty):
        record_shard(folder, ATTEMPT, done)
    (tmp_path / made[2].shard.path).write_bytes(b"cut")
    record = JobRecord(folder, ATTEMPT)
    assert [record.find(done.name) for done in (*made[:2], empty)] == [*made[:2], empty]
    assert record.find("part-2.parquet") is None and record.find("part-7.parquet") is None
    record.clear()
    assert JobRecord(folder, ATTEMPT).find("part-0.parquet") is None
