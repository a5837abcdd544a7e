"""Listings page by page: every object once, in bounded requests, over the protocol of S3."""

import itertools
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from components.errors import StorageError
from components.store import listing, objects

KEYS_PER_REPLY = 10


class Bucket(BaseHTTPRequestHandler):
    """ListObjectsV2 of one bucket."""

    keys: list[str]
    requests: list[dict[str, str]]
    broken = False

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.requests.append(asked)
        if self.broken:
            return self._reply(403, "<Error><Code>AccessDenied</Code></Error>")
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter")
        after = asked.get("continuation-token") or asked.get("start-after") or ""
        entries: dict[str, str] = {}
        for key in self.keys:
            if key.startswith(prefix):
                head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                name = prefix + head + delimiter if found else key
                if name > after:
                    entries[name] = "CommonPrefixes" if found else "Contents"
        shown = list(itertools.islice(entries.items(), KEYS_PER_REPLY))
        more = len(entries) > len(shown)
        body = "".join(map(_entry, shown))
        token = f"<NextContinuationToken>{escape(shown[-1][0])}</NextContinuationToken>" if more else ""
        self._reply(
            200, f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{body}</ListBucketResult>"
        )

    def _reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_) -> None:
        pass


def _entry(entry: tuple[str, str]) -> str:
    name, kind = entry
    if kind == "CommonPrefixes":
        return f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
    described = f"<Size>{len(name)}</Size><ETag>&quot;e{len(name)}&quot;</ETag>"
    return f"<Contents><Key>{escape(name)}</Key>{described}</Contents>"


@pytest.fixture
def bucket(monkeypatch):
    """A bucket on this machine, called 'bucket'."""
    served = type("Served", (Bucket,), {"keys": [], "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    yield served
    server.shutdown()
    server.server_close()


def listed(uri, without=()):
    rows = [row for page in objects.iter_objects(uri, without) for row in zip(*page, strict=True)]
    return sorted(rows)


@pytest.mark.parametrize("depth", ["", "deep/er/"])
def test_ranges_of_a_bucket_give_every_object_once(bucket, depth):
    names = sorted([*(f"{folder:02}/{number}.png" for folder in range(40) for number in range(5)), "a&b.png", "00/x/"])
    bucket.keys = sorted([*(f"set/{depth}{name}" for name in names), "other/1.png", "set-2/1.png"])
    keys = [f"{depth}{name}" for name in names if name != "00/x/"]
    assert listed("s3://bucket/set") == [(key, len(f"set/{key}"), f"e{len(f'set/{key}')}") for key in keys]
    starts = {asked["start-after"] for asked in bucket.requests if "start-after" in asked}
    assert len(starts) == listing.PARALLEL_RANGES - 1 and all(
        asked["prefix"].startswith("set/") for asked in bucket.requests
    )


def test_outputs_in_a_bucket_are_left_out(bucket):
    bucket.keys = ["a/1.png", "runs/artifacts/2.png", "runs/3.png", "runs2/4.png"]
    assert [path for path, _, _ in listed("s3://bucket", ["s3://bucket/runs/artifacts", "s3://other/a"])] == [
        "a/1.png",
        "runs/3.png",
        "runs2/4.png",
    ]


def test_an_error_of_one_range_is_that_of_the_listing(bucket, monkeypatch):
    bucket.keys = [f"{folder}/1.png" for folder in range(8)]
    pages = objects.iter_objects("s3://bucket")
    next(pages)
    bucket.broken = True
    with pytest.raises(StorageError, match="cannot access s3://bucket"):
        listed("s3://bucket")


def test_pages_of_a_folder_are_those_of_the_whole_listing(root, monkeypatch):
    monkeypatch.setattr(listing, "OBJECTS_PER_PAGE", 3)
    for number in range(10):
        objects.write_bytes(f"{root}/{number % 3}/{number}.bin", b"x" * number)
    pages = list(objects.iter_objects(root))
    assert len(pages) > 3 and max(len(page.paths) for page in pages) <= 4
    expected = [(each.path, each.size, each.etag) for each in objects.list_objects(root)]
    assert sorted(row for page in pages for row in zip(*page, strict=True)) == expected and len(expected) == 10
    assert list(objects.iter_objects(f"{root}/nothing"))[:1] in ([], [([], [], [])])
