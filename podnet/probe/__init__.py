"""Verify a lab by packets: what must be reachable, what was sent, what arrived."""
