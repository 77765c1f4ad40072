-- Positions: one clock for durable messages and ticks, a capped Redis Stream for each channel, and what is needed to
-- tell later whether something is missing. The same text is a Redis Function library and a set of scripts, see
-- library.py.
--
-- Keys, in the gateway's database (CHANNEL includes the prefix):
--   gateway.positions        hash, all that must be lost together or not at all:
--                              clock       the newest number issued
--                              generation  which history the numbers belong to
--                              owner       run_id:replid of the server that began the generation
--                              ticked      number of the generation's newest tick, 0: none yet
--                              ticked_ms   when that was, by the server's clock
--                              lineage     "generation:end,…", ended generations, oldest first
--                              n:CHANNEL   position of the channel's newest durable message
--                              db          number of the database, which a function can't ask for: the newest tick's
--                              pruned      "generation.number" of the newest message whose n: field was removed
--                              older       newest number of this generation issued by the previous version, 0: none
--                              step, cut   when `cut` was computed; all smaller entry ids are older than AGE
--   gateway.stream:CHANNEL   Redis Stream; entry GENERATION-NUMBER: d message, t tick, p position of the channel's
--                            previous durable message ('': none known). The previous version's have only d, and its
--                            workers take the first field for the message.
--   gateway.end:CHANNEL      position of the message that says that the channel is over; gone once there is another, or
--                            after END_AGE
--   gateway.ages             zset: CHANNEL, when its newest durable message came. Losing it is harmless: n: stays.
--   gateway.checkpoints      zset: entry id, when it was issued. Losing it is harmless: messages are kept for longer.
--   gateway.clock            the previous version's clock, so that its workers can run beside this one's.
-- A position is GENERATION.TICK.NUMBER; within a generation the number alone gives the order.

local EVENTS, AGE, MAX_BYTES = @EVENTS@, @AGE_MS@, @MAX_BYTES@  -- AGE 0: no limit of age
local END_AGE = @END_AGE_MS@
-- Between checkpoints: what a minute is to a day. Redis 7.0 has no `math` while a library is being loaded.
local STEP = AGE < 1440 and 1 or (AGE - AGE % 1440) / 1440
local MARK = '\30gateway:'
local END = MARK .. 'end'  -- what a message is that says that its channel is over; nobody else can publish one
local RESERVED = 'gateway.'
local SECRET = '@SECRET@'
local SECRET_KEY = '@SECRET_KEY@'  -- holds the secret in force where there are no Functions; else empty
local POSITIONS, CLOCK, AGES, CHECKPOINTS = 'gateway.positions', 'gateway.clock', 'gateway.ages', 'gateway.checkpoints'
local EPOCH_MS = 1700000000000
local FIRST_GENERATION = 1e13  -- above every entry id of the previous version, which begins with 13 digits of unix ms
local ANCESTORS = 64  -- ended generations that are remembered
local PAGE = 128  -- most entries read from a Redis Stream at once

-- Which server this is, and which history it continues. run_id changes at a restart, replid at a restart and at a
-- promotion. But replid also changes when a master gets its first replica, or has had none for an hour: then replid2,
-- which a promotion fills with the old one, is zero (replication.c, changeReplicationId and clearReplicationId2), and
-- nothing has happened to the data. INFO server costs 4.4 µs
-- here and INFO replication 1.7 µs. A library's variable lives as long as the process, and so does run_id: FCALL asks
-- once. A script's variables end with the call: it asks each time, because the only place that outlives it, a key,
-- also outlives the server.
local run_id
local function identity()
  -- fakeredis has no INFO, and its keys end with it. A server that knows REDIS_VERSION (7.0) has acl_check_cmd, too.
  if not redis.sha1hex or (redis.REDIS_VERSION and not redis.acl_check_cmd) then return 'embedded', 'embedded', false end
  if not run_id then run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '' end
  local replication = redis.call('INFO', 'replication')
  local never_promoted = string.find(replication, 'role:master', 1, true)
    and string.find(replication, 'master_replid2:' .. string.rep('0', 40), 1, true)
  return run_id, string.match(replication, 'master_replid:(%x+)') or '', never_promoted
end

local function text(number)
  return string.format('%.0f', number)
end

-- What only the gateway can write, because nobody else knows the secret, and where it counts: see signature.py, which
-- does the same.
local function signature(where, said)
  if SECRET == '' then return '' end
  local secret = SECRET
  if SECRET_KEY ~= '' then
    -- The worker whose script this is may not know yet that there is another.
    local kept = redis.pcall('GET', SECRET_KEY)
    secret = type(kept) == 'string' and string.match(kept, '^%S+') or secret
  end
  return string.sub(redis.sha1hex(secret .. redis.sha1hex(secret .. where .. '\0' .. said)), 1, 20)
end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function entry_id(generation, number)
  return string.format('%.0f-%.0f', generation, number)
end

local function parse_entry_id(id)
  local generation, number = string.match(id or '', '^(%d+)-(%d+)$')
  return tonumber(generation or 0), tonumber(number or 0)
end

local function parse_position(position)
  local generation, number = string.match(position or '', '^(%d+)%.%d+%.(%d+)$')
  return tonumber(generation or 0), tonumber(number or 0)
end

local function parse_pruned(pruned)
  local generation, number = string.match(pruned or '', '^(%d+)%.(%d+)$')
  return tonumber(generation or 0), tonumber(number or 0)
end

local function later(generation, number, than_generation, than_number)
  return generation > than_generation or (generation == than_generation and number > than_number)
end

-- A script of the previous version continues from `last`: what it has issued is issued. Returns the generation in
-- `last`, and `birth`.
local function include_previous_version(state)
  local clock = redis.call('HMGET', CLOCK, 'last', 'birth')
  local generation, number = parse_entry_id(clock[1])
  if generation == state.generation and number > state.clock then state.clock, state.older = number, number end
  return generation, clock[2]
end

local function begin_generation(state, owner)
  local counted = include_previous_version(state)
  local lineage = {}
  for ended in string.gmatch(redis.call('HGET', POSITIONS, 'lineage') or '', '[^,]+') do
    table.insert(lineage, ended)
  end
  if state.generation > 0 then
    table.insert(lineage, string.format('%.0f:%.0f', state.generation, state.clock))
    if #lineage > ANCESTORS then table.remove(lineage, 1) end
  end
  -- Microseconds, because FLUSHALL can come twice in a millisecond; two bits of the owner, because two servers can
  -- begin in the same microsecond.
  local us = now_us()
  local ms = math.floor(us / 1000)
  local salt = redis.sha1hex and tonumber(string.sub(redis.sha1hex(owner), 1, 1), 16) % 4 or 0
  local made = (ms - EPOCH_MS) * 4096 + (us - ms * 1000) * 4 + salt
  state.generation = math.max(made, state.generation + 1, counted + 1, FIRST_GENERATION)
  state.clock = state.clock + 1
  state.ticked, state.ticked_ms, state.older = 0, 0, 0
  redis.call(
    'HSET', POSITIONS, 'generation', text(state.generation), 'clock', text(state.clock), 'owner', owner, 'ticked', '0',
    'ticked_ms', '0', 'older', '0', 'lineage', table.concat(lineage, ',')
  )
  redis.call('HSET', CLOCK, 'last', entry_id(state.generation, state.clock))
  -- Workers of the previous version take `birth` for the time since when nothing has been lost.
  if counted >= FIRST_GENERATION then
    redis.call('HSET', CLOCK, 'birth', entry_id(state.generation, 0))
  else
    redis.call('HSETNX', CLOCK, 'birth', entry_id(ms, 0))
  end
end

-- Every function begins here, so that no number and no answer belongs to a history this server doesn't continue.
-- Returns the state, and the further fields asked for. On a read-only replica, beginning a generation is an error.
local function begin(...)
  local started, replid, never_promoted = identity()
  local owner = started .. ':' .. replid
  local fields = redis.call(
    'HMGET', POSITIONS, 'generation', 'clock', 'ticked', 'ticked_ms', 'older', 'owner', ...
  )
  local state = {
    generation = tonumber(fields[1] or 0), clock = tonumber(fields[2] or 0), ticked = tonumber(fields[3] or 0),
    ticked_ms = tonumber(fields[4] or 0), older = tonumber(fields[5] or 0),
    identity = string.sub(started, 1, 16),
  }
  if fields[6] ~= owner then
    if never_promoted and fields[6] and string.sub(fields[6], 1, #started + 1) == started .. ':' then
      redis.call('HSET', POSITIONS, 'owner', owner)
    else
      begin_generation(state, owner)
    end
  end
  return state, unpack(fields, 7, 6 + select('#', ...))
end

-- Counts on; the caller stores the state's clock and older.
local function issue(state)
  local _, birth = include_previous_version(state)
  state.clock = state.clock + 1
  redis.call('HSET', CLOCK, 'last', entry_id(state.generation, state.clock))
  if not birth then redis.call('HSET', CLOCK, 'birth', entry_id(math.floor(now_us() / 1000), 0)) end
end

-- ARGV: the channel for ticks, generation and number of the newest tick heard (0 0: none), least ms between two ticks.
-- Returns {generation, number of the newest tick, ms to wait before asking again or 0}. A worker that has heard none
-- doesn't know whether the newest was before or after it subscribed, so it needs one of its own. The channel ends with
-- the number of the database.
local function tick(keys, args)
  local channel, spacing = args[1], tonumber(args[4])
  local seen_generation, seen_tick = tonumber(args[2]), tonumber(args[3])
  local state, known_db = begin('db')
  if state.ticked > 0 then
    local on_its_way = seen_generation ~= state.generation or seen_tick < state.ticked
    if on_its_way and seen_generation > 0 then return { state.generation, state.ticked, 0 } end
  end
  local now = math.floor(now_us() / 1000)
  local age = now - state.ticked_ms
  -- An age below zero: the server's clock was set back, and nobody can tell how long ago the last tick was.
  if state.ticked > 0 and age >= 0 and age < spacing then
    return { state.generation, state.ticked, math.ceil(spacing - age) }
  end
  issue(state)
  state.ticked = state.clock
  redis.call(
    'HSET', POSITIONS, 'clock', text(state.clock), 'older', text(state.older), 'ticked', text(state.ticked),
    'ticked_ms', text(now)
  )
  local db = string.match(channel, '%.(%d+)$') or ''
  if db ~= known_db then redis.call('HSET', POSITIONS, 'db', db) end
  local lineage = redis.call('HGET', POSITIONS, 'lineage') or ''
  local payload = string.format('3 %.0f %.0f %s %s', state.generation, state.clock, state.identity, lineage)
  redis.call('PUBLISH', channel, payload .. ' ' .. signature(channel, payload))
  return { state.generation, state.ticked, 0 }
end

-- The position that the channel's next message names as its predecessor. The previous version's messages are not in n:,
-- so while its workers run, or where nothing is known, the Redis Stream is looked at.
local function predecessor(state, key, known)
  local known_generation, known_number = parse_position(known)
  if known and (state.older == 0 or later(known_generation, known_number, state.generation, state.older)) then
    return known
  end
  local top = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  local generation, number = parse_entry_id(top and top[1])
  if known and generation == known_generation and number == known_number then return known end
  if generation == state.generation and later(generation, number, known_generation, known_number) then
    return string.format('%.0f.0.%.0f', generation, number)
  end
  -- The newest known is gone, and so may be one of the previous version: its newest number may be this channel's.
  if known then return string.format('%.0f.0.%.0f', state.generation, state.older) end
  -- Something came before this generation; what came between that and the next message, nobody knows.
  return top and string.format('%.0f.0.0', state.generation) or ''
end

-- Entry ids are not times. The first id in each STEP is remembered with its time; all ids below the newest of those
-- that are older than AGE are older than AGE.
local function checkpoint(state, now)
  redis.call('ZADD', CHECKPOINTS, text(now), entry_id(state.generation, state.clock))
  local reached = redis.call('ZREVRANGEBYSCORE', CHECKPOINTS, text(now - AGE), '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if reached[1] then redis.call('ZREMRANGEBYSCORE', CHECKPOINTS, '-inf', '(' .. reached[2]) end
  redis.call('HSET', POSITIONS, 'step', text(math.floor(now / STEP)), 'cut', reached[1] or '')
  return reached[1]
end

-- Forget the newest positions of channels whose messages are gone, a few at a time. The newest message of such a
-- channel may have been the previous version's.
local function prune(state, now, pruned)
  local old = redis.call('ZRANGEBYSCORE', AGES, '-inf', text(now - AGE), 'LIMIT', 0, 2)
  for _, channel in ipairs(old) do
    if redis.call('EXISTS', 'gateway.stream:' .. channel) == 1 then
      redis.call('ZADD', AGES, text(now), channel)  -- looked at again later, or it would hide all behind it
    else
      local generation, number = parse_position(redis.call('HGET', POSITIONS, 'n:' .. channel))
      if state.older > 0 and later(state.generation, state.older, generation, number) then
        generation, number = state.generation, state.older
      end
      if later(generation, number, parse_pruned(pruned)) then
        pruned = string.format('%.0f.%.0f', generation, number)
        redis.call('HSET', POSITIONS, 'pruned', pruned)
      end
      redis.call('HDEL', POSITIONS, 'n:' .. channel)
      redis.call('ZREM', AGES, channel)
    end
  end
end

-- C0 and DEL; C1, and Unicode's line separators.
local function has_control(name)
  return string.find(name, '%c') or string.find(name, '\194[\128-\159]') or string.find(name, '\226\128[\168\169]')
end

-- Why this message can't be published, or nil. Nobody could be sent it otherwise: names.py and event.py refuse the same.
-- Whether it is UTF-8 isn't looked at, as Lua would take longer for that than for all the rest.
local function fault(channel, message)
  if channel == '' then return 'ERR the channel is empty' end
  if string.sub(channel, 1, #RESERVED) == RESERVED then
    return "ERR channels whose names begin with 'gateway.' are the gateway's own"
  end
  if string.find(channel, '[%c\194\226]') and has_control(channel) then
    return "ERR the channel's name has a control character"
  end
  if #message > MAX_BYTES then
    return string.format('ERR the message has %d bytes; max_payload_bytes is %d', #message, MAX_BYTES)
  end
  if string.sub(message, 1, #MARK) == MARK then return 'ERR the message begins with the mark of a durable one' end
  -- PUBLISH comes last, and a function has the rights of its caller. Redis before 7.0 can't be asked, but it has no
  -- functions either: only workers publish with this there.
  if type(redis.acl_check_cmd) == 'function' and not redis.acl_check_cmd('PUBLISH', channel, '') then
    return "NOPERM Redis' ACL doesn't let this user publish on the channel"
  end
end

-- What keeps messages no longer than AGE.
local function expire(state, key, channel, now, pruned, step, cut)
  redis.call('PEXPIRE', key, AGE)
  redis.call('ZADD', AGES, text(now), channel)
  if step ~= text(math.floor(now / STEP)) then cut = checkpoint(state, now) end
  if cut and cut ~= '' then redis.call('XTRIM', key, 'MINID', '~', cut) end
  prune(state, now, pruned)
end

-- Keeps a message and publishes it; returns its position.
local function keep(channel, message)
  local now = AGE > 0 and math.floor(now_us() / 1000)
  local key = 'gateway.stream:' .. channel
  local state, known, pruned, step, cut, db = begin('n:' .. channel, 'pruned', 'step', 'cut', 'db')
  issue(state)
  local id = entry_id(state.generation, state.clock)
  local position = string.format('%.0f.%.0f.%.0f', state.generation, state.ticked, state.clock)
  local prior = predecessor(state, key, known)
  local function add(call)
    return call('XADD', key, 'MAXLEN', '~', EVENTS, id, 'd', message, 't', text(state.ticked), 'p', prior)
  end
  local added = add(redis.pcall)
  if type(added) == 'table' and added.err then
    -- A lost history may have run ahead of this one (the server's clock was set back as well). It is not this one's
    -- past. Any other error comes again, and reaches the caller.
    if string.find(tostring(added.err), 'equal or smaller', 1, true) then redis.call('DEL', key) end
    add(redis.call)
  end
  redis.call(
    'HSET', POSITIONS, 'clock', text(state.clock), 'older', text(state.older), 'n:' .. channel, position
  )
  local number = string.format('%.0f-%010.0f', state.generation, state.clock)
  -- A new database has no number until its first tick.
  local mark = SECRET == '' and '' or ' ' .. signature(db or '', number .. ' ' .. channel)
  if message == END then
    redis.call('SET', 'gateway.end:' .. channel, position, 'PX', END_AGE)
  else
    redis.call('DEL', 'gateway.end:' .. channel)
  end
  redis.call('PUBLISH', channel, MARK .. number .. mark .. '\n' .. message)
  -- The message is on its way. With an error, for a key of somebody else's, its publisher would send it again.
  if now then pcall(expire, state, key, channel, now, pruned, step, cut) end
  return position
end

-- KEYS: channel. ARGV: message. Returns the message's position.
local function publish(keys, args)
  local channel, message = keys[1], args[1]
  if not channel or not message or #keys ~= 1 or #args ~= 1 then
    return redis.error_reply('ERR one channel and one message, such as: FCALL gateway_publish 1 news hello')
  end
  local why = fault(channel, message)
  if why then return redis.error_reply(why) end
  return keep(channel, message)
end

-- KEYS: channel, which is over from here on, until something else is published on it. Returns the position of its end;
-- if it is over already, that of the former end.
local function finish(keys, args)
  local channel = keys[1]
  if not channel or #keys ~= 1 or #args ~= 0 then
    return redis.error_reply('ERR one channel, such as: FCALL gateway_end 1 news')
  end
  local why = fault(channel, '')
  if why then return redis.error_reply(why) end
  local known = redis.pcall('GET', 'gateway.end:' .. channel)
  return type(known) == 'string' and known or keep(channel, END)
end

-- Reads a channel's Redis Stream from its newest wanted entry backwards, in pages that grow: what is not handed out is
-- hardly read either. Afterwards the cursor stands on `entry`, with its tick, prior and message. Returns false at the
-- end.
local function advance(cursor)
  local entry = cursor.page[cursor.at]
  if not entry and not cursor.ended then
    cursor.size = math.min(PAGE, 2 * cursor.size)
    local page = redis.pcall('XREVRANGE', cursor.key, cursor.edge, cursor.oldest, 'COUNT', cursor.size)
    -- Somebody else's key of that name, of another type: it must not cost the other channels their history.
    if page.err then cursor.broken, page = true, {} end
    cursor.page = page
    cursor.at, cursor.ended = 1, #cursor.page < cursor.size
    if not cursor.ended then cursor.edge = '(' .. cursor.page[cursor.size][1] end
    entry = cursor.page[1]
  end
  if not entry then return false end
  cursor.at = cursor.at + 1
  local id, fields = entry[1], entry[2]
  local dash = string.find(id, '-', 1, true)
  local generation, number = string.sub(id, 1, dash - 1), string.sub(id, dash + 1)
  cursor.entry, cursor.generation, cursor.number = entry, tonumber(generation), tonumber(number)
  -- The previous version's have neither tick nor prior.
  entry.message, entry.tick, entry.prior = fields[2], fields[4] or '0', fields[6]
  entry.position = generation .. '.' .. entry.tick .. '.' .. number
  return true
end

-- Adds the element at `place` to the heap below it; the newest is on top.
local function sift(heap, place)
  local moved = heap[place]
  while true do
    local child = 2 * place
    local left, right = heap[child], heap[child + 1]
    if not left then break end
    if right and later(right.generation, right.number, left.generation, left.number) then
      child, left = child + 1, right
    end
    if not later(left.generation, left.number, moved.generation, moved.number) then break end
    heap[place], place = left, child
  end
  heap[place] = moved
end

-- Collects the newest entries of all cursors, at most `limit` and about `room` bytes of messages (one always fits), in
-- each cursor's `found`, newest first. A cursor that was not read to its end is `cut`. Of cursors with the same `group`,
-- together no more than its `left` are wanted; nothing that isn't later than the `floor`, if there is one.
local function collect(cursors, limit, room, floor)
  local heap = {}
  for _, cursor in ipairs(cursors) do
    cursor.page, cursor.at, cursor.size, cursor.found = {}, 1, 1, {}
    if advance(cursor) then table.insert(heap, cursor) end
  end
  for place = math.floor(#heap / 2), 1, -1 do sift(heap, place) end
  local count = 0
  while heap[1] do
    local cursor = heap[1]
    if floor and not later(cursor.generation, cursor.number, floor.generation, floor.number) then break end
    local wanted = not cursor.group or cursor.group.left > 0
    if wanted then
      room = room - #cursor.entry.message
      if count == limit or (room < 0 and count > 0) then break end
      count = count + 1
      cursor.found[#cursor.found + 1] = cursor.entry
      if cursor.group then cursor.group.left = cursor.group.left - 1 end
    end
    if not wanted or not advance(cursor) then
      heap[1] = heap[#heap]
      table.remove(heap)
    end
    if heap[1] then sift(heap, 1) end
  end
  for _, cursor in ipairs(heap) do cursor.cut = not cursor.group or cursor.group.left > 0 end
end

-- What was found, oldest first: id, tick, prior, message in turn.
local function flat(found)
  local list = {}
  for place = #found, 1, -1 do
    local entry, size = found[place], #list
    list[size + 1], list[size + 2] = entry[1], entry.tick
    list[size + 3], list[size + 4] = entry.prior or '', entry.message
  end
  return list
end

-- Whether the entries found are all there ever were in the cursor's range: a chain from its end to its beginning.
-- `known` is the position of the channel's newest message.
local function is_whole(state, cursor, lineage, known, pruned)
  local function after_beginning(generation, number)
    return later(generation, number, cursor.from_generation, cursor.from_number)
  end
  local from_the_first = cursor.from_generation == 0 and cursor.from_number == 0 and lineage == ''
  if cursor.cut or cursor.broken or cursor.to_generation ~= state.generation then return false end
  if cursor.from_generation ~= state.generation and not from_the_first then return false end
  local forgotten = after_beginning(parse_pruned(pruned))
  if not known then return #cursor.found == 0 and not forgotten end
  local known_generation, known_number = parse_position(known)
  if #cursor.found == 0 and after_beginning(state.generation, state.older) then
    -- One of the previous version, which `known` leaves out, would be found, unless all of them are gone.
    if redis.call('XLEN', cursor.key) == 0 then return false end
  end

  local expected = known
  if later(known_generation, known_number, cursor.to_generation, cursor.to_number) then
    local edge = '(' .. entry_id(cursor.to_generation, cursor.to_number)
    local following = redis.call('XRANGE', cursor.key, edge, '+', 'COUNT', 1)[1]
    expected = following and following[2][6]
  end
  for _, entry in ipairs(cursor.found) do
    if expected ~= entry.position then return false end
    expected = entry.prior
  end
  if not expected then return false end
  if expected == '' then return not forgotten end
  return not after_beginning(parse_position(expected))
end

-- KEYS: channels. ARGV: limit of events, limit of bytes, then for each channel the generation and number after which it
-- begins (0 0: from the first) and the generation and number with which it ends. The limits are for the whole answer,
-- of which the newest are kept. Returns {generation, lineage, for each channel {1 if whole, -1 if a limit has cut
-- something off, else 0; entries as in `flat`}}.
local function read(keys, args)
  local state, pruned = begin('pruned')
  local lineage = redis.call('HGET', POSITIONS, 'lineage')
  local cursors = {}
  for place, channel in ipairs(keys) do
    local at = 4 * place - 1
    local cursor = {
      key = 'gateway.stream:' .. channel,
      from_generation = tonumber(args[at]), from_number = tonumber(args[at + 1]),
      to_generation = tonumber(args[at + 2]), to_number = tonumber(args[at + 3]),
    }
    cursor.oldest = '(' .. entry_id(cursor.from_generation, cursor.from_number)
    cursor.edge = entry_id(cursor.to_generation, cursor.to_number)
    table.insert(cursors, cursor)
  end
  collect(cursors, tonumber(args[1]), tonumber(args[2]))
  local answer = { state.generation, lineage }
  for place, channel in ipairs(keys) do
    local known = redis.call('HGET', POSITIONS, 'n:' .. channel)
    local whole = is_whole(state, cursors[place], lineage, known, pruned)
    table.insert(answer, { cursors[place].cut and -1 or whole and 1 or 0, flat(cursors[place].found) })
  end
  return answer
end

-- KEYS: channels. ARGV: limit of events, limit of bytes, the generation and number after which it begins (0 0: from the
-- first), those that everything handed out is later than (0 0: nothing), then for each channel its group and the
-- generation and number with which it ends (0 0: no end), then for each group how many of it are wanted. The limits are
-- for the whole answer, of which the newest are kept. Returns for each channel {id of the newest entry that was wanted
-- and not handed out, or ''; entries as in `flat`}.
local function last(keys, args)
  begin()
  local oldest = '(' .. entry_id(tonumber(args[3]), tonumber(args[4]))
  local floor = { generation = tonumber(args[5]), number = tonumber(args[6]) }
  local groups, cursors = {}, {}
  for place = 7 + 3 * #keys, #args do table.insert(groups, { left = tonumber(args[place]) }) end
  for place, channel in ipairs(keys) do
    local at = 4 + 3 * place
    local generation, number = tonumber(args[at + 1]), tonumber(args[at + 2])
    local edge = generation == 0 and number == 0 and '+' or entry_id(generation, number)
    table.insert(cursors, {
      key = 'gateway.stream:' .. channel, edge = edge, oldest = oldest, group = groups[tonumber(args[at])],
    })
  end
  collect(cursors, tonumber(args[1]), tonumber(args[2]), floor)
  local answer = {}
  for _, cursor in ipairs(cursors) do
    table.insert(answer, { cursor.cut and cursor.entry[1] or '', flat(cursor.found) })
  end
  return answer
end
