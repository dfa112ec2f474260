"""Token buckets and the budget ledger: their arithmetic in integers, once in Python and once in Lua, with equal results.

A bucket's level is counted in 60,000ths: a limit per minute times elapsed milliseconds is then a whole number, and nothing is
ever rounded. A bucket that nobody holds is full.
"""

from collections.abc import Sequence
from dataclasses import dataclass

PARTS = 60_000  # of one token: milliseconds in a minute
MOST = 2**53 - 1  # Lua's numbers are doubles
ONCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: `per_minute` tokens flow in, at most `burst` are kept."""

    per_minute: int
    burst: int

    def __post_init__(self) -> None:
        if not (1 <= self.per_minute <= 10**10 and 1 <= self.burst <= 10**10):
            raise ValueError(f"{self!r}; accepted: both from 1 to 10^10")


@dataclass(frozen=True, slots=True)
class Taken:
    """Whether all amounts were taken, the whole tokens left per limit, and when to try again (0 where taken; None: never)."""

    ok: bool
    left: tuple[int, ...]
    retry_after_ms: int | None = 0


@dataclass(frozen=True, slots=True)
class Levels:
    """Buckets at a time, in `PARTS`."""

    at_ms: int
    parts: tuple[int, ...]


def check_amounts(limits: Sequence[Limit], amounts: Sequence[int]) -> None:
    """Raises ValueError unless there is one amount from 0 per limit."""
    if not limits or len(limits) != len(amounts) or any(not 0 <= amount <= 10**10 for amount in amounts):
        raise ValueError(f"amounts {tuple(amounts)!r} for {len(limits)} limits; accepted: one from 0 per limit")


def refill(held: Levels | None, now_ms: int, limits: Sequence[Limit]) -> tuple[int, ...]:
    """What the buckets hold now, in `PARTS`. A clock that went back adds nothing."""
    gone = 0 if held is None else max(0, now_ms - held.at_ms)
    found: list[int] = []
    for index, limit in enumerate(limits):
        full = limit.burst * PARTS
        before = held.parts[index] if held is not None and index < len(held.parts) else full
        found.append(min(full, before + gone * limit.per_minute))
    return tuple(found)


def take_from(
    held: Levels | None, now_ms: int, limits: Sequence[Limit], amounts: Sequence[int]
) -> tuple[Levels, Taken]:
    """All amounts or none, from buckets as they were last. Raises ValueError for amounts that are none."""
    check_amounts(limits, amounts)
    parts = refill(held, now_ms, limits)
    needs = tuple(amount * PARTS for amount in amounts)
    if all(need <= part for need, part in zip(needs, parts, strict=True)):
        after = tuple(part - need for need, part in zip(needs, parts, strict=True))
        return Levels(now_ms, after), Taken(True, tuple(part // PARTS for part in after))
    wait = wait_ms(needs, parts, limits)
    return Levels(now_ms, parts), Taken(False, tuple(part // PARTS for part in parts), wait)


def wait_ms(needs: Sequence[int], parts: Sequence[int], limits: Sequence[Limit]) -> int | None:
    """Milliseconds until the needs are there if nobody takes before; None where they never are."""
    longest = 0
    for need, part, limit in zip(needs, parts, limits, strict=True):
        if need > limit.burst * PARTS:
            return None
        longest = max(longest, -((part - need) // limit.per_minute))
    return longest


def check_money(nano_usd: int) -> None:
    """Raises ValueError for an amount that the ledger does not take."""
    if not 0 <= nano_usd <= MOST:
        raise ValueError(f"{nano_usd!r} nano-USD; accepted: 0 to 2^53 - 1")


def milliseconds(ttl_s: float) -> int:
    """A time to live in whole milliseconds, at least one. Raises ValueError for none."""
    if not ttl_s > 0:
        raise ValueError(f"a time to live is above 0 s, not {ttl_s!r}")
    return max(1, round(ttl_s * 1000))


# KEYS: bucket, mark. ARGV: the mark's life in ms (0: no mark), then per limit: amount, per_minute, burst.
# The time is the server's: one clock for all routers, so that one whose own is off neither fills a bucket nor starves it.
TAKE = """
local now = redis.call('TIME')
now = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local held, n = {}, 0
for part in string.gmatch(redis.call('GET', KEYS[1]) or '', '%d+') do
  held[n] = tonumber(part)
  n = n + 1
end
local gone = 0
if n > 0 then gone = math.max(0, now - held[0]) end
local life = tonumber(ARGV[1])
local again = life > 0 and redis.call('EXISTS', KEYS[2]) == 1
local ok, wait, parts, count = true, 0, {}, (#ARGV - 1) / 3
for i = 1, count do
  local need, rate, full = ARGV[3 * i - 1] * 60000, tonumber(ARGV[3 * i]), ARGV[3 * i + 1] * 60000
  if again then need = 0 end
  parts[i] = math.min(full, (held[i] or full) + gone * rate)
  if need > parts[i] then
    ok = false
    if need > full then
      wait = -1
    elseif wait >= 0 then
      wait = math.max(wait, math.ceil((need - parts[i]) / rate))
    end
  end
end
local text, left, full_in = string.format('%.0f', now), {}, 0
for i = 1, count do
  local rate, full = tonumber(ARGV[3 * i]), ARGV[3 * i + 1] * 60000
  if ok and not again then parts[i] = parts[i] - ARGV[3 * i - 1] * 60000 end
  text = text .. ' ' .. string.format('%.0f', parts[i])
  left[i] = string.format('%.0f', math.floor(parts[i] / 60000))
  if parts[i] < full then
    full_in = math.max(full_in, math.ceil((full - parts[i]) / rate))
  end
end
redis.call('SET', KEYS[1], text, 'PX', string.format('%.0f', math.min(full_in, 2592000000) + 1000))
if ok and life > 0 then redis.call('SET', KEYS[2], '1', 'PX', ARGV[1]) end
return {ok and 1 or 0, string.format('%.0f', wait), unpack(left)}
"""

# KEYS: sum, record. ARGV: 'r' or 's', nano-USD, life in ms. The record holds what this request is charged now: 'r<n>' or 's<n>'.
CHARGE = """
local record = redis.call('GET', KEYS[2])
if not record or (ARGV[1] == 's' and string.sub(record, 1, 1) == 'r') then
  local before = record and tonumber(string.sub(record, 2)) or 0
  redis.call('INCRBY', KEYS[1], string.format('%.0f', tonumber(ARGV[2]) - before))
  redis.call('SET', KEYS[2], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
end
return redis.call('GET', KEYS[1]) or '0'
"""

# KEYS: sum. ARGV: nano-USD, life in ms.
LIFT = """
local held = tonumber(redis.call('GET', KEYS[1]) or '0')
if held < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return redis.call('GET', KEYS[1]) or '0'
"""

# KEYS: counter, mark. ARGV: n, life in ms, whether there is a mark.
ADD = """
if ARGV[3] == '1' and not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[2]) then
  return redis.call('GET', KEYS[1]) or '0'
end
redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
"""

# KEYS: key. ARGV: value, life in ms. NX with GET in one command needs Redis 7; this 6.2 knows.
FIRST = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return ARGV[1] end
return redis.call('GET', KEYS[1])
"""

# KEYS: lock. ARGV: token, life in ms. Asking again with the same token holds it on: a lost reply does not lose the lock.
ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: lock. ARGV: token.
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# KEYS: stream. ARGV: value, most entries, life in ms.
APPEND = """
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], '*', 'v', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
