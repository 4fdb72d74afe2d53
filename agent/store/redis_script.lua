-- Charges several requests in one call, each all or nothing by itself: what evaluate(), charge() and
-- charge_by_rule() in limit/decision.c and bucket_read() and its like in limit/algorithm.c do, the
-- same operations on the same doubles in the same order. The agent finds the verdicts by those, from
-- the buckets that are returned here; tests hold both against each other, bit for bit.
--
-- KEYS     the counters, each once
-- ARGV[1]  the limits, each once: '<BBBBI4I4ddd' algorithm, kind of window, enforces, count_denied,
--          units, capacity, the window's length, microseconds for one unit, and from empty to full,
--          by the slowest of the tiers that share the counter
-- ARGV[2]  the takes: '<BBBI4' key and limit (from 0), 1: first of its rule + 2: last of its
--          request, cost
-- ARGV[3]  empty; tests: the instant to go by
-- ARGV[4]  16 bytes for each take with one of these flags, in their order, and only where there are any:
--          + 4: no request, but asks for a block of as many units as its cost (limit/lease.h):
--          '<I4I4i8' done, back, mark; + 8: its cost is to be refunded: '<i8' `at` as the charge
--          left it. (+ 16: its request was denied elsewhere: limit/split.h.)
-- returns  '<i8' now, and for each take the 16 bytes of its bucket as it was before its request: all
--          zero for one never seen; for one that asks for a block followed by the 8 of what is out
--
-- A bucket: '<di8' used, at (token bucket) or '<I4I4i8' current, previous, at; of a token bucket, while
-- blocks are out, followed by '<I4I4' units out of this turn, and of the one before. What is none
-- counts as never seen. Instants are microseconds since 1970, at most 2^52: sums are exact. (Floors of
-- quotients are, too: a quotient of integers below 2^53 never rounds up to a whole number.)

local TOKEN_BUCKET, SLIDING_WINDOW = 0, 1
local WINDOW_WEEK, WINDOW_MONTH = 1, 2
-- Places in a limit and in a take: arrays are made and read faster than tables with names.
local ALGORITHM, WINDOW, ENFORCES, COUNT_DENIED, UNITS, CAPACITY = 1, 2, 3, 4, 5, 6
local LENGTH, SLOWEST_INTERVAL, SLOWEST_REFILL = 7, 8, 9
local LIMIT, KEY, COST, USED, PREVIOUS, AT, CHARGED, ADMITS, RULE = 1, 2, 3, 4, 5, 6, 7, 8, 9
local OUT = 10
local UNIT_SLACK = 5e-7
local BUCKET_AHEAD_MAX = 1000000
local DAY = 86400000000
local KEEP_MAX = 2 * 365 * DAY
local INSTANT_MAX = 4503599627370496
local ASKS, REFUND, DENIED = 4, 8, 16 -- flags
local LEASE_LIFE, LEASE_LEAST, LEASE_PART, LEASE_OUT = 2000000, 2, 4, 2
local NEVER_SEEN = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
local NONE_OUT = '\0\0\0\0\0\0\0\0'

local call, unpack_bytes, pack_bytes = redis.call, struct.unpack, struct.pack
local floor, ceil, byte = math.floor, math.ceil, string.byte

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
	limits[i] = { unpack_bytes('<BBBBI4I4ddd', bytes, 36 * i - 35) }
end

local now = tonumber(ARGV[3])
if not now then
	local time = call('TIME')
	now = time[1] * 1000000 + time[2]
end

-- By place in KEYS: the bucket's bytes, as they are at this point of the call.
local buckets = #keys > 0 and call('MGET', unpack(keys)) or {}

local more = 0 -- of ARGV[4], how many were read
local changed = {} -- by place in KEYS: the take that was charged last

-- What few calls need is made in those alone: to make a function takes longer than a take does.
local lease_read, lease_apply, refund

if ARGV[4] then
	-- The rest of lease_apply(): hears of a block that is done, and grants the next.
	function lease_apply(t)
		local limit, key, want, used, at = t[LIMIT], t[KEY], t[COST], t[USED], t[AT]
		local done, back, mark = unpack_bytes('<I4I4i8', ARGV[4], 16 * more + 1)
		local fresh, stale, heard = 0, 0, false
		more = more + 1
		if t[OUT] then
			fresh, stale = unpack_bytes('<I4I4', t[OUT])
		end

		local tokens = limit[ALGORITHM] == TOKEN_BUCKET
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

		local level = used
		if limit[ALGORITHM] == SLIDING_WINDOW and t[PREVIOUS] > 0 then
			local elapsed = now - at
			if elapsed < 0 then
				elapsed = 0
			end
			level = used + t[PREVIOUS] * (limit[LENGTH] - elapsed) / limit[LENGTH]
		end

		local most = limit[CAPACITY] - level
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
		t[USED] = used + most
		if tokens then
			fresh = fresh + most
			t[OUT] = fresh + stale > 0 and pack_bytes('<I4I4', fresh, stale) or nil
			buckets[key] = pack_bytes('<di8', t[USED], at) .. (t[OUT] or '')
		else
			buckets[key] = pack_bytes('<I4I4i8', t[USED], t[PREVIOUS], at)
		end
		changed[key] = t
	end

	-- bucket_refund(): of what is used now, and whether that has changed.
	function refund(limit, used, previous, at, cost)
		local was_used, was_previous = used, previous
		local when = unpack_bytes('<i8', ARGV[4], 16 * more + 1)
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
		return used, previous, used ~= was_used or previous ~= was_previous
	end
end

local takes = {}
local reply = { pack_bytes('<i8', now) }
local first, rule, denied = 1, nil, false

bytes = ARGV[2]
for i = 1, #bytes / 7 do
	-- '<BBBI4', for less than unpack_bytes() would take.
	local key, number, flags, c0, c1, c2, c3 = byte(bytes, 7 * i - 6, 7 * i)
	local cost = c0 + c1 * 256 + c2 * 65536 + c3 * 16777216
	key = key + 1
	local limit = limits[number + 1]
	local capacity = limit[CAPACITY]
	local bucket, out = buckets[key], nil
	if bucket and #bucket == 24 and limit[ALGORITHM] == TOKEN_BUCKET then
		-- lease_read(): of a token bucket of 24 bytes: its 16 as it stands now, and the 8 of what is out.
		lease_read = lease_read or function(limit, bytes)
			local units, length, capacity = limit[UNITS], limit[LENGTH], limit[CAPACITY]
			local used, at, fresh, stale = unpack_bytes('<di8I4I4', bytes)
			if not (used >= 0 and used <= INSTANT_MAX and at >= -INSTANT_MAX and at <= INSTANT_MAX) then
				return NEVER_SEEN, NONE_OUT
			end

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
			if out > 0 then
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
			end
			return pack_bytes('<di8', used, at), pack_bytes('<I4I4', fresh, stale)
		end
		bucket, out = lease_read(limit, bucket)
	elseif not bucket or #bucket ~= 16 then
		bucket = NEVER_SEEN
	end

	-- The bucket as it stands now: bucket_read(). `anew`: one of the future is anchored anew.
	local used, previous, at, level, anew
	if limit[ALGORITHM] == TOKEN_BUCKET then
		used, at = unpack_bytes('<di8', bucket)
		if not (used >= 0 and used <= INSTANT_MAX and at >= -INSTANT_MAX and at <= INSTANT_MAX) then
			bucket, used, at = NEVER_SEEN, 0, 0
		end
		if used > capacity + UNIT_SLACK then
			used = capacity
		end
		if at < now and used > 0 then
			used = used - (now - at) * limit[UNITS] / limit[LENGTH]
			if used < 0 then
				used = 0
			end
		end
		anew = at - now > BUCKET_AHEAD_MAX
		previous, at, level = 0, now, used
	else
		used, previous, at = unpack_bytes('<I4I4i8', bucket)
		if at < -INSTANT_MAX or at > INSTANT_MAX then
			bucket, used, previous, at = NEVER_SEEN, 0, 0, 0
		end
		local length, units, utc, start = limit[LENGTH], limit[UNITS], now, at
		if at > utc and at - utc <= BUCKET_AHEAD_MAX then
			utc = at
		end
		if limit[WINDOW] == WINDOW_MONTH then
			start = month_bounds(utc)
		elseif utc < at or utc - at >= length then
			-- 1970-01-01 was a Thursday: the first Monday came four days later.
			local zero = limit[WINDOW] == WINDOW_WEEK and 4 * DAY or 0
			start = floor((utc - zero) / length) * length + zero
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
		anew = start < at
		at, level = start, used
		if previous > 0 and limit[ALGORITHM] == SLIDING_WINDOW then
			local elapsed = now - at
			if elapsed < 0 then
				elapsed = 0
			end
			level = used + previous * (length - elapsed) / length
		end
	end
	if out == NONE_OUT then
		out = nil
	end
	reply[i + 1] = bucket

	local asked = cost > 0 and cost or 1
	local admits = asked <= capacity and level + asked <= capacity + UNIT_SLACK
	anew = anew and cost > 0 and bucket ~= NEVER_SEEN

	if flags >= DENIED then
		flags, denied = flags - DENIED, true
	elseif flags >= REFUND then
		-- It is not charged for anything then, but may have changed.
		flags = flags - REFUND
		used, previous, anew = refund(limit, used, previous, at, cost)
		cost = 0
	end

	-- A rule is charged whole or not at all: its first take speaks for it.
	local t = { limit, key, cost, used, previous, at, anew, admits, false, out }
	takes[i] = t
	if flags == ASKS then
		reply[i + 1] = bucket .. (out or NONE_OUT)
		lease_apply(t)
	elseif flags % 2 == 1 then
		rule = t
	end
	t[RULE] = rule
	if flags ~= ASKS and not admits then
		rule[ADMITS] = false
		denied = denied or limit[ENFORCES] == 1
	end

	if flags ~= ASKS and flags >= 2 then
		-- The last take of a request: charge_by_rule(). An `at` that went back is kept, too.
		for k = first, i do
			t = takes[k]
			limit, key, cost, used = t[LIMIT], t[KEY], t[COST], t[USED]
			local charged = t[CHARGED]
			if cost > 0 then
				if denied then
					if limit[COUNT_DENIED] == 1 then
						local most = limit[ALGORITHM] == TOKEN_BUCKET and limit[CAPACITY] or limit[UNITS]
						local there = most - used
						if there > 0 then
							t[USED] = cost < there and used + cost or most
							charged = true
						end
					end
				elseif t[RULE][ADMITS] then
					t[USED] = used + cost
					charged = true
				end
			end
			if charged then
				if limit[ALGORITHM] == TOKEN_BUCKET then
					buckets[key] = pack_bytes('<di8', t[USED], t[AT])
					if t[OUT] then
						buckets[key] = buckets[key] .. t[OUT]
					end
				else
					buckets[key] = pack_bytes('<I4I4i8', t[USED], t[PREVIOUS], t[AT])
				end
				changed[key] = t
			end
		end
		first, denied = i + 1, false
	end
end

-- Each key once, as it was charged last; kept for as long as limit_keep_for() says.
for i = 1, #takes do
	local t = takes[i]
	local key = t[KEY]
	if changed[key] == t then
		local limit, used, keep = t[LIMIT], t[USED], 0
		if limit[ALGORITHM] == TOKEN_BUCKET then
			keep = used * limit[SLOWEST_INTERVAL]
			if keep > limit[SLOWEST_REFILL] then
				keep = limit[SLOWEST_REFILL]
			end
			if keep > KEEP_MAX then
				keep = KEEP_MAX
			end
			keep = ceil(keep)
			if t[OUT] then
				keep = keep + 2 * LEASE_LIFE
			end
		elseif limit[ALGORITHM] == SLIDING_WINDOW then
			if used > 0 then
				keep = t[AT] + 2 * limit[LENGTH] - now
			elseif t[PREVIOUS] > 0 then
				keep = t[AT] + limit[LENGTH] - now
			end
		elseif used > 0 then
			if limit[WINDOW] == WINDOW_MONTH then
				local _, last = month_bounds(t[AT])
				keep = last - now
			else
				keep = t[AT] + limit[LENGTH] - now
			end
		end
		-- Up to whole milliseconds. (% costs less than a call does.)
		local ms = keep / 1000
		local part = ms % 1
		if part > 0 then
			ms = ms - part + 1
		end
		if ms < 1 then
			ms = 1
		end
		call('SET', keys[key], buckets[key], 'PX', ms)
	end
end
return table.concat(reply)
