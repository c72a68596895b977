"""Suites that others wrote, run against MarchProxy: `python -m conformance` writes docs/CONFORMANCE.md."""
