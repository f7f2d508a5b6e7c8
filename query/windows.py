"""Time windows as people and agents write them: one grammar for every tool and every command.

| you write | you get |
|---|---|
| `15m`, `90s`, `1.5h`, `1h30m`, `7d`, `2w`, `30 minutes` | that long, until now |
| `last hour`, `last 30 minutes`, `past 2 days`, `last week` | the same; a day is 24 hours |
| `today`, `this week`, `monday`, `sunday` | from then until now; a weekday is the latest that has begun |
| `yesterday`, `2026-11-22`, `2026-11` | the whole calendar day or month |
| `9-17`, `09:00-12:00`, `9am-5pm` | between two clock times of today |
| `yesterday 9-17`, `sunday 22:00-02:00`, `2026-11-22 09:00..17:00` | that on another day, over midnight too |
| `since 14:30`, `since monday`, `since 2026-11-20` | from there until now; a clock time is the latest one |
| `A..B`, `A/B`, `A to B`, `A..` | from A to B; without B until now |
| `all`, `everything` | everything since 1970 |
| **A or B** | **the time it names** |
| `2026-11-22T14:00`, `2026-11-22 14:00:05.5`, `2026-11-22T14:00Z`, `2026-11-22 14:00+01:00` | ISO 8601 |
| `today 09:00`, `yesterday 14:00`, `sunday 5pm` | that clock time; `24:00` is the midnight after that day |
| `14:30`, `9`, `9:30pm` | today's; as B after a day it is on that day, or the next if it would precede A |
| `yesterday`, `friday`, `2026-11-22`, `2026-11`, `this week` | as A its beginning, as B its end |
| `2h`, `-2h`, `now-2h`, `2 hours ago`, `now` | that long ago |
| `1763900000`, `1763900000123` | seconds or milliseconds since 1970, in 10 or 13 digits |

Case and extra blanks do not matter, but `1M` is refused: a minute, or a month? Clock times are those of the
asked time zone. One that the spring change skips moves forward by the gap; of one that autumn brings twice, a
window begins at the first and ends at the second. What lies after now is cut off, and a window that has not
begun is refused. Every refusal says what to write instead, and that has been tried.
"""

import os
import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from query.errors import WindowError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)
_REACH = 36525 * _DAY  # 100 years: what reaches further is a typing error
_ASKED_CHARACTERS_MAX = 200  # three times the longest sensible window, so that no number in it is without bounds


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open [start, end).

    Compare and subtract the edges in UTC (`start_us`, `seconds`): Python compares two datetimes of one zone
    by their clock faces, which is wrong in the hour that autumn brings twice.
    """

    start: datetime
    end: datetime
    time_zone: str
    asked: str

    @property
    def start_us(self) -> int:
        return (self.start - _EPOCH) // timedelta(microseconds=1)

    @property
    def end_us(self) -> int:
        return (self.end - _EPOCH) // timedelta(microseconds=1)

    @property
    def seconds(self) -> float:
        return (self.end_us - self.start_us) / 1_000_000


def resolve_window(asked: str, *, now: datetime, time_zone: str) -> Window:
    """Read `asked` by the grammar above, or raise a `WindowError` that says what to write instead."""
    return _resolve(_Question(asked, now.astimezone(UTC), zone_info(time_zone)))


def host_time_zone(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """Give the IANA name of this machine's time zone: `TZ`, /etc/timezone, /etc/localtime, else UTC."""
    names = [environ.get("TZ", "").removeprefix(":")]
    with suppress(OSError):
        names.append((root / "etc/timezone").read_text(errors="replace").strip())
    with suppress(OSError):  # absent, or a copy of the zone's data, which does not say its name
        names.append((root / "etc/localtime").readlink().as_posix().partition("zoneinfo/")[2])
    for name in names:
        with suppress(WindowError):
            return zone_info(name).key
    return "UTC"


def zone_info(name: str) -> ZoneInfo:
    """Find the time zone, or raise a `WindowError` that says the nearest name."""
    with suppress(KeyError, ValueError, OSError):  # unknown; a way out of the database; a folder in it
        return ZoneInfo(name)
    names = {known.lower(): known for known in available_timezones()}
    near = get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean '{names[near[0]]}'?" if near else "give an IANA name such as 'Europe/Berlin'"
    raise WindowError(f"Time zone {_quoted(name)} is not known", hint)


@dataclass(frozen=True, slots=True)
class _Question:
    asked: str
    now: datetime  # UTC: elapsed time is subtracted from it
    zone: ZoneInfo
    is_trial: bool = False  # tries what a hint is about to say

    @property
    def text(self) -> str:
        return " ".join(self.asked.split())

    @property
    def today(self) -> date:
        return self.local(self.now).date()

    def local(self, instant: datetime) -> datetime:
        return instant.astimezone(self.zone)

    def first(self, edge: datetime) -> datetime:
        return (edge if edge.tzinfo else edge.replace(tzinfo=self.zone)).astimezone(UTC)

    def last(self, edge: datetime) -> datetime:
        """Take the later fold: the second of two, and in a gap it is fold 0 that moves forward."""
        return max(self.first(edge), self.first(edge.replace(fold=1)))

    def shown(self, instant: datetime) -> str:
        local = self.local(instant).replace(tzinfo=None)
        return local.isoformat(" ", "seconds" if local.second else "minutes")

    def error(self, problem: str, hint: str) -> WindowError:
        return WindowError(f"Window {_quoted(self.text)} {problem}", hint)


@dataclass(frozen=True, slots=True)
class _Span:
    """What a time names. An edge without a zone is a clock time, read when it is used as a first or last."""

    start: datetime
    end: datetime
    day: date | None = None  # the one day that the text names
    is_clock: bool = False  # of today, for want of a day in the text


_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAYS_FROM_TODAY = {"yesterday": -1, "today": 0, "tomorrow": 1}
_UNIT_WORDS = ("second", "minute", "hour", "day", "week", "seconds", "minutes", "hours", "days", "weeks")
_OTHER_WORDS = ("last", "past", "this", "since", "ago", "now", "to", "all", "everything")
_WORDS = (*_UNIT_WORDS, *_WEEKDAYS, *_DAYS_FROM_TODAY, *_OTHER_WORDS)

_NUMBER = r"[0-9]+(?:\.[0-9]{1,6})?"
_UNIT = r"(?:s(?:ecs?|econds?)?|m(?:ins?|inutes?)?|h(?:rs?|ours?)?|d(?:ays?)?|w(?:eeks?)?)"
_ELAPSED = rf"{_NUMBER} ?{_UNIT}(?: ?{_NUMBER} ?{_UNIT})*"
_AGO = rf"(?:(?:now ?)?- ?)?(?P<elapsed>{_ELAPSED})(?: ago)?"
_WEEKDAY = rf"(?:{'|'.join(_WEEKDAYS)})"
_ISO_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ANY_DAY = rf"(?:{'|'.join(_DAYS_FROM_TODAY)}|{_WEEKDAY}|{_ISO_DATE})"
_FACE = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_CLOCK = rf"(?:{_FACE}|[0-9]{{1,2}})(?: ?[ap]m)?"
_OFFSET = r"(?:Z|[+-](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?)"
_BETWEEN = r"(?: ?(?:\.\.|/) ?| to )"


def _match(form: str, text: str) -> re.Match[str] | None:
    return re.fullmatch(form, text, re.ASCII | re.IGNORECASE)


def _point(moment: datetime, day: date | None = None, *, is_clock: bool = False) -> _Span:
    return _Span(moment, moment, day, is_clock)


def _elapsed(question: _Question, text: str) -> timedelta:
    if capital := re.fullmatch(rf"({_NUMBER}) ?M", text):
        raise _two_lengths(question, capital[1])
    parts = re.findall(rf"({_NUMBER}) ?([a-z]+)", text.lower())
    seconds = sum(Decimal(number) * _UNIT_SECONDS[unit[0]] for number, unit in parts)
    return timedelta(microseconds=int(seconds * 1_000_000))


def _day(question: _Question, text: str) -> date:
    if (name := text.lower()) in _WEEKDAYS:
        return question.today - (question.today.weekday() - _WEEKDAYS.index(name)) % 7 * _DAY
    if name in _DAYS_FROM_TODAY:
        return question.today + _DAYS_FROM_TODAY[name] * _DAY
    return date.fromisoformat(name)


def _calendar(question: _Question, found: re.Match[str]) -> _Span:
    if found["month"]:
        first = date.fromisoformat(f"{found['month']}-01")
        days = monthrange(first.year, first.month)[1]
    else:
        first, days = (_day(question, found["day"]), 1) if found["day"] else (_day(question, "monday"), 7)
    # first, not last: a day ends where the next one begins, also where midnight comes twice (Havana)
    edges = [question.first(datetime.combine(day, time())) for day in (first, first + days * _DAY)]
    return _Span(edges[0], edges[1], first if found["day"] else None)


def _clock(question: _Question, found: re.Match[str]) -> _Span:
    day = _day(question, found["day"] or "today")
    moment = datetime.combine(day, time()) + _since_midnight(found["clock"])
    return _point(moment, day, is_clock=not found["day"])


def _clock_with_offset(question: _Question, found: re.Match[str]) -> _Span:
    midnight = datetime.fromisoformat(f"{found['day']}T00:00{found['offset'].upper()}")
    instant = midnight + _since_midnight(found["clock"])
    return _point(instant, question.local(instant).date())


def _since_midnight(clock: str) -> timedelta:
    face, half = (clock[:-2], clock[-2].lower()) if clock[-1] in "mM" else (clock, "")
    hour, minute, second = (Decimal(part) for part in (*face.split(":"), "0", "0")[:3])
    is_hour = 1 <= hour <= 12 if half else hour * 3_600 + minute * 60 + second <= 86_400
    if not is_hour or minute >= 60 or second >= 60:
        raise ValueError(clock)
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return timedelta(microseconds=int((hour * 3_600 + minute * 60 + second) * 1_000_000))


# The times that A and B may be. A reader raises ValueError where there is no such time.
_TIMES: dict[str, Callable[[_Question, re.Match[str]], _Span]] = {
    r"now": lambda question, _: _point(question.now),
    r"[0-9]{10}|[0-9]{13}": lambda _, found: _point(_EPOCH + int(found[0].ljust(13, "0")) * _MILLISECOND),
    _AGO: lambda question, found: _point(question.now - _elapsed(question, found["elapsed"])),
    rf"this week|(?P<month>[0-9]{{4}}-[0-9]{{2}})|(?P<day>{_ANY_DAY})": _calendar,
    rf"(?:(?P<day>{_ANY_DAY})[ T])?(?P<clock>{_CLOCK})": _clock,
    rf"(?P<day>{_ISO_DATE})[ T](?P<clock>{_FACE}) ?(?P<offset>{_OFFSET})": _clock_with_offset,
}


def _time(question: _Question, text: str) -> _Span:
    where = "" if text == question.text else f" at {_quoted(text)}"
    try:
        return next(read(question, found) for form, read in _TIMES.items() if (found := _match(form, text)))
    except StopIteration:
        raise _unreadable(question, f"cannot be read{where}") from None
    except ValueError:
        raise _unreadable(question, f"has an impossible time{where}") from None


def _until_now(question: _Question, found: re.Match[str]) -> Window:
    text = found["elapsed"] or f"1 {found['unit']}"
    return _window(question, question.now - _elapsed(question, text), question.now)


def _since(question: _Question, found: re.Match[str]) -> Window:
    span = _time(question, found["a"])
    start = question.first(span.start)
    if span.is_clock and start >= question.now:
        start = question.first(span.start - _DAY)
    return _window(question, start, question.now)


def _between(question: _Question, found: re.Match[str]) -> Window:
    a, b = _time(question, found["a"]), _time(question, found["b"] or "now")
    start, edge = question.first(a.start), b.end
    if b.is_clock and a.day:
        edge += a.day - question.today
        is_overnight = question.last(edge) < start and ("dash" in found.groupdict() or not a.is_clock)
        edge += is_overnight * _DAY
    end = question.last(edge)
    is_reversed = end < start or (end == start and b.start != b.end)
    if is_reversed and end != question.now:
        problem = f"ends at {question.shown(end)}, before it begins at {question.shown(start)}"
        raise question.error(problem, _hint(question, f"{found['b']}..{found['a']}", f"yesterday {found[0]}"))
    return _window(question, start, end)


def _no_fixed_length(question: _Question, _: re.Match[str]) -> Window:
    last_month = question.today.replace(day=1) - _DAY
    raise question.error("has no fixed length", _hint(question, "30d", "365d", f"{last_month:%Y-%m}"))


def _named(question: _Question, found: re.Match[str]) -> Window:
    span = _time(question, found[0])
    if span.start != span.end:
        return _window(question, span.start, span.end)
    start = question.first(span.start)
    calls = [f"since {found[0]}", f"{question.shown(start)}..{question.shown(start + timedelta(hours=1))}"]
    if ago := _match(_AGO, found[0]):
        since = question.shown(start).removeprefix(f"{question.today} ")
        calls = [f"last {ago['elapsed']}", f"since {since}"]
    raise question.error("is a point in time, not a window", _hint(question, *calls))


# The forms of a window: the first that matches decides.
_FORMS: dict[str, Callable[[_Question, re.Match[str]], Window]] = {
    r"all|everything": lambda question, _: _window(question, _EPOCH, question.now),
    rf"(?:(?:last|past) )?(?P<elapsed>{_ELAPSED})|(?:last|past) (?P<unit>{_UNIT})": _until_now,
    rf"(?:(?:last|past|this) )?(?:{_NUMBER} ?)?(?:month|year)s?": _no_fixed_length,
    r"since (?P<a>.+)": _since,
    rf"(?P<a>(?:{_ANY_DAY} )?{_CLOCK})(?P<dash> ?[-\u2013] ?)(?P<b>{_CLOCK})": _between,
    rf"(?P<a>.+?){_BETWEEN}(?P<b>.*)": _between,
    r".*": _named,
}


def _resolve(question: _Question) -> Window:
    text = question.text
    if len(text) > _ASKED_CHARACTERS_MAX:
        raise _unreadable(question, f"is longer than {_ASKED_CHARACTERS_MAX} characters")
    try:
        return next(read(question, found) for form, read in _FORMS.items() if (found := _match(form, text)))
    except OverflowError:
        raise question.error("reaches further than 100 years", _hint(question, "all")) from None


def _window(question: _Question, start: datetime, end: datetime) -> Window:
    if max(end, question.now) - start > _REACH:
        raise OverflowError
    if start == end:
        raise question.error(f"has no length, it begins and ends at {question.shown(start)}", _hint(question))
    if start >= question.now:
        raise _in_future(question, start)
    end = min(end, question.now)
    return Window(question.local(start), question.local(end), question.zone.key, question.asked)


def _in_future(question: _Question, start: datetime) -> WindowError:
    text = question.text.lower()
    last_week = re.sub(_WEEKDAY, lambda name: str(_day(question, name[0]) - 7 * _DAY), text)
    hint = _hint(question, text.replace("today", "yesterday"), last_week, f"yesterday {text}")
    when = f"it begins at {question.shown(start)} and now is {question.shown(question.now)}"
    return question.error(f"is in the future, {when} in {question.zone.key}", hint)


def _two_lengths(question: _Question, number: str) -> WindowError:
    count = "one {}" if number == "1" else f"{number} {{}}s"
    calls = (("minute", f"{number}m"), ("month", f"{(30 * Decimal(number)).normalize():f}d"))
    hints = [f"for {count.format(unit)} say '{call}'" for unit, call in calls if _works(question, call)]
    return question.error("can be read in two ways", ", ".join(hints) or _hint(question))


def _unreadable(question: _Question, problem: str) -> WindowError:
    text, day = question.text.lower(), question.today - _DAY
    examples = f"valid windows are '15m', 'last 2 hours', 'yesterday 9-17' and '{day} 09:00..17:00'"
    near = re.sub("[a-z]{2,}", lambda word: [*get_close_matches(word[0], _WORDS, 1), word[0]][0], text)
    hint = f"did you mean '{near}'? {examples.capitalize()}" if _works(question, near) else examples
    return question.error(problem, hint)


def _hint(question: _Question, *calls: str) -> str:
    """Recommend the calls that work, else one that always does."""
    working = [call for call in calls if _works(question, call)] or ["last hour"]
    return "say " + " or ".join(f"'{call}'" for call in working)


def _works(question: _Question, text: str) -> bool:
    with suppress(WindowError):
        return not question.is_trial and bool(_resolve(replace(question, asked=text, is_trial=True)))
    return False


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
