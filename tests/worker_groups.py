"""Which tests run in the same worker process of pytest-xdist: files that share something costly, else each file alone.

pytest-xdist's own `xdist_group` marks do not work with pytest 9.2, which no longer lets plugins change node ids.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "pipeline": [
        "tests/endtoend/test_kills.py",
        "tests/endtoend/test_mlflow_away.py",
        "tests/endtoend/test_pipeline.py",
        "tests/endtoend/test_plain_loop.py",
        "tests/endtoend/test_signals.py",
    ],
    "ray": [
        "tests/cluster/test_step.py",
        "tests/codes/test_step.py",
        "tests/evaluation/test_step.py",
        "tests/generator/test_step.py",
        "tests/images/test_feed.py",
        "tests/images/test_step.py",
        "tests/training/test_leaving.py",
        "tests/training/test_step.py",
    ],
    "encode": ["tests/endtoend/test_encode.py"],
    "services": [  # after "ray": it starts a Ray with other environment variables
        "tests/cluster/test_two_nodes.py",
        "tests/codes/test_step_object_store.py",
        "tests/endtoend/test_cluster.py",
        "tests/infra/test_dagster_instance.py",
        "tests/services/test_services.py",
    ],
    "bad input": ["tests/endtoend/test_bad_input.py"],
    "modes": ["tests/training/test_modes.py"],
}
"""Groups that start first, because they take longest, in this order; all other files follow."""
FIXTURES = {
    "finished_run": "pipeline",
    "local_ray": "ray",
    "s3": "services",
    "postgres": "services",
    "mlflow_server": "services",
    "ray_cluster": "services",
}
"""Session fixtures that cost seconds, each with the one group that uses it, so that one process makes it once."""

_GROUP_OF_FILE = {file: group for group, files in GROUPS.items() for file in files}


def group_of(node_id: str) -> str:
    """Name of the group of a test; its file where it is in no group."""
    file = node_id.split("::")[0]
    return _GROUP_OF_FILE.get(file, file)


def start_order(node_id: str) -> int:
    """Sort key: the position of the test's group in GROUPS."""
    names = list(GROUPS)
    group = group_of(node_id)
    return names.index(group) if group in names else len(names)


def check_groups(items: list[pytest.Item]) -> None:
    """Raise UsageError when a test outside a group uses the group's fixture, which would then be made twice."""
    for item in items:
        for fixture in FIXTURES.keys() & set(getattr(item, "fixturenames", ())):
            if group_of(item.nodeid) != FIXTURES[fixture]:
                raise pytest.UsageError(f"{item.nodeid} uses {fixture}: add its file to GROUPS[{FIXTURES[fixture]!r}]")


class GroupScheduling(LoadScopeScheduling):
    """Hands out whole groups, in the order of the collected tests."""

    def __init__(self, config, log=None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
