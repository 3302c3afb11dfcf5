"""What became of a flow's probes: the numbers, loss windows, order and duplicates, for any sequence of events."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podnet.errors import UsageError
from podnet.probe.watch.account import Account, Change
from podnet.probe.watch.flow import Marks
from podnet.probe.watch.histogram import Histogram

MS = 1_000_000
TIMEOUT = 100 * MS


class Story:
    """A flow with a probe every 10 ms, told probe by probe; an answer takes 1 ms, half of it to get there."""

    def __init__(self) -> None:
        self.account = Account(TIMEOUT, 256)
        self.changes: list[Change] = []

    def sent(self, count: int, start: int = 0) -> Story:
        for at in range(start, start + count):
            assert self.account.send(self.at(at)) == at
        return self

    def at(self, number: int) -> int:
        return (1000 + 10 * number) * MS

    def arrived(self, *numbers: int) -> Story:
        for number in numbers:
            self.account.arrive(number, self.at(number) + MS // 2)
        return self

    def answered(self, numbers: Iterable[int], after: float = 1) -> Story:
        for number in numbers:
            self.account.arrive(number, self.at(number) + MS // 2) if not after > 100 else None
            self.account.answer(number, self.at(number) + round(after * MS))
        return self

    def until(self, milliseconds: float) -> Story:
        self.changes += self.account.advance(1000 * MS + round(milliseconds * MS))
        return self

    def ended(self) -> Story:
        return self.until(1e6)


def test_all_that_is_answered_in_time_is_received() -> None:
    story = Story().sent(20).answered(range(20)).ended()
    counts = story.account.counts
    assert (counts.sent, counts.received, counts.lost, counts.arrived) == (20, 20, 0, 20)
    assert (counts.windows, story.changes) == (0, [])
    assert story.account.times.percentiles((0.5, 1.0)) == (MS, MS)


def test_a_loss_window_lies_between_the_answers_around_it() -> None:
    story = Story().sent(10).answered([0, 1, 2, 7, 8, 9])
    assert story.until(129).changes == []  # the first of the lost, sent at 30 ms, has until 130
    assert story.account.in_flight == 4
    story.until(131)
    [opened] = story.changes
    assert (opened.opened, opened.window.first, opened.window.packets) == (True, 3, 1)
    assert story.account.window is not None
    assert story.account.window.milliseconds(1131 * MS) == 131 - 21
    story.ended()
    closed = story.changes[1]
    assert (len(story.changes), closed.opened, closed.window.packets) == (2, False, 4)
    assert closed.window.milliseconds() == 50  # from 21 ms, when 2 was answered, to 71
    assert (closed.window.direction, closed.window.request_lost) == ("request", 4)
    assert opened.window.packets == 1  # what was told stays what it was
    assert story.account.longest_ms == 50
    assert story.account.window is None


def test_windows_are_apart_where_one_packet_came_between() -> None:
    story = Story().sent(7).answered([0, 2, 4, 6]).ended()
    assert [change.opened for change in story.changes] == [True, False] * 3
    assert [change.window.packets for change in story.changes if not change.opened] == [1, 1, 1]
    assert story.account.counts.windows == 3


def test_a_flow_that_never_worked_has_one_window_from_its_first_probe() -> None:
    story = Story().sent(5).ended()
    [change] = story.changes
    assert (change.window.since, change.window.first) == (story.at(0), 0)
    assert story.account.window is not None
    assert story.account.window.packets == 5


def test_a_lost_reply_is_told_from_a_lost_request_and_from_what_never_left() -> None:
    story = Story().sent(6).answered([0, 5]).arrived(2, 3)
    story.account.refuse(4, "never left: Network is unreachable")
    story.ended()
    window = story.changes[1].window
    assert (window.request_lost, window.reply_lost, window.unsent, window.direction) == (1, 2, 1, "both")
    assert window.reason == "never left: Network is unreachable"
    counts = story.account.counts
    assert (counts.lost, counts.request_lost, counts.reply_lost, counts.unsent) == (4, 1, 2, 1)
    only_back = Story().sent(3).answered([0, 2]).arrived(1).ended()
    assert only_back.changes[1].window.direction == "reply"


def test_what_another_host_answers_is_lost() -> None:
    story = Story().sent(1)
    story.account.answer(0, story.at(0) + MS)
    assert story.account.in_flight == 1  # the arrival may be read yet
    story.ended()
    counts = story.account.counts
    assert (counts.lost, counts.elsewhere, counts.received) == (1, 1, 0)
    seen_later = Story().sent(1)
    seen_later.account.answer(0, seen_later.at(0) + MS)
    seen_later.arrived(0)
    assert seen_later.account.counts.received == 1


@pytest.mark.parametrize("first", ["the silence", "the answer"])
def test_a_late_answer_is_late_and_its_probe_stays_lost_once(first: str) -> None:
    story = Story().sent(1).arrived(0)
    if first == "the silence":
        story.until(101)
        assert story.account.counts.lost == 1
    story.account.answer(0, story.at(0) + 150 * MS)
    story.ended()
    counts = story.account.counts
    assert (counts.sent, counts.received, counts.lost, counts.late, counts.reply_lost) == (1, 0, 1, 1, 1)
    assert story.account.times.count == 0


def test_duplicates_are_counted_apart_and_are_no_reordering() -> None:
    story = Story().sent(3).answered([0, 1, 2])
    for number in (1, 0, 2):
        story.account.answer(number, story.at(3))
    story.account.arrive(1, story.at(3))
    counts = story.ended().account.counts
    assert (counts.received, counts.duplicates, counts.request_duplicates) == (3, 3, 1)
    assert (counts.reordered, counts.request_reordered) == (0, 0)


def test_reordering_is_that_of_rfc_4737() -> None:
    # Packets 1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11: those that come after a larger number are reordered, 4, 5 and 6.
    story = Story().sent(12).answered([1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11])
    assert (story.account.counts.reordered, story.account.counts.request_reordered) == (3, 3)
    # A late one moves nothing but itself.
    early = Story().sent(4).answered([3, 0, 1, 2])
    assert early.account.counts.reordered == 3


def test_the_time_that_podnets_own_listener_took_is_no_time_on_the_way() -> None:
    account = Account(TIMEOUT, 256)
    account.send(1000 * MS)
    account.arrive(0, 1001 * MS)
    account.echo(0, 1005 * MS)
    account.answer(0, 1006 * MS)
    assert account.times.highest == 2 * MS


def test_memory_is_the_same_however_long_it_runs() -> None:
    account = Account(TIMEOUT, 256)
    for number in range(20_000):
        at = (1000 + number) * MS
        account.send(at)
        account.arrive(number, at + 1)
        account.answer(number, at + 1000 + 977 * number % (50 * MS))
        account.advance(at + MS)
    assert len(account._sent) == len(account._state) == 256
    assert len(account.times) <= 2240
    assert account.counts.received == 20_000


def test_what_nobody_settles_for_long_is_lost_when_its_place_is_needed() -> None:
    story = Story().sent(300)
    counts = story.account.counts
    assert (counts.lost, story.account.in_flight) == (44, 256)
    assert story.account.locate(0, 0xFFFF) == -1
    assert [change.opened for change in story.until(0).changes] == [True]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "arrive", "answer", "answer", "refuse", "echo", "advance"]),
        st.integers(0, 300),
        st.integers(1, 40),
    ),
    max_size=400,
)


@given(EVENTS)
def test_any_events_keep_the_sums(events: list[tuple[str, int, int]]) -> None:
    account, now, sent = Account(TIMEOUT, 64), 10**9, 0
    opened = closed = windowed = 0

    def count(changes: list[Change]) -> None:
        nonlocal opened, closed, windowed
        for change in changes:
            opened, closed = opened + change.opened, closed + (not change.opened)
            assert opened - closed in (0, 1)  # they alternate
            if not change.opened:
                assert change.window.milliseconds() >= 0
                windowed += change.window.packets

    for what, back, step in events:
        now += step * MS
        number = account.locate((sent - 1 - back) & 0xFFFF, 0xFFFF)
        if what == "send":
            account.send(now)
            sent += 1
        elif what == "advance":
            count(account.advance(now))
        elif number >= 0:
            assert number == sent - 1 - back
            if what == "refuse":
                account.refuse(number, "no")
            else:
                getattr(account, what)(number, now)
        counts = account.counts
        assert counts.sent == sent == counts.received + counts.lost + account.in_flight
        assert counts.lost == counts.unsent + counts.request_lost + counts.reply_lost + counts.elsewhere
        assert 0 <= account.in_flight <= 64
        assert 0 <= counts.late <= counts.lost
        assert account.times.count == counts.received
        assert counts.arrived <= sent
    count(account.advance(now + 2 * TIMEOUT))
    counts = account.counts
    assert account.in_flight == 0
    assert opened == counts.windows
    assert windowed + (account.window.packets if account.window else 0) == counts.lost


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentiles_are_exact_to_a_64th(times: list[int], share: float) -> None:
    histogram = Histogram()
    for each in times:
        histogram.add(each)
    exact = sorted(times)[max(1, -int(-share * len(times) // 1)) - 1]
    [found] = histogram.percentiles((share,))
    assert exact <= found <= max(exact + exact // 64 + 1, exact)
    assert histogram.percentiles((1.0,)) == (max(times),)
    assert sum(histogram.fixed) == histogram.count == len(times)
    assert histogram.total == sum(times)


def test_without_times_there_are_no_percentiles() -> None:
    assert Histogram().percentiles((0.5, 0.99)) == (0, 0)


@given(st.integers(1, 2000), st.integers(0, 10**6), st.data())
def test_a_mark_gives_back_flow_and_number(flows: int, number: int, data: st.DataObject) -> None:
    marks = Marks(flows, 10, 1.0)
    flow = data.draw(st.integers(0, flows - 1))
    mark = marks.mark(flow, number)
    assert 0 <= mark < (1 << 24) - 1  # acknowledged plus one, it must not carry
    assert marks.flow(mark) == flow
    assert mark & marks.mask == number & marks.mask


def test_more_flows_than_marks_tell_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="watch fewer"):
        Marks(5000, 1000, 10)
