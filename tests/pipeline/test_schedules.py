"""Schedules: cron lines and time zones are checked with a cure, and shown with the zone."""

import dataclasses
import re
import zoneinfo
from datetime import datetime

import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from pipeline.config import Orchestration
from pipeline.definitions import definitions_of
from pipeline.schedules import check_schedule, describe_schedule


@pytest.mark.parametrize("schedule", ["0 3 * * *", "*/15 * * * mon-fri", "@daily", "0 0 29 2 *", None])
def test_a_cron_line_that_fires_is_accepted(schedule):
    check_schedule(schedule, "UTC")


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("0 0 3 * * *", "6 fields"),
        ("every day", "2 fields"),
        ("61 3 * * *", r"\[61 3 \* \* \*\] is not acceptable"),
        ("0 0 30 2 *", "failed to find next date"),
        ("", "0 fields"),
        ("@nightly", "@nightly"),
        ("0 25 * * *", "not acceptable"),
    ],
)
def test_a_wrong_cron_line_is_refused_with_the_form(schedule, reason):
    with pytest.raises(ValueError, match=rf"schedule must be a cron line of five fields .* got '.*{reason}"):
        check_schedule(schedule, "UTC")


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("America/New York", "did you mean America/New_York"),
        ("new york", "did you mean America/New_York"),
        ("europe/paris", "did you mean Europe/Paris"),
        ("America", "got 'America'"),
        ("Mars/Olympus", "or UTC|did you mean"),
        ("", "got ''"),
        ("../../etc/passwd", ""),
        ("/etc/localtime", ""),
        ("UTC+2", ""),
    ],
)
def test_a_time_zone_that_does_not_exist_is_refused_with_a_similar_one(zone, hint):
    with pytest.raises(ValueError, match=rf"time_zone must be a name of the IANA database.*{hint}"):
        check_schedule("0 3 * * *", zone)


def test_a_schedule_is_described_with_its_zone_and_the_time_in_utc():
    text = describe_schedule("0 3 * * *", "Asia/Kolkata")  # UTC+5:30 all year
    assert re.fullmatch(r"'0 3 \* \* \*' \(Asia/Kolkata\), next on 20..-..-.. at 03:00 IST, which is 21:30 UTC", text)
    assert describe_schedule("0 3 * * *", "UTC").endswith("at 03:00 UTC")
    assert Orchestration().describe_schedule() == "none: runs are started by hand"
    assert "(America/New_York)" in Orchestration(schedule="@daily", time_zone="America/New_York").describe_schedule()


@pytest.mark.parametrize(
    ("line", "day", "expected"),
    [("30 2 * * *", "2026-03-07", "03:00-0400"), ("30 1 * * *", "2026-10-31", "01:30-0500")],
)
def test_the_orchestrator_reads_the_line_in_that_zone_also_where_clocks_change(config, line, day, expected):
    """In New York 2:30 does not exist on 2026-03-08, and 1:30 comes twice on 2026-11-01: the second time counts."""
    nightly = Orchestration(schedule=line, time_zone="America/New_York")
    definitions = definitions_of(dataclasses.replace(config, orchestration=nightly))
    schedule = definitions.resolve_schedule_def("scheduled")
    assert schedule.execution_timezone == "America/New_York"
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=zoneinfo.ZoneInfo("America/New_York"))
    first = next(
        schedule_execution_time_iterator(noon.timestamp(), schedule.cron_schedule, schedule.execution_timezone)
    )
    assert f"{first:%H:%M%z}" == expected
