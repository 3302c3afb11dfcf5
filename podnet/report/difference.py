"""What two saved runs, as ``-o json`` writes them, differ in."""

from __future__ import annotations

from typing import Any

from podnet.errors import UsageError

__all__ = ["differences"]

_Key = tuple[str, str, str, str, int]


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One line for each check that one of the runs lacks, or whose result is another; times are not compared.

    Raises ``UsageError`` for what is no run.
    """
    old, new = _indexed(before), _indexed(after)
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        first, second = old.get(key), new.get(key)
        if first == second:
            continue
        if first is None or second is None:
            lines.append(f"{'+' if first is None else '-'} {_told(key)}: {_outcome(first or second or {})}")
        else:
            lines.append(f"~ {_told(key)}: {_outcome(first)} -> {_outcome(second)}")
    return lines


def _indexed(run: dict[str, Any]) -> dict[_Key, dict[str, Any]]:
    try:
        return {
            (r["from"], r["to"], r["protocol"], r["family"], r["port"] or 0): {
                "expected": r["expected"],
                "observed": r["observed"],
                "passed": r["passed"],
                "source": r["source"],
                "detail": r["detail"],
                "way": _way(r),
            }
            for r in run["results"]
        }
    except (KeyError, TypeError) as error:
        msg = f"not a run of podnet test: save one with 'podnet test -o json=FILE' ({error!r} is missing)"
        raise UsageError(msg) from None


def _way(result: dict[str, Any]) -> list[str] | None:
    """The hosts on the way of the request, where the run looked."""
    if "path" not in result:
        return None
    places: list[str] = []
    for hop in result["path"]["request"]:
        if not places or places[-1] != hop["place"]:
            places.append(hop["place"])
    return places


def _told(key: _Key) -> str:
    source, target, protocol, family, port = key
    return f"{source} -> {target} {protocol}{f'/{port}' if port else ''} {family}"


def _outcome(result: dict[str, Any]) -> str:
    state = "passed" if result["passed"] else "FAILED"
    detail = f" ({result['detail']})" if result["detail"] else ""
    seen = f", seen as {result['source']}" if result["source"] else ""
    way = f", by {' > '.join(result['way'])}" if result["way"] else ""
    return f"{state}: {result['observed']}{detail}{seen}{way}"
