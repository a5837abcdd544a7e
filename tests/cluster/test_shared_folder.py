"""A folder that a node does not see is refused, with that node's name and the cure."""

import pytest

from components.cluster.shared_folder import judge_probe
from components.errors import UsageError


def test_a_node_without_the_drivers_file_is_named_with_the_cure():
    answers = {"head 1": b"token", "worker 2": b"", "worker 3": b"another folder's"}
    with pytest.raises(UsageError, match=r"all 3 nodes .* /data is not seen by worker 2, worker 3: .* s3://"):
        judge_probe(answers, b"token", "/data", "artifact_root")


def test_nodes_that_see_it_or_do_not_answer_are_no_reason_to_refuse():
    judge_probe({"head 1": b"token", "worker 2": None}, b"token", "/data", "artifact_root")
