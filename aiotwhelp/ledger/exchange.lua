-- THE RULE over all processes, on a server: rule.py, clause by clause and in its order.
--
-- KEYS    one record per report, all under one hash tag
-- ARGV[1] the reports as JSON, each a list of its fields in the order of port.py, and so its notes
-- ARGV[2] for tests alone: now in milliseconds, in place of the server's clock
--
-- Answers the leases as JSON, in the same way, and after each whether its record is new. All of them are worked out before anything is written, so that what
-- fails has changed nothing.
--
-- Where Lua and cjson are not Python: 0 is true, so numbers are compared; an empty table has no
-- kind, so empty lists are not written; numbers are written with 14 digits, so `slot`, which has
-- 16, is written as a string; tables forget the order of their names, so clients are a list.

local LEASE = 2000
local BACK = 2500
local KEPT = 60000
local LONGEST_BACKOFF = 60000
local LONGEST_PAUSE = 3600000
local SAME_RESET = 2000
local OTHER_BACK_END = 4000
local ROUNDING = 1000
local LEAST_LATENESS = 100
local FOUND_SOON = 1000
local MOST_RELAPSES = 6
local DOUBTS = 8
local LONGEST_ROUND_TRIP = 30000
local MOST_DEBTS = 64
local MOST_BLANK = 65536
local SLOW_START = 64
local FIRST_WAIT = 250
local MOST_CLIENTS = 256
local OVERDUE = 300
local AWAITED = 1000
local MOST_VAIN = 2
local ENOUGH = 4
local UNKNOWN_ROUND_TRIP = 100
local PRESUMED_FOREIGN = 250
local MOST_FOREIGN = 4000
local FIRST_GAP = 250
local GAP_MEMORY = 600000
local SMALLEST_GAP = 10
local AHEAD = 100000

local floor, ceil, sqrt = math.floor, math.ceil, math.sqrt
local max, min, abs = math.max, math.min, math.abs

-- Unlike pick(unpack(list)) for lists of any length.
local function of_all(pick, list)
  local found
  for _, each in ipairs(list) do
    found = found and pick(found, each) or each
  end
  return found
end

-- The lists of a record, and what each of their rows holds.
local ROWS = {
  floor = {"number", "number"},
  unread = {"number", "number"},
  unplaced = {"number", "number"},
  ghosts = {"number", "number", "number"},
  gaps = {"number", "number"},
  clients = {
    "string", "number", "number", "number", "number", "number", "number", "number", "number",
    "number", "number", "number", "number",
  },
}

local function is_row(row, kinds)
  if type(row) ~= "table" or #row ~= #kinds then
    return false
  end
  for place, kind in ipairs(kinds) do
    if type(row[place]) ~= kind then
      return false
    end
  end
  return true
end

local Client, Record, client_of, is_awaited, forget, dumps, loads, lifetime
local exchange, emptied, hear, come_back
local grant, grant_from, share_out, taken_by, grant_probe, lease_probe, grant_pace, patience
local grant_when_spent, until_reset, slots
local use, foreign, margin, claimed, share_of_each, held_by_all, left_of, lease
local ends_at, pass, doubt, expire, give_up, make_room
local take_in, take_pace, read, fold, answer_probe, least, open_window, observe, move_reset
local await_again
local lasts, apart_by, is_usable, is_placed, is_same, is_earlier, is_of_next, learn_lateness
local owe, add_ghost, clear_debts, backoff, missed, found_nobody, back_off_refused, confirmed

function Client(
  name, held, expires, sequence, noted, asks, taken, probes, probed, tried, gone, awaited, vain
)
  return {
    name = name,
    held = held or 0,
    expires = expires or 0,
    sequence = sequence or 0,
    noted = noted or 0,
    asks = asks or 0,
    taken = taken or 0,
    probes = probes or 0,
    probed = probed or 0,
    tried = tried or 0,
    gone = gone or 0,
    awaited = awaited or 0,
    vain = vain or 0,
  }
end

function Record()
  return {
    number = 0,
    began = 0,
    reset_number = 0,
    confirmed = false,
    seen = 0,
    ceiling = 960000,
    span = 0,
    late = 0,
    relapses = 0,
    clean = 0,
    doubts = 0,
    floor = {},
    unread = {},
    unplaced = {},
    ghosts = {},
    shut = 0,
    paused = 0,
    pauses = 0,
    answered = 0,
    round_trip = 0,
    turn = 1,
    misses = 0,
    refusals = 0,
    hold = 0,
    absent = 0,
    blank = 0,
    shown = {},
    slot = 0,
    gap = 0,
    paced_until = 0,
    gaps = {},
    explained = 0,
    others = 0,
    own = 0,
    size = 0,
    before = 0,
    presumed = PRESUMED_FOREIGN,
    missing = 0,
    crew = 1,
    back = 0,
    clients = {},
  }
end

function client_of(record, name)
  for _, client in ipairs(record.clients) do
    if client.name == name then
      return client
    end
  end
end

function is_awaited(client)
  return client.awaited ~= 0 and client.gone == 0
end

function forget(record, client)
  for place, each in ipairs(record.clients) do
    if each == client then
      table.remove(record.clients, place)
      return
    end
  end
end

function dumps(record)
  local state = {}
  for name, value in pairs(record) do
    if type(value) ~= "table" or #value > 0 then
      state[name] = value
    end
  end
  state.slot = string.format("%.0f", record.slot)
  state.clients = nil
  if #record.clients > 0 then
    state.clients = {}
    for place, each in ipairs(record.clients) do
      state.clients[place] = {
        each.name, each.held, each.expires, each.sequence, each.noted, each.asks, each.taken,
        each.probes, each.probed, each.tried, each.gone, each.awaited,
        each.vain,
      }
    end
  end
  return cjson.encode(state)
end

-- Returns nothing for what is no record of ours.
function loads(text)
  local record = Record()
  if not text then
    return record
  end
  local is_json, state = pcall(cjson.decode, text)
  if not is_json or type(state) ~= "table" or type(state.turn) ~= "number" then
    return nil
  end
  state.slot = tonumber(state.slot) or state.slot
  for name, value in pairs(record) do
    if state[name] == nil then
      state[name] = value
    end
    if type(state[name]) ~= type(value) then
      return nil
    end
  end
  for name, kinds in pairs(ROWS) do
    for _, row in ipairs(state[name]) do
      if not is_row(row, kinds) then
        return nil
      end
    end
  end
  for place, row in ipairs(state.clients) do
    state.clients[place] = Client(unpack(row))
  end
  return state
end

function exchange(record, report, now)
  pass(record, now)
  expire(record, now)
  local client, crew = client_of(record, report.client), report.crew
  if not client then
    if crew == 0 then
      crew = emptied(record, report, now)
    end
    make_room(record)
    client = Client(report.client)
    table.insert(record.clients, client)
  end
  if report.sequence <= client.sequence then
    return lease(record, now, {stale = true})
  end
  if crew ~= 0 then
    come_back(record, crew, now)
  end
  hear(record, client, report, now)
  local void = crew ~= 0 and record.confirmed and max(0, -left_of(record)) or 0
  local granted, wait, probe, starts_in = 0, nil, 0, 0
  if report.want ~= 0 then
    if client.asks < now then
      client.taken = max(client.taken, of_all(min, taken_by(record, now)) or 0)
    end
    client.asks = now
    if report.counts == "rate" then
      granted, wait, starts_in = slots(record, report, now)
    else
      granted, wait, probe = grant(record, client, report, now)
    end
    client.taken = client.taken + granted
    if report.counts ~= "rate" then
      client.held = client.held + granted
      use(record, granted)
    end
    client.asks = granted < report.want and now + OVERDUE + (wait or 0) or 0
  elseif report.idle then
    client.asks = 0
  end
  client.expires = now + LEASE
  if client.held == 0 and client.probes == 0 then
    -- It is one of those that share for as long as it was told to wait, and for a window.
    client.expires = client.expires + max(wait or 0, record.span)
    if report.leaves then
      forget(record, client)
    end
  end
  return lease(record, now, {
    granted = granted, wait = wait, probe = probe, starts_in = starts_in, void = void,
  })
end

-- Returns how many had a lease of what was a record before this one, or 0.
function emptied(record, report, now)
  local peers = min(report.peers, MOST_CLIENTS)
  if now >= record.began + LEASE or #record.clients >= peers then
    return 0
  end
  if record.seen == 0 and record.reset_number == 0 then
    -- What others have read since, and told it, nobody will tell again.
    record.reset_number = record.number
  end
  return peers
end

function hear(record, client, report, now)
  record.ceiling = report.ceiling
  if report.shut ~= 0 then
    record.shut = max(record.shut, now + min(report.shut, report.ceiling))
  end
  if report.paused ~= 0 then
    record.paused = max(record.paused, now + min(report.paused, LONGEST_PAUSE))
    record.pauses = report.pauses
  end
  client.sequence = report.sequence
  local notes, spent = {}, 0
  for _, note in ipairs(report.notes) do
    if note.number > client.noted then
      table.insert(notes, note)
      spent = spent + (note.outcome ~= "unsent" and note.cost or 0)
    end
  end
  -- Fewer than were leased if some went back unused; more if the ledger was away.
  use(record, report.held + spent - client.held)
  client.held = report.held
  for _, note in ipairs(notes) do
    client.noted = note.number
    if report.counts == "pace" then
      take_pace(record, note, now)
    else
      take_in(record, client, note, now, report.counts == "cold")
    end
  end
  client.gone, client.awaited, client.vain = 0, 0, 0
  -- Never more than were leased in this turn: it may still wait for those of an earlier one.
  client.probes = min(client.probes, report.probes)
  if #report.shown > 0 then
    record.shown = report.shown
  end
end

-- After an outage the first to come back tells how many are to follow, each of them once.
function come_back(record, crew, now)
  if now >= record.back then
    record.missing, record.crew = crew, crew
    record.back = now + BACK
  end
  record.missing = max(0, record.missing - 1)
end

function lifetime(record, now)
  local ends = max(
    record.reset or 0, record.shut, record.paused, record.hold, floor(record.slot / 1000)
  )
  return max(4 * LEASE, ends - now) + KEPT
end

-- Asking ------------------------------------------------------------------------------------------

-- Returns the tokens, or the wait, and the turn if it is a probe.
function grant(record, client, report, now)
  if report.counts == "cold" and #record.shown > 0 then
    return 0, nil, 0
  end
  if report.counts == "pace" then
    return grant_pace(record, client, report, now)
  end
  local backs_off = record.hold > now and not record.confirmed and client.tried >= record.absent
  local shut = max(record.shut, record.paused)
  if backs_off or shut > now then
    return 0, max(shut, record.hold) - now, 0
  end
  local left
  if report.counts == "concurrency" then
    left = max(report.limit, report.need) - held_by_all(record)
  elseif report.counts == "cold" and record.blank > 0 then
    -- One call always, whatever it costs.
    left = max(record.blank + 1, report.need) - held_by_all(record)
  elseif record.confirmed then
    left = left_of(record) - report.keep - margin(record)
    if record.answered < SLOW_START then
      left = min(left, (record.answered + 1) * report.need - held_by_all(record))
    end
  else
    return grant_probe(record, client, report, now)
  end
  return grant_from(record, client, report, left, now)
end

function grant_from(record, client, report, left, now)
  local theirs = record.confirmed and claimed(record, now) or 0
  if theirs > 0 then
    if left - theirs < report.need and report.need <= left then
      local wait = now < record.back and record.back - now or patience(report)
      return 0, max(1, min(wait, ends_at(record) - now)), 0
    end
    left = left - theirs
  end
  if left >= report.need then
    return share_out(record, client, report, left, now)
  end
  return grant_when_spent(record, client, report, now)
end

-- What is left, divided among those who ask; nobody runs far ahead of another.
-- Where there is enough for all, nobody has more of it than another by more than the equal share
-- of one of all processes, or half of that of one who asks: who does not ask yet may be about to.
-- Where there is not, one call goes at a time; where others use the quota, too, half is divided.
function share_out(record, client, report, left, now)
  local taken = taken_by(record, now)
  local behind = of_all(min, taken_by(record, now, client)) or math.huge
  local most, stride = left, 0
  if record.size >= ENOUGH * #taken then
    local least = of_all(min, taken)
    stride = ceil(record.size / min(2 * #taken, max(2, #record.clients)))
    most = least + stride - client.taken
    if client.taken > least and most < report.need then
      return 0, patience(report), 0
    end
    local others = {}
    for _, each in ipairs(taken) do
      if each <= least + stride - min(stride, ENOUGH) then
        table.insert(others, each)
      end
    end
    taken = others
  end
  local share = floor(left / #taken)
  if record.presumed > 0 or foreign(record) > 0 then
    share = floor(share / 2)
  elseif stride > 0 then
    share = max(ceil(left / #taken), min(left, ENOUGH))
  elseif share < ENOUGH then
    share = report.need
  end
  local granted = min(report.want, max(report.need, min(share, most)))
  local ahead = client.taken + granted - behind
  local is_last = left - granted < report.need and held_by_all(record) > client.held
  local is_ahead = stride > 0 and ahead > max(0, stride - max(report.need, ENOUGH))
  if granted < report.want and (is_last or is_ahead) then
    -- Who asks again at once would be told so then, or given next to nothing.
    return granted, FIRST_WAIT, 0
  end
  return granted, nil, 0
end

-- Returns what each of those was granted that ask, but for one.
function taken_by(record, now, but)
  local taken = {}
  for _, client in ipairs(record.clients) do
    if client.asks >= now and client ~= but then
      table.insert(taken, client.taken)
    end
  end
  return taken
end

function grant_probe(record, client, report, now)
  local out, last = 0, nil
  for _, each in ipairs(record.clients) do
    if each.probes ~= 0 then
      out, last = out + each.probes, max(last or each.probed, each.probed)
    end
  end
  last = last or now
  local round_trip = record.round_trip ~= 0 and record.round_trip or UNKNOWN_ROUND_TRIP
  local answered = last + round_trip + floor(round_trip / 4)
  local wait = max(answered - now, 0) + 20 * 2 ^ min(report.vain, 5)
  if out > 1 or (out > 0 and now < last + max(2000, 3 * record.round_trip)) then
    return 0, wait, 0
  end
  lease_probe(client, now)
  return report.need, report.want > report.need and wait or nil, record.turn
end

function lease_probe(client, now)
  client.probes = client.probes + 1
  client.probed = now
end

-- Single file, with a gap from grant to grant.
function grant_pace(record, client, report, now)
  if record.gap == 0 then
    return 0, nil, 0
  end
  if record.hold > now then
    return 0, record.hold - now, 0
  end
  if held_by_all(record) > client.held then
    return 0, patience(report), 0
  end
  if client.held ~= 0 then
    return 0, nil, 0 -- until its own call is settled
  end
  record.hold = now + record.gap
  return 1, nil, 0
end

function patience(report)
  return min(LEASE / 2, FIRST_WAIT * 2 ^ min(report.vain, 3))
end

function grant_when_spent(record, client, report, now)
  local held = held_by_all(record)
  local is_told = record.confirmed and record.reset
  if is_told and record.floor[1][2] - report.keep < report.need then
    return 0, until_reset(record, now), 0 -- whatever others hold
  end
  if held > client.held then
    -- What others hold may come back, or turn out to be in the numbers already.
    local wait = patience(report)
    local ends = record.confirmed and record.reset or now + wait
    return 0, max(1, min(wait, ends + record.late - now)), 0
  end
  if held ~= 0 then
    return 0, nil, 0
  end
  local ghosts, clear_after = 0, 0
  for _, ghost in ipairs(record.ghosts) do
    ghosts = ghosts + ghost[3]
    clear_after = max(clear_after, ghost[1])
  end
  local left = left_of(record) - report.keep
  if left < report.need and report.need <= left + ghosts then
    local at = max(record.hold, clear_after)
    if at <= now then
      record.hold = now + 1000
      lease_probe(client, now)
      return report.need, nil, record.turn
    end
    return 0, min(at - now, until_reset(record, now)), 0
  end
  if not record.reset then
    -- Spent, and nobody knows until when.
    doubt(record)
    back_off_refused(record, now)
    return 0, record.hold - now, 0
  end
  return 0, until_reset(record, now), 0
end

function until_reset(record, now)
  return max(1, ends_at(record) - now)
end

-- Leases slots of a schedule: those of the next moments, and one always.
function slots(record, report, now)
  local gap, now = report.gap, 1000 * now
  local slot = max(record.slot, now)
  local opens = slot - (report.limit - report.need) * gap
  local early = opens - now - max(AHEAD, 2 * gap)
  if early > 0 then
    return 0, floor(early / 1000) + 1, 0
  end
  local ahead = floor((now + AHEAD - slot) / gap) + report.limit
  local share = floor(ahead / (2 * #taken_by(record, floor(now / 1000))))
  local granted = min(report.want, max(report.need, share))
  record.slot = slot + granted * gap
  return granted, nil, -floor((now - slot) / 1000)
end

-- Counts tokens as calls of ours, until they come back unused.
function use(record, tokens)
  record.explained = record.explained - tokens
  record.own = record.own + tokens
end

function foreign(record)
  local seen = max(floor(1000 * record.others / max(1, record.own)), record.before)
  return min(MOST_FOREIGN, seen)
end

-- Tokens that others may take while so many of ours are on their way.
function margin(record)
  local expected = max(foreign(record), record.presumed) * held_by_all(record)
  return ceil((expected + floor(sqrt(4000 * expected))) / 1000)
end

-- Tokens of this window that may be with processes which are yet to come, or come back.
function claimed(record, now)
  local missing, awaited = 0, 0
  if now < record.back then
    missing = floor(record.missing * (record.limit or record.size) / record.crew)
  end
  -- Where there are many, a share is kept for each who is about to ask in any case.
  local are_few = record.size < ENOUGH * #record.clients
  for _, client in ipairs(record.clients) do
    if is_awaited(client) and (are_few or now > client.asks) then
      awaited = awaited + 1
    end
  end
  return missing + awaited * share_of_each(record)
end

-- What each process may take of a window for itself: the call that saw it begin is in it.
function share_of_each(record)
  return ceil(max(0, record.size) / max(1, #record.clients))
end

function held_by_all(record)
  local held = 0
  for _, client in ipairs(record.clients) do
    held = held + client.held
  end
  return held
end

function left_of(record)
  local left = record.floor[1][2] - held_by_all(record)
  for _, debt in ipairs(record.unread) do
    left = left - debt[2]
  end
  for _, ghost in ipairs(record.ghosts) do
    left = left - ghost[3]
  end
  return left
end

function lease(record, now, said)
  return {
    granted = said.granted or 0,
    wait = said.wait,
    number = record.number,
    probe = said.probe or 0,
    confirmed = record.confirmed,
    limit = record.limit,
    remaining = record.confirmed and max(0, left_of(record)) or 0,
    resets_in = record.reset and ends_at(record) - now,
    epoch = record.epoch,
    clients = #record.clients,
    shown = #record.shown > 0 and record.shown or nil,
    starts_in = said.starts_in or 0,
    gap = max(record.gap, record.paced_until - now),
    misses = record.misses,
    paused = max(0, record.paused - now),
    pauses = record.paused > now and record.pauses or 0,
    void = said.void or 0,
    stale = said.stale or false,
    span = record.span,
  }
end

-- Time passes -------------------------------------------------------------------------------------

function ends_at(record)
  local latest = record.seen + record.ceiling
  return record.reset and min(record.reset + record.late, latest) or latest
end

-- The reset has passed: nothing is known until a probe has answered.
function pass(record, now)
  if record.number == 0 then
    record.number, record.began = now, now
  end
  if record.confirmed and now >= ends_at(record) then
    doubt(record)
  end
end

function doubt(record)
  record.confirmed = false
  record.number = record.number + 1
  record.reset_number = record.number
  record.turn = record.turn + 1
  for _, client in ipairs(record.clients) do
    client.probes = 0
  end
end

-- Processes without news are dead, or stopped: what they held may have been sent.
function expire(record, now)
  local all = {unpack(record.clients)}
  -- Of all who are given up at one instant, as it was left to each of them until then.
  local share = share_of_each(record)
  for _, client in ipairs(all) do
    if is_awaited(client) and now >= client.awaited then
      give_up(record, client, share, now)
    elseif client.expires ~= 0 and now >= client.expires then
      local held = client.held
      if held ~= 0 then
        record.number = record.number + 1
        add_ghost(record, now + max(1000, 2 * record.round_trip), held)
      end
      if client.probes ~= 0 then
        missed(record, now)
      end
      if held ~= 0 and record.span > 0 then
        client.held, client.probes, client.asks = 0, 0, 0
        client.gone = is_awaited(client) and 0 or now
        client.expires = now + LEASE + record.span
      else
        forget(record, client)
      end
    end
  end
end

-- Awaits a process no longer: what it may have made calls for, a call of another one tells.
function give_up(record, client, share, now)
  if record.confirmed then
    record.number = record.number + 1
    add_ghost(record, now, share)
  end
  client.gone, client.asks = now, 0
  if client.held == 0 and client.probes == 0 then
    client.expires = max(client.expires, now + LEASE + record.span)
  end
end

function make_room(record)
  if #record.clients < MOST_CLIENTS then
    return
  end
  local idlest
  for _, each in ipairs(record.clients) do
    if each.held == 0 and each.probes == 0 and (not idlest or each.expires < idlest.expires) then
      idlest = each
    end
  end
  if idlest then
    forget(record, idlest)
  end
end

-- Notes -------------------------------------------------------------------------------------------

function take_in(record, client, note, now, is_cold)
  record.number = record.number + 1
  local is_probe = note.probe == record.turn
  if note.outcome == "read" then
    read(record, note, now, is_probe)
  elseif note.outcome == "unread" then
    record.misses = 0
    if is_cold then
      record.blank = min(record.blank + note.times, MOST_BLANK)
      confirmed(record)
    else
      owe(record, record.unread, note.cost)
    end
  elseif note.outcome == "refused" then
    record.blank = floor(record.blank / 2)
    owe(record, record.unread, note.cost)
    if is_probe then
      record.misses = 0
      back_off_refused(record, now)
    end
  elseif note.outcome == "unsent" then
    if is_probe then
      found_nobody(record, client, now)
    end
  elseif note.outcome == "cached" then
    add_ghost(record, now - note.ago, note.cost)
  else
    record.blank = floor(record.blank / 2)
    local span = note.outcome == "failed" and 0 or max(1000, 2 * record.round_trip)
    add_ghost(record, now - note.ago + span, note.cost)
    if is_probe then
      missed(record, now)
    end
  end
end

-- Grows with a refusal, unless the call went before the last growth; shrinks by 5 % else.
function take_pace(record, note, now)
  if note.outcome == "refused" and note.known >= record.reset_number then
    while #record.gaps > 0 and record.gaps[#record.gaps][2] <= record.gap do
      table.remove(record.gaps)
    end
    table.insert(record.gaps, {now, record.gap})
    record.gap = min(LONGEST_BACKOFF, max(FIRST_GAP, 2 * record.gap))
    record.number = record.number + 1
    record.reset_number = record.number
    record.hold = max(record.hold, now + record.gap)
  elseif note.outcome == "read" and record.gap ~= 0 then
    local gaps = {}
    for _, each in ipairs(record.gaps) do
      if each[1] >= now - GAP_MEMORY then
        table.insert(gaps, each)
      end
    end
    record.gaps = gaps
    local least = #gaps > 0 and min(LONGEST_BACKOFF, floor(gaps[1][2] * 11 / 10)) or 0
    record.gap = max(floor(record.gap * 95 / 100), least)
    if record.gap < SMALLEST_GAP then
      record.gap = 0
    end
  end
end

function read(record, note, now, is_probe)
  record.limit = note.limit or record.limit
  if note.refused then
    use(record, -note.cost)
    if note.remaining >= note.cost then
      -- A limit that no header shows: whoever asks next is to keep a pace with the others.
      record.paced_until = now + LEASE
    end
  end
  record.answered = min(record.answered + note.times, SLOW_START)
  local took = min(note.took, LONGEST_ROUND_TRIP)
  record.round_trip = max(took, record.round_trip + floor((took - record.round_trip) / 16))
  if record.confirmed then
    fold(record, note, now)
  else
    answer_probe(record, note, now, is_probe)
  end
end

-- Before the reset every answer speaks of the current window, or of an older one.
function fold(record, note, now)
  local usable = is_usable(record, note)
  if is_earlier(record, note, now) and note.known < record.reset_number then
    if not usable then
      return -- of a window that has passed
    end
    if note.remaining < record.floor[1][2] then
      -- Not surely older: back ends disagree. Until a later call tells, it counts.
      owe(record, record.unread, note.cost)
      return
    end
  end
  clear_debts(record, note, now)
  if usable and note.remaining > record.floor[1][2] and is_of_next(record, note, now) then
    open_window(record, note, now, true)
    return
  end
  while #record.floor > 0 and record.floor[1][1] <= note.known do
    table.remove(record.floor, 1)
  end
  observe(record, note.remaining)
  if not is_placed(record, note, now) then
    owe(record, record.unplaced, note.cost)
  end
  confirmed(record)
  record.others = max(record.others, record.explained - note.remaining)
  if usable then
    move_reset(record, note, now)
  end
  record.seen = now
end

-- After the reset only a later one opens the window; the old one means: not yet.
function answer_probe(record, note, now, is_probe)
  if not record.reset and note.known < record.reset_number and note.remaining > 0 then
    owe(record, record.unread, note.cost)
  elseif
    is_usable(record, note)
    and not is_same(record, note, now)
    and not is_earlier(record, note, now)
  then
    if is_probe and not note.refused then
      learn_lateness(record, now - note.ago - note.took)
    end
    clear_debts(record, note, now)
    open_window(record, note, now, true)
  elseif note.known < record.reset_number then
    -- A slow answer of the window before, or one that cannot be placed.
    if not note.resets_in then
      owe(record, record.unread, note.cost)
    elseif is_same(record, note, now) then
      -- It counts if that window turns out to go on: a probe may have been ahead of it.
      observe(record, note.remaining)
    end
  else
    clear_debts(record, note, now)
    if note.refused or note.remaining <= 0 then
      record.misses = 0
      back_off_refused(record, now)
    else
      -- The old window goes on, or no reset is told. Its tokens are real.
      if note.resets_in then
        note.remaining = least(record, note)
      end
      open_window(record, note, now, false)
    end
  end
end

-- Returns what is left by a probe, or by calls that told of that window since it went.
function least(record, note)
  local left = note.remaining
  for _, each in ipairs(record.floor) do
    if each[1] > note.known then
      left = min(left, each[2])
    end
  end
  return left
end

function open_window(record, note, now, is_placed)
  for _, debt in ipairs(record.unplaced) do
    add_ghost(record, now, debt[2])
  end
  record.floor, record.unplaced = {}, {}
  observe(record, note.remaining)
  if record.seen ~= 0 then
    record.presumed = 0
    record.before = floor(record.before / 2)
    record.before = foreign(record)
  end
  await_again(record, now)
  record.others, record.own = 0, 0
  record.explained = left_of(record)
  record.size = record.explained
  record.confirmed = true
  confirmed(record)
  record.doubts = 0
  if is_placed and note.resets_in then
    -- Seen from its very start only after a rollover; else the longest seen counts.
    record.span = record.reset and lasts(note) or max(record.span, lasts(note))
    record.reset, record.epoch = now + note.resets_in, note.epoch
    record.reset_number = record.number
  else
    record.reset, record.epoch = nil, nil
  end
  record.seen = now
end

-- Leaves its share of the next window to each that may be cut off, until it seems to be dead.
-- It is there as long as others than ours use about a share for each that does not come.
function await_again(record, now)
  local all = {unpack(record.clients)}
  local share, used = share_of_each(record), record.others
  for _, client in ipairs(all) do
    client.taken = 0
    if client.awaited ~= 0 and client.gone ~= 0 then
      local is_there = used > 0 and 2 * used >= share
      used = used - share
      client.vain = is_there and 0 or client.vain + 1
      if client.vain >= MOST_VAIN then
        forget(record, client)
      end
    end
    if client.gone ~= 0 or client.asks ~= 0 then
      client.gone, client.awaited = 0, now + AWAITED
    end
  end
end

function observe(record, remaining)
  record.number = record.number + 1
  while #record.floor > 0 and record.floor[#record.floor][2] >= remaining do
    table.remove(record.floor)
  end
  table.insert(record.floor, {record.number, remaining})
end

-- Of two resets the later stands, unless answer after answer says otherwise.
-- Of one reset the earliest bound stands: each is one that the reset comes before.
function move_reset(record, note, now)
  local at = now + (note.resets_in or 0)
  if not record.reset then
    record.span = max(record.span, lasts(note))
    record.reset, record.epoch = at, note.epoch
    record.reset_number = record.number
    return
  end
  local apart = apart_by(record, note, now)
  if apart == 0 or (not note.epoch and abs(apart) <= ROUNDING) then
    record.reset = min(record.reset, at)
    record.doubts = 0
  elseif apart > 0 then
    if not is_same(record, note, now) then
      record.reset_number = record.number
    end
    record.reset, record.epoch = at, note.epoch
    record.doubts = 0
  elseif is_same(record, note, now) then
    record.doubts = 0
  else
    record.doubts = record.doubts + 1
    if record.doubts >= DOUBTS then
      record.reset, record.epoch, record.doubts = at, note.epoch, 0
    end
  end
end

-- Returns how long a window is that an answer has begun: no longer than by its own Date.
function lasts(note)
  return note.lasts or note.resets_in or 0
end

function apart_by(record, note, now)
  if note.epoch and record.epoch then
    return note.epoch - record.epoch
  end
  return now + (note.resets_in or 0) - (record.reset or 0)
end

function is_usable(record, note)
  return note.resets_in and 0 < note.resets_in and note.resets_in <= record.ceiling
end

-- Whether an answer surely tells of the window that goes on, or of one before it.
function is_placed(record, note, now)
  if not note.resets_in then
    return false
  end
  return is_usable(record, note) or apart_by(record, note, now) <= SAME_RESET
end

function is_same(record, note, now)
  if not note.resets_in or not record.reset then
    return false
  end
  return abs(apart_by(record, note, now)) <= min(SAME_RESET, floor(record.span / 2))
end

function is_earlier(record, note, now)
  if not note.resets_in or not record.reset or is_same(record, note, now) then
    return false
  end
  return apart_by(record, note, now) < 0
end

function is_of_next(record, note, now)
  if not record.reset then
    return false
  end
  return apart_by(record, note, now) > max(OTHER_BACK_END, floor(record.span / 2))
end

-- A server that refused at its own reset will do so again; clean rollovers forget it.
function learn_lateness(record, sent)
  if not record.reset then
    return
  end
  if record.refusals > 0 then
    local found = min(sent, record.hold + FOUND_SOON)
    record.relapses = record.late ~= 0 and min(record.relapses + 1, MOST_RELAPSES) or 0
    record.clean = 0
    record.late = max(0, found - record.reset)
  else
    record.clean = record.clean + 1
    if record.clean >= 2 ^ record.relapses then
      record.clean = 0
      record.late = floor(record.late / 2)
    end
  end
  if record.late < LEAST_LATENESS then
    record.late = 0
  end
end

-- Debts and back-off ------------------------------------------------------------------------------

function owe(record, debts, cost)
  if #debts >= MOST_DEBTS then
    cost = cost + table.remove(debts)[2]
  end
  table.insert(debts, {record.number, cost})
end

function add_ghost(record, after, cost)
  if #record.ghosts >= MOST_DEBTS then
    local last = table.remove(record.ghosts)
    after, cost = max(last[1], after), cost + last[3]
  end
  table.insert(record.ghosts, {after, record.number, cost})
end

-- Forgets what a reading has in it: of a call sent then, knowing that number.
function clear_debts(record, note, now)
  local sent = now - note.ago - note.took
  local unread, unplaced, ghosts = {}, {}, {}
  for _, each in ipairs(record.unread) do
    if each[1] > note.known then
      table.insert(unread, each)
    end
  end
  for _, each in ipairs(record.unplaced) do
    if each[1] > note.known then
      table.insert(unplaced, each)
    end
  end
  for _, each in ipairs(record.ghosts) do
    if each[1] > sent or each[2] > note.known then
      table.insert(ghosts, each)
    end
  end
  record.unread, record.unplaced, record.ghosts = unread, unplaced, ghosts
end

function backoff(times)
  return min(LONGEST_BACKOFF, 1000 * 2 ^ min(times, 6))
end

-- Backs off after a probe without an answer: the next at once, then 1, 2, 4 ... 60 s.
function missed(record, now)
  record.misses = record.misses + 1
  record.absent = 0
  if record.misses > 1 then
    record.hold = max(record.hold, now + backoff(record.misses - 2))
  end
end

-- Backs off likewise, once for all who find nobody there before the back-off is over.
function found_nobody(record, client, now)
  if record.hold <= now then
    missed(record, now)
    record.absent = record.number
  elseif record.absent == 0 then
    missed(record, now)
  end
  client.tried = record.number
end

function back_off_refused(record, now)
  record.hold = max(record.hold, now + backoff(record.refusals))
  record.refusals = record.refusals + 1
  record.absent = 0
end

function confirmed(record)
  record.misses, record.refusals, record.hold, record.absent = 0, 0, 0, 0
end

-- The keys ----------------------------------------------------------------------------------------

local function load_all()
  local records, is_fresh = {}, {}
  for _, key in ipairs(KEYS) do
    local text = redis.pcall("GET", key)
    records[key] = (type(text) == "string" or not text) and loads(text)
    is_fresh[key] = not text
    if not records[key] then
      return nil, nil, "FOREIGN " .. key .. " holds something else"
    end
  end
  return records, is_fresh
end

-- What is said, field by field ----------------------------------------------------------------------

local NOTE = {
  "number", "outcome", "cost", "known", "took", "ago", "probe", "refused", "times", "remaining",
  "limit", "epoch", "resets_in", "lasts",
}
local REPORT = {
  "record", "client", "sequence", "counts", "held", "notes", "want", "need", "keep", "vain",
  "probes", "leaves", "crew", "ceiling", "shut", "paused", "pauses", "shown", "limit", "gap",
  "idle", "peers",
}
local LEASED = {
  "granted", "wait", "number", "probe", "confirmed", "limit", "remaining", "resets_in", "epoch",
  "clients", "shown", "starts_in", "gap", "misses", "paused", "pauses", "void", "stale", "span",
  "fresh",
}

local function named(row, names)
  local said = {}
  for place, name in ipairs(names) do
    if row[place] ~= cjson.null then
      said[name] = row[place]
    end
  end
  return said
end

local function read_report(row)
  local report = named(row, REPORT)
  for place, note in ipairs(report.notes) do
    report.notes[place] = named(note, NOTE)
  end
  return report
end

local function listed(leased)
  local row = {}
  for place, name in ipairs(LEASED) do
    row[place] = leased[name]
    if row[place] == nil then
      row[place] = cjson.null
    end
  end
  return row
end

local records, is_fresh, failure = load_all()
if failure then
  return redis.error_reply(failure)
end
local time = redis.call("TIME")
local now = tonumber(ARGV[2]) or time[1] * 1000 + floor(time[2] / 1000)
local leases = {}
for place, row in ipairs(cjson.decode(ARGV[1])) do
  local key = KEYS[place]
  local leased = exchange(records[key], read_report(row), now)
  leased.fresh = is_fresh[key]
  leases[place] = listed(leased)
end
for key, record in pairs(records) do
  redis.call("SET", key, dumps(record), "PX", string.format("%.0f", lifetime(record, now)))
end
return cjson.encode(leases)
