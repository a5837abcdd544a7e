"""s3fs with a time limit on every request: one that stays without an answer fails, and retries.py tries it again."""

import asyncio
from typing import Any

from s3fs import S3FileSystem

REQUEST_SECONDS = 30.0
"""Seconds in which S3 must answer a request, besides those that its body takes."""
SLOWEST_BYTES_PER_SECOND = 1e6
"""Slowest upload that is waited for."""


class BoundedS3FileSystem(S3FileSystem):  # type: ignore[misc]
    """s3fs waits for ever where a server accepts a PUT and stays silent: before the body is sent, no time-out of its
    HTTP client runs. Reads of a body end by that client's own time-out between two pieces."""

    async def _call_s3(self, method: str, *arguments: Any, **named: Any) -> Any:
        body = named.get("Body")
        size = len(body) if isinstance(body, bytes | bytearray | memoryview) else 0
        seconds = REQUEST_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        return await asyncio.wait_for(super()._call_s3(method, *arguments, **named), seconds)
