-- Durable messages: one clock for all channels, a capped stream for each, and what is needed to tell later whether
-- something is missing. The same text is a Redis Function library and a set of scripts, see durable.py.
--
-- Keys, in the database the gateway uses:
--   gateway.clock             hash: `last`, the newest id given; `birth`, since when nothing has been lost
--   gateway.stream:CHANNEL    stream of the channel's messages, field `d`
--   gateway.trimmed:CHANNEL   the newest id that was removed from that stream
--   gateway.mixed:CHANNEL     there, if messages that are not kept were heard on the channel as well

local EVENTS, AGE = @EVENTS@, @AGE_MS@  -- AGE 0: no limit of age
local PAGE, ENOUGH = 100, 1048576  -- entries, bytes
local MARK = '\30gateway:'

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function format_id(ms, seq)
  return string.format('%.0f-%.0f', ms, seq)
end

local function parse_id(id)
  local ms, seq = string.match(id or '', '^(%d+)-(%d+)$')
  return tonumber(ms or 0), tonumber(seq or 0)
end

local function newer(a, b)
  local a_ms, a_seq = parse_id(a)
  local b_ms, b_seq = parse_id(b)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function trim(channel, now)
  local key = 'gateway.stream:' .. channel
  local removed
  -- In steps, because finding out what will be removed costs as much as is removed.
  local surplus = redis.call('XLEN', key) - EVENTS
  if surplus > math.max(16, EVENTS / 10) then
    local oldest = redis.call('XRANGE', key, '-', '+', 'COUNT', surplus)
    removed = oldest[#oldest][1]
    redis.call('XTRIM', key, 'MAXLEN', '=', EVENTS)
  end
  if AGE > 0 then
    local cut = format_id(now - AGE, 0)
    local too_old = redis.call('XREVRANGE', key, '(' .. cut, '-', 'COUNT', 1)
    if #too_old > 0 then
      removed = too_old[1][1]
      redis.call('XTRIM', key, 'MINID', '=', cut)
    end
    redis.call('PEXPIRE', key, AGE)
  end
  local mark = 'gateway.trimmed:' .. channel
  if removed then redis.call('SET', mark, removed) end
  if AGE > 0 then redis.call('PEXPIRE', mark, AGE) end
end

-- KEYS: channel. ARGV: message. Returns the message's id.
local function publish(keys, args)
  local channel, message = keys[1], args[1]
  if not channel or not message or #keys ~= 1 or #args ~= 1 then
    return redis.error_reply('ERR one channel and one message, such as: FCALL gateway_publish 1 news hello')
  end
  if string.sub(message, 1, #MARK) == MARK then
    return redis.error_reply('ERR the message begins with the mark of a durable one')
  end
  local now = now_ms()
  local ms, seq = now, 0
  local last = redis.call('HGET', 'gateway.clock', 'last')
  if last then
    local last_ms, last_seq = parse_id(last)
    if ms <= last_ms then ms, seq = last_ms, last_seq + 1 end
  else
    redis.call('HSET', 'gateway.clock', 'birth', format_id(ms, 0))
  end
  local id = format_id(ms, seq)
  redis.call('HSET', 'gateway.clock', 'last', id)
  redis.call('XADD', 'gateway.stream:' .. channel, id, 'd', message)
  trim(channel, now)
  redis.call('PUBLISH', channel, MARK .. id .. '\n' .. message)
  return id
end

-- The newest messages of a stream, newest first, in pages: what is not handed out is not read either.
local function newest(key, from, limit, room)
  local found, edge, complete = {}, '+', true
  while true do
    local page = redis.call('XREVRANGE', key, edge, from, 'COUNT', PAGE)
    for _, entry in ipairs(page) do
      room = room - #entry[2][2]
      if #found == 2 * limit or (room < 0 and #found > 0) then return found, false end
      table.insert(found, entry[1])
      table.insert(found, entry[2][2])
    end
    if #page < PAGE then return found, true end
    edge = '(' .. page[#page][1]
  end
end

-- KEYS: channels. ARGV: a mode, an id, limits of events and bytes for each channel, and for `since` the newest id known
-- to be of this history (0-0: none). The modes: `after`, what came
-- after an id a client has; `since`, what came after a point of time that only has the form of an id; `last`, the newest.
-- Returns for each channel {gap or '', whether durable messages are all there is, ids and messages in
-- turn, newest first}. It stops when it has handed out enough, so that nobody else waits long for Redis: who asked for
-- more channels than are answered asks again for the rest.
local function history(keys, args)
  local mode, after, limit, room = args[1], args[2], tonumber(args[3]), tonumber(args[4])
  local known = args[5] or after
  local now = now_ms()
  local clock = redis.call('HMGET', 'gateway.clock', 'last', 'birth')
  local last, birth = clock[1], clock[2]
  local answer = {}
  local handed_out = 0
  for _, channel in ipairs(keys) do
    local key = 'gateway.stream:' .. channel
    local gap, from = '', '-'
    if mode ~= 'last' then
      from = '(' .. after
      local removed = redis.call('GET', 'gateway.trimmed:' .. channel)
      if not last or (mode == 'after' and newer(after, last)) or (known ~= '0-0' and newer(birth, known)) then
        gap = 'history_lost'
      elseif removed and newer(removed, after) then
        gap = 'trimmed'
      elseif mode == 'after' and AGE > 0 and after ~= last and parse_id(after) < now - AGE then
        gap = 'expired'
      end
    end
    local found, complete = newest(key, from, limit, room)
    if mode ~= 'last' and not complete then gap = 'too_many' end
    local pure = redis.call('EXISTS', key) == 1 and redis.call('EXISTS', 'gateway.mixed:' .. channel) == 0
    table.insert(answer, { gap, pure and 1 or 0, found })
    for place = 2, #found, 2 do handed_out = handed_out + #found[place] end
    if handed_out > ENOUGH then break end
  end
  return answer
end

-- KEYS: channel. Somebody publishes on it without keeping, too: what is missing can't be told from its stream alone.
local function mixed(keys, args)
  redis.call('SET', 'gateway.mixed:' .. keys[1], 1)
  if AGE > 0 then redis.call('PEXPIRE', 'gateway.mixed:' .. keys[1], AGE) end
  return 1
end

-- ARGV: the newest id a worker has seen. If Redis knows less than that, it has lost something (restarted with older
-- data, or a replica took over that lagged behind): from now on nothing before is vouched for.
local function check(keys, args)
  local last = redis.call('HGET', 'gateway.clock', 'last')
  if args[1] ~= '0-0' and (not last or newer(args[1], last)) then
    local birth = format_id(now_ms(), 0)
    if not newer(birth, args[1]) then
      local ms, seq = parse_id(args[1])
      birth = format_id(ms, seq + 1)
    end
    redis.call('HSET', 'gateway.clock', 'birth', birth, 'last', birth)
    return birth
  end
  return last or '0-0'
end
