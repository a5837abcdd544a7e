"""The cron line and the time zone of a schedule: what is wrong with them, and how they are shown."""

import difflib
import zoneinfo
from datetime import datetime

from components.config import require

CRON_FIELDS = 5
"""Minute, hour, day of the month, month, day of the week: the orchestrator knows no seconds."""


def check_schedule(schedule: str | None, time_zone: str) -> None:
    """Raise ValueError unless the cron line fires some day and the time zone exists."""
    _check_time_zone(time_zone)
    if schedule is None:
        return
    from croniter import croniter
    from croniter.croniter import CroniterError

    example = "'0 3 * * *' for 3:00 every day"
    fields = schedule.split()
    shortcut = len(fields) == 1 and schedule.startswith("@")
    wrong = None
    if not shortcut and len(fields) != CRON_FIELDS:
        wrong = f"{len(fields)} fields"
    else:
        try:
            croniter(schedule, datetime(2000, 1, 1)).get_next()
        except (CroniterError, ValueError, AttributeError, KeyError) as error:
            wrong = str(error) or type(error).__name__
    require(
        wrong is None,
        f"schedule must be a cron line of five fields (minute, hour, day, month, weekday), as {example}, got "
        f"{schedule!r} ({wrong})",
    )


def _check_time_zone(time_zone: str) -> None:
    try:
        zoneinfo.ZoneInfo(time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder, such as America
        known = zoneinfo.available_timezones()
        lower = {name.lower(): name for name in known} | {name.rpartition("/")[2].lower(): name for name in known}
        similar = difflib.get_close_matches(time_zone.lower().replace(" ", "_"), lower, n=1)
        hint = f": did you mean {lower[similar[0]]}?" if similar else ", or UTC"
        raise ValueError(
            f"time_zone must be a name of the IANA database, such as Europe/Paris, got {time_zone!r}{hint}"
        ) from None


def describe_schedule(schedule: str, time_zone: str) -> str:
    """`'0 3 * * *' (America/New_York), next on 2026-12-02 at 03:00 EST, which is 08:00 UTC`."""
    from croniter import croniter

    following = croniter(schedule, datetime.now(zoneinfo.ZoneInfo(time_zone))).get_next(datetime)
    in_utc = following.astimezone(zoneinfo.ZoneInfo("UTC"))
    utc = "" if following.utcoffset() == in_utc.utcoffset() else f", which is {in_utc:%H:%M} UTC"
    return f"'{schedule}' ({time_zone}), next on {following:%Y-%m-%d} at {following:%H:%M %Z}{utc}"
