"""The requirements, one module for each part of the specification, in the order of the report."""

from __future__ import annotations
