"""Measurements: ratios and sums, printed as tables and kept as JSON. Run by `make bench`, never by a test."""
