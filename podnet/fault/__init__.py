"""Faults by name: what each does to a running lab, which expectations must break, and what the diagnosis must say."""
