"""Numbers in the tables that the verbs print."""

from pipeline.verbs.tables import format_bytes


def test_byte_counts_are_formatted():
    assert [format_bytes(count) for count in (999, 1500, 2.5e6, 3e9, 4e12)] == [
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]
