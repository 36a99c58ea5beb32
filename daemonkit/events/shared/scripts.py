"""The scripts that change a shared queue, each as a whole.

Counts follow from what is stored, never from what a caller says: a call may arrive twice.
"""

from __future__ import annotations

from .layout import LAYOUT, RELEASED, script

# ARGV: the node, or '' to create the queue only, and what is known of it. Returns the layout.
JOIN = script(
    f"""
local layout = tonumber(redis.call('GET', K_layout) or '{LAYOUT}')
if layout > {LAYOUT} then return layout end
redis.call('SET', K_layout, {LAYOUT})
local found = redis.pcall('XGROUP', 'CREATE', K_stream, GROUP, '0', 'MKSTREAM')
if found.err and not string.find(found.err, 'BUSYGROUP', 1, true) then return found end
if ARGV[1] ~= '' then
  redis.call('HSETNX', K_nodes, ARGV[1], 1)
  redis.call('HSET', K_about, ARGV[1], ARGV[2])
end
return layout
"""
)

# ARGV: the put's number, how long it is remembered in milliseconds, the bound, then for each put
# how many entries and events it has, and for each entry: events, source, who sent them, NDJSON.
# Returns a 0 or 1 for each put, and how many events wait.
PUT = script(
    """
local last = redis.call('GET', K_put)
if last then
  local number, outcome = string.match(last, '^(%d+) (.*)$')
  if tonumber(number) == tonumber(ARGV[1]) then
    -- A write, which WAIT waits for.
    redis.call('SET', K_put, last, 'PX', ARGV[2])
    return outcome
  end
  if tonumber(number) > tonumber(ARGV[1]) then return redis.error_reply('STALE put') end
end
local waiting = tonumber(redis.call('HGET', K_counts, 'waiting')) or 0
local flags, i = {}, 4
while ARGV[i] do
  local entries, events = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  i = i + 2
  local fits = waiting + events <= tonumber(ARGV[3])
  if fits then
    waiting = waiting + events
    for e = i, i + 4 * (entries - 1), 4 do
      if ARGV[e + 2] == '' then
        add('n', ARGV[e], 's', ARGV[e + 1], 'd', ARGV[e + 3])
      else
        add('n', ARGV[e], 's', ARGV[e + 1], 'p', ARGV[e + 2], 'd', ARGV[e + 3])
      end
    end
  end
  i = i + 4 * entries
  flags[#flags + 1] = fits and '1' or '0'
end
redis.call('HSET', K_counts, 'waiting', waiting)
local outcome = table.concat(flags)..' '..waiting
redis.call('SET', K_put, ARGV[1]..' '..outcome, 'PX', ARGV[2])
return outcome
""",
    when_full=False,
)

# ARGV, for each entry: its id, how many events it has, 0 or 1 for each of them or '' for all, and
# the event's id if it is a retry. What others have handled of it stays handled. Returns how many
# events wait.
SETTLE = script(
    """
for i = 1, #ARGV, 4 do
  local id, events, bits, retry = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local before = redis.call('HGET', K_handled, id)
  if before and bits ~= '' then
    local merged = {}
    for n = 1, events do
      merged[n] = (before:byte(n) == 49 or bits:byte(n) == 49) and '1' or '0'
    end
    bits = table.concat(merged)
  end
  local handled = before and ones(before) or 0
  if bits ~= '' and string.find(bits, '0', 1, true) then
    if owner(id) then
      redis.call('HSET', K_handled, id, bits)
      count('waiting', handled - ones(bits))
    end
  elseif remove(id) then
    count('waiting', handled - events)
    if retry ~= '' then forget(retry) end
  end
end
return tonumber(redis.call('HGET', K_counts, 'waiting')) or 0
"""
)

# ARGV: the node, the entry, the event's number in it, how many there are, the event's id, its
# attempts, its JSON, milliseconds until the retry or '' for a dead letter, the most dead letters.
# Returns how many events wait, -1 if it isn't the node's to decide any more.
FAIL = script(
    """
local id, place, event = ARGV[2], tonumber(ARGV[3]) + 1, ARGV[5]
if owner(id) ~= ARGV[1] then return -1 end
local bits = redis.call('HGET', K_handled, id) or string.rep('0', ARGV[4])
if bits:byte(place) == 49 then return -1 end
bits = bits:sub(1, place - 1)..'1'..bits:sub(place + 1)
if string.find(bits, '0', 1, true) then redis.call('HSET', K_handled, id, bits)
else remove(id) end
redis.call('HDEL', K_queued, event)
redis.call('HSET', K_failed, event, ARGV[7])
redis.call('HSET', K_attempts, event, ARGV[6])
if ARGV[8] ~= '' then
  redis.call('ZADD', K_due, string.format('%.0f', milliseconds() + ARGV[8]), event)
  count('retried', 1)
  return tonumber(redis.call('HGET', K_counts, 'waiting')) or 0
end
local waiting = count('waiting', -1)
redis.call('ZADD', K_dead, event, event)
redis.call('ZADD', K_deaths, count('dead', 1), event)
while redis.call('ZCARD', K_deaths) > tonumber(ARGV[9]) do
  local oldest = redis.call('ZPOPMIN', K_deaths)[1]
  redis.call('ZREM', K_dead, oldest)
  forget(oldest)
  count('discarded', 1)
end
return waiting
"""
)

# Appends the retries that are due. Returns milliseconds until the next one, -1 if there is none.
DUE = script(
    """
local now = milliseconds()
local due = redis.call('ZRANGEBYSCORE', K_due, '-inf', now, 'LIMIT', 0, 100)
for _, event in ipairs(due) do
  redis.call('HSET', K_queued, event, add('k', event))
  redis.call('ZREM', K_due, event)
end
local next = redis.call('ZRANGE', K_due, 0, 0, 'WITHSCORES')[2]
return next and math.max(0, tonumber(next) - now) or -1
"""
)

# ARGV: the node, what is known of it, and 1 for a full answer. Returns nothing if the node was
# taken for dead; otherwise the heartbeats of each node and what is known of it, the consumers with
# what they pend, milliseconds until the next retry (-1: none), the age of the oldest entry in
# tenths of milliseconds (-1: none), and counts. Only the full answer has what is known, and the
# consumers that pend nothing: with a thousand nodes, it takes the engine two milliseconds.
BEAT = script(
    """
if redis.call('HEXISTS', K_nodes, ARGV[1]) == 0 then return false end
redis.call('HINCRBY', K_nodes, ARGV[1], 1)
redis.call('HSET', K_about, ARGV[1], ARGV[2])
local about, consumers = {}, {}
if ARGV[3] == '1' then
  about = redis.call('HGETALL', K_about)
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', K_stream, GROUP)) do
    local facts = {}
    for i = 1, #consumer, 2 do facts[consumer[i]] = consumer[i + 1] end
    consumers[#consumers + 1] = facts['name']
    consumers[#consumers + 1] = facts['pending']
  end
else
  for _, consumer in ipairs(redis.call('XPENDING', K_stream, GROUP)[4] or {}) do
    consumers[#consumers + 1] = consumer[1]
    consumers[#consumers + 1] = tonumber(consumer[2])
  end
end
local next = redis.call('ZRANGE', K_due, 0, 0, 'WITHSCORES')[2]
local oldest = redis.call('XRANGE', K_stream, '-', '+', 'COUNT', 1)[1]
return {
  redis.call('HGETALL', K_nodes), about, consumers,
  next and math.max(0, tonumber(next) - milliseconds()) or -1,
  oldest and math.max(0, batches_now() - tonumber(string.match(oldest[1], '^%d+'))) or -1,
  redis.call('HMGET', K_counts, 'waiting', 'retried', 'dead', 'discarded'),
  redis.call('ZCARD', K_due) + redis.call('HLEN', K_queued), redis.call('ZCARD', K_dead)
}
"""
)

MOST_CLAIMED = 100
"""Entries that the script CLAIM returns at once."""

# ARGV: a node without heartbeats, its counter as seen last ('' for none), the node that takes over,
# and how many events it has room for. Returns entries with their fields, what is handled of each,
# and what is suspected; false if the other one lives.
CLAIM = script(
    f"""
local dead, room, out = ARGV[1], tonumber(ARGV[4]), {{}}
if (redis.call('HGET', K_nodes, dead) or '') ~= ARGV[2] then return false end
redis.call('HDEL', K_nodes, dead)
redis.call('HDEL', K_about, dead)
local pending = redis.call('XPENDING', K_stream, GROUP, '-', '+', {MOST_CLAIMED}, dead)
if #pending == 0 then redis.call('XGROUP', 'DELCONSUMER', K_stream, GROUP, dead) end
for _, entry in ipairs(pending) do
  if room <= 0 then break end
  local id = entry[1]
  for _, claimed in ipairs(redis.call('XCLAIM', K_stream, GROUP, ARGV[3], 0, id)) do
    if dead ~= '{RELEASED}' then redis.call('HSETNX', K_suspects, id, '-1 0') end
    local events = 1
    for f = 1, #claimed[2], 2 do
      if claimed[2][f] == 'n' then events = tonumber(claimed[2][f + 1]) end
    end
    room = room - events
    out[#out + 1] = {{
      id, claimed[2], redis.call('HGET', K_handled, id) or '',
      redis.call('HGET', K_suspects, id) or ''
    }}
  end
end
return out
"""
)

# ARGV: the node, an entry, the number of the event that it is going to handle alone. Returns how
# often that has begun, 0 if the entry isn't the node's any more.
BEGIN = script(
    """
if owner(ARGV[2]) ~= ARGV[1] then return 0 end
local mark = redis.call('HGET', K_suspects, ARGV[2]) or ''
local place, times = string.match(mark, '^(%S+) (%d+)$')
local begun = place == ARGV[3] and tonumber(times) + 1 or 1
redis.call('HSET', K_suspects, ARGV[2], ARGV[3]..' '..begun)
return begun
"""
)

# ARGV: the node, then entries that it gives back.
RELEASE = script(
    f"""
for i = 2, #ARGV do
  if owner(ARGV[i]) == ARGV[1] then
    redis.call('XCLAIM', K_stream, GROUP, '{RELEASED}', 0, ARGV[i], 'JUSTID')
  end
end
"""
)

# ARGV: the node, which gives back what it holds and is gone. Returns whether that was all.
LEAVE = script(
    f"""
local pending = redis.call('XPENDING', K_stream, GROUP, '-', '+', 1000, ARGV[1])
for _, entry in ipairs(pending) do
  redis.call('XCLAIM', K_stream, GROUP, '{RELEASED}', 0, entry[1], 'JUSTID')
end
if #pending == 1000 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', K_stream, GROUP, ARGV[1])
redis.call('HDEL', K_nodes, ARGV[1])
redis.call('HDEL', K_about, ARGV[1])
return 1
"""
)

# ARGV: ids of failed events. They are retried now. Returns those that there are.
RETRY = script(
    """
local found, now = {}, string.format('%.0f', milliseconds())
for _, event in ipairs(ARGV) do
  local is_dead = redis.call('ZREM', K_dead, event) == 1
  if is_dead then
    redis.call('ZREM', K_deaths, event)
    count('waiting', 1)
  end
  if is_dead or redis.call('ZSCORE', K_due, event) then redis.call('ZADD', K_due, now, event) end
  if is_dead or redis.call('HEXISTS', K_failed, event) == 1 then
    redis.call('HSET', K_attempts, event, 0)
    found[#found + 1] = event
  end
end
return found
"""
)

# ARGV: whether only failed events are meant, then ids of events. They are removed. Returns those
# that there were.
DROP = script(
    """
local found = {}
local function drop_failed(event)
  if redis.call('ZREM', K_dead, event) == 1 then redis.call('ZREM', K_deaths, event)
  elseif redis.call('ZREM', K_due, event) == 1 then count('waiting', -1)
  else
    local entry = redis.call('HGET', K_queued, event)
    if not entry then return false end
    if remove(entry) then count('waiting', -1) end
  end
  forget(event)
  return true
end
local function drop_waiting(event)
  local id = string.format('%.0f-0', math.floor(event / 1000))
  local place = event % 1000 + 1
  local entry = redis.call('XRANGE', K_stream, id, id)[1]
  if not entry or entry[2][1] ~= 'n' or place > tonumber(entry[2][2]) then return false end
  local bits = redis.call('HGET', K_handled, id) or string.rep('0', entry[2][2])
  if bits:byte(place) == 49 then return false end
  bits = bits:sub(1, place - 1)..'1'..bits:sub(place + 1)
  if string.find(bits, '0', 1, true) then redis.call('HSET', K_handled, id, bits)
  else remove(id) end
  count('waiting', -1)
  return true
end
for i = 2, #ARGV do
  if drop_failed(ARGV[i]) or (ARGV[1] == '0' and drop_waiting(tonumber(ARGV[i]))) then
    found[#found + 1] = ARGV[i]
  end
end
return found
"""
)
