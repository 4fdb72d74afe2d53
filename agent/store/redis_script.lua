-- Charges several requests in one call, each all or nothing by itself: what evaluate(), charge() and
-- charge_by_rule() in limit/decision.c and bucket_read() and its like in limit/algorithm.c do, the
-- same operations on the same doubles in the same order. The agent finds the verdicts by those, from
-- the buckets that are returned here; tests hold both against each other, bit for bit.
--
-- KEYS     the counters, each once
-- ARGV[1]  the limits, each once: '<BBBBI4I4ddd' algorithm, kind of window, enforces, count_denied,
--          units, capacity, the window's length, microseconds for one unit, and from empty to full,
--          by the slowest of the tiers that share the counter
-- ARGV[2]  the takes: '<BBB' key and limit (from 0), 1: first of its rule + 2: last of its request
--          (+ 32: followed by '<I4' its cost, which is 1 else)
-- ARGV[3]  the same in sum: '<BB' the limit that reads it and how many takes, for each key. Empty unless
--          all of them cost 1 and each key has one limit. If the last of a key's takes is admitted then
--          all are, and nobody is denied: the requests need not be looked at one by one.
-- ARGV[4]  empty; tests: the instant to go by
-- ARGV[5]  16 bytes for each take with one of these flags, in their order, and only where there are any:
--          + 4: no request, but asks for a block of as many units as its cost (limit/lease.h):
--          '<I4I4i8' done, back, mark; + 8: its cost is to be refunded: '<i8' `at` as the charge
--          left it. (+ 16: its request was denied elsewhere: limit/split.h.)
-- returns  '<i8' now; for each key the 28 bytes that were there before this call; for each take that
--          asks for a block the same, as they stood before that take. All zero for one never seen.
--
-- At a key is a bucket, '<di8' used, at (token bucket) or '<I4I4i8' current, previous, at; then '<I4I4'
-- of a token bucket the units out, those of this turn and those of the one before; then '<I4' the Unix
-- time until which it is there at least. What is none counts as never seen. Instants are microseconds since 1970, at most 2^52: sums are exact. (Floors of
-- quotients are, too: a quotient of integers below 2^53 never rounds up to a whole number.)

local TOKEN_BUCKET, SLIDING_WINDOW = 0, 1
local WINDOW_WEEK, WINDOW_MONTH, WINDOW_FROM_FIRST = 1, 2, 3
-- Places in a limit and in a reading: arrays are made and read faster than tables with names.
local ALGORITHM, WINDOW, ENFORCES, COUNT_DENIED, UNITS, CAPACITY = 1, 2, 3, 4, 5, 6
local LENGTH, SLOWEST_INTERVAL, SLOWEST_REFILL, ROOM = 7, 8, 9, 10
local LIMIT, KEY, USED, PREVIOUS, AT, REST, ANEW, FRESH, STALE, UNTIL = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local UNIT_SLACK = 5e-7
local BUCKET_AHEAD_MAX = 1000000
local DAY = 86400000000
local KEEP_MAX = 2 * 365 * DAY
local INSTANT_MAX = 4503599627370496
local UNTIL_STEP = 1001000 -- a key is there for less than this longer than it says
local LAST, ASKS, REFUND, DENIED, COSTS = 2, 4, 8, 16, 32 -- flags
local LEASE_LIFE, LEASE_LEAST, LEASE_PART, LEASE_OUT = 2000000, 2, 4, 2
local VALUE_BYTES = 28
local NEVER_SEEN = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

local call, try, unpack_bytes, pack_bytes = redis.call, redis.pcall, struct.unpack, struct.pack
local floor, ceil, byte = math.floor, math.ceil, string.byte

-- A Redis of 32 bits packs eight bytes with the upper four lost, and says nothing: two times four, then.
if struct.size('l') < 8 then
	local place = { ['<i8'] = 1, ['<di8I4I4I4'] = 2, ['<I4I4i8'] = 3, ['<I4I4i8I4I4I4'] = 3 }

	function pack_bytes(format, ...)
		local i, v = place[format], { ... }
		table.insert(v, i + 1, floor(v[i] / 4294967296))
		v[i] = v[i] % 4294967296
		return struct.pack((format:gsub('i8', 'I4i4')), unpack(v))
	end
	function unpack_bytes(format, ...)
		local i, v = place[format], { struct.unpack((format:gsub('i8', 'I4i4')), ...) }
		if i then
			v[i] = v[i] + table.remove(v, i + 1) * 4294967296
		end
		return unpack(v)
	end
end

-- The month that `utc` lies in: when it begins and ends.
local function month_bounds(utc)
	local DAY, floor = 86400000000, math.floor

	local function days_of_month(months)
		local y = floor(months / 12)
		local m = months - y * 12 + 1
		if m <= 2 then
			y = y - 1
		end
		local era = floor(y / 400)
		local yoe = y - era * 400
		local doy = floor((153 * (m + (m > 2 and -3 or 9)) + 2) / 5)
		return era * 146097 + yoe * 365 + floor(yoe / 4) - floor(yoe / 100) + doy - 719468
	end

	local z = floor(utc / DAY) + 719468
	local era = floor(z / 146097)
	local doe = z - era * 146097
	local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
	local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
	local mp = floor((5 * doy + 2) / 153)
	local m = mp < 10 and mp + 3 or mp - 9
	local y = yoe + era * 400 + (m <= 2 and 1 or 0)
	local month = y * 12 + m - 1
	return days_of_month(month) * DAY, days_of_month(month + 1) * DAY
end

local keys, bytes = KEYS, ARGV[1]
local limits = {}
for i = 1, #bytes / 36 do
	local limit = { unpack_bytes('<BBBBI4I4ddd', bytes, 36 * i - 35) }
	limit[ROOM] = limit[CAPACITY] + UNIT_SLACK
	limits[i] = limit
end

local now = tonumber(ARGV[4])
if not now then
	local time = call('TIME')
	now = time[1] * 1000000 + time[2]
end

-- By place in KEYS: what lies there, from the first reading on as the reply has it.
local values = #keys > 0 and call('MGET', unpack(keys)) or {}

-- The commonest call: in sum, of token buckets, with no blocks out and none beyond its capacity or of
-- the future, all admitted. It has loops of its own, in less than half the time: the same operations
-- as below. What turns out to be anything else is left to those, with nothing written yet.
local sums = { byte(ARGV[3], 1, -1) }
if sums[1] then
	local used_then, there_untils, last_limit, is_common = {}, {}, nil, true
	local room, units, length
	for key = 1, #keys do
		local value, used, there_until = values[key], 0, 0
		if sums[2 * key - 1] ~= last_limit then
			last_limit = sums[2 * key - 1]
			local limit = limits[last_limit + 1]
			room, units, length = limit[ROOM], limit[UNITS], limit[LENGTH]
			is_common = limit[ALGORITHM] == TOKEN_BUCKET
		end
		if value and #value == VALUE_BYTES and is_common then
			local at, fresh, stale
			used, at, fresh, stale, there_until = unpack_bytes('<di8I4I4I4', value)
			is_common = used >= 0 and used <= room and at <= now and at >= -INSTANT_MAX and fresh + stale == 0
			used = used - (now - at) * units / length
			if used < 0 then
				used = 0
			end
		else
			is_common = is_common and not value
			values[key] = value or NEVER_SEEN
		end
		for _ = 1, sums[2 * key] do
			used = used + 1
		end
		if not is_common or used > room then
			is_common = false
			break
		end
		used_then[key], there_untils[key] = used, there_until
	end

	if is_common then
		local interval, refill
		last_limit = nil
		for key = 1, #keys do
			if sums[2 * key - 1] ~= last_limit then
				last_limit = sums[2 * key - 1]
				interval, refill = limits[last_limit + 1][SLOWEST_INTERVAL], limits[last_limit + 1][SLOWEST_REFILL]
				if refill > KEEP_MAX then
					refill = KEEP_MAX
				end
			end
			local used, there_until = used_then[key], there_untils[key]
			local keep, left = used * interval, there_until * 1000000 - now
			if keep > refill then
				keep = refill
			end
			if keep > left or left + UNTIL_STEP > 2 * keep
				or try('SETRANGE', keys[key], '0', pack_bytes('<di8I4I4I4', used, now, 0, 0, there_until)) ~= VALUE_BYTES then
				local ms = ceil((keep + keep / 4) / 1000)
				there_until = floor((now + ms * 1000) / 1000000) % 4294967296
				ms = ms + 1 -- (as below)
				call('SET', keys[key], pack_bytes('<di8I4I4I4', used, now, 0, 0, there_until), 'PX', ms)
			end
		end
		return pack_bytes('<i8', now) .. table.concat(values)
	end
end

-- By place in KEYS: the bucket as it is at this point of the call, once it was charged; and the last
-- reading: it holds for as long as the same limit reads, since `now` stands still. (Where blocks are
-- out, a refund has it read again.)
local kept, readings = {}, {}

-- What few calls need is made in those alone: to make a function takes longer than a take does, by
-- far if it knows many locals. So the rest is one loop.
local lease_read, lease_apply, refund
local reply = { pack_bytes('<i8', now) }
local more = 0 -- of ARGV[5], how many were read

if ARGV[5] then
	-- The rest of lease_apply(): hears of a block that is done, and grants the next.
	function lease_apply(r, want)
		local limit, used, at, fresh, stale = r[LIMIT], r[USED], r[AT], r[FRESH], r[STALE]
		local done, back, mark = unpack_bytes('<I4I4i8', ARGV[5], 16 * more + 1)
		local tokens, heard = limit[ALGORITHM] == TOKEN_BUCKET, false
		more = more + 1
		if tokens then
			reply[#reply + 1] = pack_bytes('<di8I4I4I4', used, at, fresh, stale, 0)
		else
			reply[#reply + 1] = pack_bytes('<I4I4i8I4I4I4', used, r[PREVIOUS], at, 0, 0, 0)
		end
		if done > 0 and tokens then
			local turn = floor(now / LEASE_LIFE)
			if mark == turn and done <= fresh then
				fresh, heard = fresh - done, true
			elseif mark == turn - 1 and done <= stale then
				stale, heard = stale - done, true
			end
			if heard then
				used = back < used and used - back or 0
			end
		elseif done > 0 and mark == at then
			used = used - math.min(back, used)
			heard = true
		end

		local most = limit[CAPACITY] - (used + r[REST])
		most = (most > 0 and most or 0) / LEASE_PART
		if tokens then
			local room = limit[CAPACITY] / LEASE_OUT - fresh - stale
			most = most < room and most or room
		end
		most = want < most and want or most
		most = most >= LEASE_LEAST and floor(most) or 0
		if most == 0 and not heard then
			return
		end
		r[USED] = used + most
		if tokens then
			r[FRESH], r[STALE] = fresh + most, stale
		end
		kept[r[KEY]], readings[r[KEY]] = r, nil
	end

	-- bucket_refund(): another reading, ANEW if it has changed.
	function refund(r, cost)
		local limit, used, previous, at = r[LIMIT], r[USED], r[PREVIOUS], r[AT]
		local when = unpack_bytes('<i8', ARGV[5], 16 * more + 1)
		more = more + 1
		if limit[ALGORITHM] == TOKEN_BUCKET then
			if when < now then
				cost = cost - (now - when) * limit[UNITS] / limit[LENGTH]
			end
			if cost > 0 then
				used = used > cost and used - cost or 0
			end
		elseif at == when then
			used = used > cost and used - cost or 0
		elseif limit[ALGORITHM] == SLIDING_WINDOW and at == when + limit[LENGTH] then
			previous = previous > cost and previous - cost or 0
		end
		local changed = used ~= r[USED] or previous ~= r[PREVIOUS]
		return { limit, r[KEY], used, previous, at, 0, changed, r[FRESH], r[STALE], r[UNTIL] }
	end
end

-- Of one request, or of all in sum: its readings, what is used then, costs and flags; whether it is a
-- plain one, that all its limits admit.
local taken, used_then, costs, flags_of = {}, {}, {}, {}
local n, plain, denied = 0, true, false

local takes, at, key = sums, 1, 0
local in_sum = #takes > 0
if not in_sum then
	takes = { byte(ARGV[2], 1, -1) }
end
while takes[at] do
	local limit, flags, cost, others
	if in_sum then
		key = key + 1
		limit, flags, cost, others = limits[takes[at] + 1], key == #keys and LAST or 0, 1, takes[at + 1] - 1
		at = at + 2
	else
		key, limit, flags, cost, others = takes[at] + 1, limits[takes[at + 1] + 1], takes[at + 2], 1, 0
		at = at + 3
		if flags >= COSTS then
			flags = flags - COSTS
			cost = takes[at] + takes[at + 1] * 256 + takes[at + 2] * 65536 + takes[at + 3] * 16777216
			at = at + 4
		end
	end

	local r = readings[key]
	if not r or r[LIMIT] ~= limit then
		-- The bucket as it stands now: bucket_read() of what is there. ANEW: one of the future is
		-- anchored anew. REST: what the window before still weighs.
		local used, previous, at, fresh, stale, there_until, is_seen
		r = kept[key]
		if r then
			used, previous, at, fresh, stale = r[USED], r[PREVIOUS], r[AT], r[FRESH], r[STALE]
			there_until = r[UNTIL]
		else
			local value = values[key]
			if not value or #value ~= VALUE_BYTES then
				value = NEVER_SEEN
			end
			if limit[ALGORITHM] == TOKEN_BUCKET then
				used, at, fresh, stale, there_until = unpack_bytes('<di8I4I4I4', value)
				previous = 0
				if not (used >= 0 and used <= INSTANT_MAX and at >= -INSTANT_MAX and at <= INSTANT_MAX) then
					value, used, at, fresh, stale, there_until = NEVER_SEEN, 0, 0, 0, 0, 0
				end
			else
				used, previous, at, fresh, stale, there_until = unpack_bytes('<I4I4i8I4I4I4', value)
				if at < -INSTANT_MAX or at > INSTANT_MAX or fresh + stale > 0 then
					value, used, previous, at = NEVER_SEEN, 0, 0, 0
					fresh, stale, there_until = 0, 0, 0
				end
			end
			values[key] = value
			is_seen = value ~= NEVER_SEEN
		end

		local rest, anew = 0, at - now > BUCKET_AHEAD_MAX
		if limit[ALGORITHM] == TOKEN_BUCKET then
			if fresh + stale > 0 then
				-- lease_read(): what is used and what is out, as of now.
				lease_read = lease_read or function(limit, used, at, fresh, stale)
					local units, length, capacity = limit[UNITS], limit[LENGTH], limit[CAPACITY]
					local function drained(level, from)
						if from < now and level > 0 then
							level = level - (now - from) * units / length
							if level < 0 then
								level = 0
							end
						end
						return level
					end

					local turn, first = floor(now / LEASE_LIFE), floor(at / LEASE_LIFE)
					local out = fresh + stale
					if used > capacity + UNIT_SLACK then
						used = capacity
					end
					used = drained(used, at)
					local level = drained(out, math.min((first + 1) * LEASE_LIFE, now))
					if level > used then
						used = level
					end
					level = drained(fresh, math.min((first + 2) * LEASE_LIFE, now))
					if level > used then
						used = level
					end
					if at < now then
						at = now
					end
					if first > turn then
						fresh, stale = math.min(out, 4294967295), 0
					elseif first < turn then
						stale = first + 1 == turn and fresh or 0
						fresh = 0
					end
					return used, at, fresh, stale
				end
				used, at, fresh, stale = lease_read(limit, used, at, fresh, stale)
			end
			if used > limit[ROOM] then
				used = limit[CAPACITY]
			end
			if at < now and used > 0 then
				used = used - (now - at) * limit[UNITS] / limit[LENGTH]
				if used < 0 then
					used = 0
				end
			end
			at = now
		else
			local length, units, kind, utc, start = limit[LENGTH], limit[UNITS], limit[WINDOW], now, at
			if at > utc and at - utc <= BUCKET_AHEAD_MAX then
				utc = at
			end
			if kind == WINDOW_MONTH then
				start = month_bounds(utc)
			elseif utc < at or utc - at >= length or kind == WINDOW_FROM_FIRST and (used == 0 or units == 0) then
				if kind == WINDOW_FROM_FIRST then
					start = utc
				else
					-- 1970-01-01 was a Thursday: the first Monday came four days later.
					local zero = kind == WINDOW_WEEK and 4 * DAY or 0
					start = floor((utc - zero) / length) * length + zero
				end
			end
			if at < start then
				if limit[ALGORITHM] == SLIDING_WINDOW and at + length == start then
					previous = used
				else
					previous = 0
				end
				used = 0
			end
			if used > units then
				used = units
			end
			if previous > units then
				previous = units
			end
			at = start
			if previous > 0 and limit[ALGORITHM] == SLIDING_WINDOW then
				local elapsed = now - at
				if elapsed < 0 then
					elapsed = 0
				end
				rest = previous * (length - elapsed) / length
			end
		end
		r = { limit, key, used, previous, at, rest, anew and is_seen, fresh, stale, there_until }
		readings[key] = r
	end

	if flags == ASKS then
		lease_apply(r, cost)
	else
		local used = r[USED]
		for _ = 1, others do
			used = used + 1
		end
		if flags >= DENIED then
			flags, denied, plain = flags - DENIED, true, false
		elseif flags >= REFUND then
			r, plain = refund(r, cost), false
		elseif used + r[REST] + (cost > 0 and cost or 1) > limit[ROOM] then
			denied = denied or limit[ENFORCES] == 1
			plain = false
		end
		n = n + 1
		taken[n], used_then[n], costs[n], flags_of[n] = r, cost > 0 and used + cost, cost, flags
		if not plain and in_sum then
			-- One by one, then.
			takes, at, in_sum, n, plain, denied = { byte(ARGV[2], 1, -1) }, 1, false, 0, true, false
		elseif flags % 4 >= LAST then
			if plain then
				for i = 1, n do
					if used_then[i] then
						r = taken[i]
						key = r[KEY]
						r[USED] = used_then[i]
						kept[key], readings[key] = r, r
					end
				end
			else
				-- charge_by_rule(): a rule is charged whole or not at all. An `at` that went back is
				-- kept, too, and what was refunded.
				local from = 1
				while from <= n do
					local to, admits = from, true
					repeat
						r, cost = taken[to], costs[to]
						admits = admits and r[USED] + r[REST] + (cost > 0 and cost or 1) <= r[LIMIT][ROOM]
						to = to + 1
					until to > n or flags_of[to] % 2 == 1
					for i = from, to - 1 do
						r, cost, flags = taken[i], costs[i], flags_of[i]
						limit, key = r[LIMIT], r[KEY]
						local charged = r[ANEW] and (cost > 0 or flags >= REFUND)
						if flags >= REFUND or cost == 0 then
							cost = 0
						elseif denied then
							local most = limit[ALGORITHM] == TOKEN_BUCKET and limit[CAPACITY] or limit[UNITS]
							local there = most - r[USED]
							if limit[COUNT_DENIED] == 1 and there > 0 then
								r[USED] = cost < there and r[USED] + cost or most
								charged = true
							end
						elseif admits then
							r[USED] = r[USED] + cost
							charged = true
						end
						if charged then
							kept[key], readings[key] = r, flags < REFUND and r or nil
						end
					end
					from = to
				end
			end
			n, plain, denied = 0, true, false
		end
	end
end

-- Each key once, as it was charged last; there for at least as long as limit_keep_for() says, and at
-- most twice that (a life that is given anew is rounded up by two milliseconds at most). Of what is used
-- up bit by bit that goes up each time, so of a token bucket it is a quarter more: then most times nothing
-- is to be done but to write the value, in a third of the time.
for key = 1, #keys do
	local r = kept[key]
	if r then
		local limit, used, at, keep, spare, out = r[LIMIT], r[USED], r[AT], 0, 0, 0
		if limit[ALGORITHM] == TOKEN_BUCKET then
			keep = used * limit[SLOWEST_INTERVAL]
			if keep > limit[SLOWEST_REFILL] then
				keep = limit[SLOWEST_REFILL]
			end
			if keep > KEEP_MAX then
				keep = KEEP_MAX
			end
			spare = keep / 4
			if r[FRESH] + r[STALE] > 0 then
				out = 2 * LEASE_LIFE
			end
		elseif limit[ALGORITHM] == SLIDING_WINDOW then
			if used > 0 then
				keep = at + 2 * limit[LENGTH] - now
			elseif r[PREVIOUS] > 0 then
				keep = at + limit[LENGTH] - now
			end
		elseif used > 0 then
			if limit[WINDOW] == WINDOW_MONTH then
				local _, last = month_bounds(at)
				keep = last - now
			else
				keep = at + limit[LENGTH] - now
			end
		end

		local left = r[UNTIL] * 1000000 - now
		local stays = keep + out <= left and left + UNTIL_STEP <= 2 * keep + out
		local ms
		if not stays then
			-- (The server counts from when the script began, a little before `now`.)
			ms = ceil((keep + spare + out) / 1000)
			r[UNTIL] = floor((now + ms * 1000) / 1000000) % 4294967296
			ms = ms + 1
		end
		local value
		if limit[ALGORITHM] == TOKEN_BUCKET then
			value = pack_bytes('<di8I4I4I4', used, at, r[FRESH], r[STALE], r[UNTIL])
		else
			value = pack_bytes('<I4I4i8I4I4I4', used, r[PREVIOUS], at, 0, 0, r[UNTIL])
		end
		if stays and try('SETRANGE', keys[key], '0', value) ~= VALUE_BYTES then
			stays, ms = false, floor(left / 1000) + 1 -- it is not allowed
		end
		if not stays then
			call('SET', keys[key], value, 'PX', ms)
		end
	end
end
return reply[1] .. table.concat(values) .. table.concat(reply, '', 2)
