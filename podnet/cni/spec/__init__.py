"""The CNI specification, 0.1.0 to 1.1.0, as pure functions over JSON and environment.

A plugin process imports this for every call, so it needs only the standard library, and as little of that as
possible. That is also why its records are named tuples: a frozen dataclass with slots takes ten times as long to
define (0.8 ms against 0.08 ms), and ``dataclasses`` itself as long to import as ``json``.
"""
