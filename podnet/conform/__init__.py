"""A conformance suite for CNI plugins of any language: executes them as a runtime does, and looks at the kernel.

``requirements`` is the list, ``sections`` the cases, ``suite.judge`` the run, ``report`` the ways to print it.
"""

from __future__ import annotations
