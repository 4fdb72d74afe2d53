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
-- returns  '<i8' now, and for each take the 16 bytes of its bucket as it was before its request: all
--          zero for one never seen
--
-- A bucket: '<di8' used, at (token bucket) or '<I4I4i8' current, previous, at. What is none counts
-- as never seen. Instants are microseconds since 1970, at most 2^52: sums are exact. (Floors of
-- quotients are, too: a quotient of integers below 2^53 never rounds up to a whole number.)

local TOKEN_BUCKET, SLIDING_WINDOW = 0, 1
local WINDOW_WEEK, WINDOW_MONTH = 1, 2
local UNIT_SLACK = 5e-7
local BUCKET_AHEAD_MAX = 1000000
local DAY = 86400000000
local KEEP_MAX = 2 * 365 * DAY
local INSTANT_MAX = 4503599627370496
local NEVER_SEEN = string.rep('\0', 16)

local call, unpack_bytes, pack_bytes = redis.call, struct.unpack, struct.pack
local floor, ceil = math.floor, math.ceil

-- The month that `utc` lies in: when it begins and ends.
local function month_bounds(utc)
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

local function window_start(limit, utc)
	if limit.window == WINDOW_MONTH then
		return (month_bounds(utc))
	end
	if limit.window == WINDOW_WEEK then
		-- 1970-01-01 was a Thursday: the first Monday came four days later.
		return floor((utc - 4 * DAY) / (7 * DAY)) * (7 * DAY) + 4 * DAY
	end
	return floor(utc / limit.length) * limit.length
end

-- How long a bucket is kept, in milliseconds: until it equals one never seen.
local function keep_for(t, now)
	local limit, keep = t.limit, 0
	if limit.algorithm == TOKEN_BUCKET then
		keep = t.used * limit.slowest_interval
		if keep > limit.slowest_refill then
			keep = limit.slowest_refill
		end
		if keep > KEEP_MAX then
			keep = KEEP_MAX
		end
	elseif limit.algorithm == SLIDING_WINDOW then
		if t.used > 0 then
			keep = t.at + 2 * limit.length - now
		elseif t.previous > 0 then
			keep = t.at + limit.length - now
		end
	elseif t.used > 0 then
		if limit.window == WINDOW_MONTH then
			local _, last = month_bounds(t.at)
			keep = last - now
		else
			keep = t.at + limit.length - now
		end
	end
	keep = ceil(ceil(keep) / 1000)
	return keep > 1 and keep or 1
end

local limits = {}
for place = 1, #ARGV[1], 36 do
	local algorithm, window, enforces, count_denied, units, capacity, length, interval, refill =
		unpack_bytes('<BBBBI4I4ddd', ARGV[1], place)
	limits[#limits + 1] = {
		algorithm = algorithm, window = window, length = length, units = units,
		capacity = capacity, enforces = enforces == 1, count_denied = count_denied == 1,
		slowest_interval = interval, slowest_refill = refill,
	}
end

local now = tonumber(ARGV[3])
if not now then
	local time = call('TIME')
	now = time[1] * 1000000 + time[2]
end

-- By place in KEYS: the bucket's bytes, as they are at this point of the call.
local buckets = #KEYS > 0 and call('MGET', unpack(KEYS)) or {}
for i = 1, #KEYS do
	if not buckets[i] or #buckets[i] ~= 16 then
		buckets[i] = NEVER_SEEN
	end
end

-- One bucket as it stands now. Returns used or current, previous, at, and whether that is earlier
-- than it was: a bucket of the future, anchored anew.
local function read_bucket(limit, key)
	local bytes = buckets[key]
	if limit.algorithm == TOKEN_BUCKET then
		local used, at = unpack_bytes('<di8', bytes)
		if not (used >= 0 and used <= INSTANT_MAX and at >= -INSTANT_MAX and at <= INSTANT_MAX) then
			buckets[key] = NEVER_SEEN
			return 0, 0, now, false
		end
		if used > limit.capacity + UNIT_SLACK then
			used = limit.capacity
		end
		if at < now and used > 0 then
			used = used - (now - at) * limit.units / limit.length
			if used < 0 then
				used = 0
			end
		end
		return used, 0, now, at - now > BUCKET_AHEAD_MAX and bytes ~= NEVER_SEEN
	end

	local current, previous, at = unpack_bytes('<I4I4i8', bytes)
	if at < -INSTANT_MAX or at > INSTANT_MAX then
		buckets[key] = NEVER_SEEN
		bytes, current, previous, at = NEVER_SEEN, 0, 0, 0
	end
	local length, utc, start = limit.length, now, at
	if at > utc and at - utc <= BUCKET_AHEAD_MAX then
		utc = at
	end
	if limit.window == WINDOW_MONTH or utc < at or utc - at >= length then
		start = window_start(limit, utc)
	end
	if at < start then
		if limit.algorithm == SLIDING_WINDOW and at + length == start then
			previous = current
		else
			previous = 0
		end
		current = 0
	end
	if current > limit.units then
		current = limit.units
	end
	if previous > limit.units then
		previous = limit.units
	end
	return current, previous, start, start < at and bytes ~= NEVER_SEEN
end

local takes = {}
local reply = { pack_bytes('<i8', now) }
local changed = {} -- by place in KEYS: the take that was charged last
local order = {}   -- those places, in the order in which they changed

-- A whole request: takes[first] to takes[last] have been read.
local function charge(first, last, denied)
	for i = first, last do
		local t = takes[i]
		local limit, cost, charged = t.limit, t.cost, t.anew
		if cost > 0 then
			if denied then
				if limit.count_denied then
					local most = limit.capacity
					if limit.algorithm ~= TOKEN_BUCKET then
						most = limit.units
					end
					local there = most - t.used
					if there > 0 then
						t.used = cost < there and t.used + cost or most
						charged = true
					end
				end
			elseif t.rule.admits then
				t.used = t.used + cost
				charged = true
			end
		end
		if charged then
			local key = t.key
			if limit.algorithm == TOKEN_BUCKET then
				buckets[key] = pack_bytes('<di8', t.used, t.at)
			else
				buckets[key] = pack_bytes('<I4I4i8', t.used, t.previous, t.at)
			end
			if not changed[key] then
				order[#order + 1] = key
			end
			changed[key] = t
		end
	end
end

local first, rule, denied = 1, nil, false
local place, bytes = 1, ARGV[2]
for i = 1, #bytes / 7 do
	local key, number, flags, cost
	key, number, flags, cost, place = unpack_bytes('<BBBI4', bytes, place)
	key = key + 1
	local limit = limits[number + 1]
	local used, previous, at, anew = read_bucket(limit, key)
	reply[i + 1] = buckets[key]

	local level = used
	if previous > 0 and limit.algorithm == SLIDING_WINDOW then
		local elapsed = now - at
		if elapsed < 0 then
			elapsed = 0
		end
		level = used + previous * (limit.length - elapsed) / limit.length
	end
	local asked = cost > 0 and cost or 1
	local admits = asked <= limit.capacity and level + asked <= limit.capacity + UNIT_SLACK

	local t = {
		limit = limit, key = key, cost = cost, used = used, previous = previous, at = at,
		anew = anew and cost > 0, admits = admits, rule = false,
	}
	takes[i] = t
	-- A rule is charged whole or not at all: its first take speaks for it.
	if flags % 2 == 1 then
		rule = t
	end
	t.rule = rule
	if not admits then
		rule.admits = false
		denied = denied or limit.enforces
	end
	if flags >= 2 then
		charge(first, i, denied)
		first, denied = i + 1, false
	end
end

for i = 1, #order do
	local key = order[i]
	call('SET', KEYS[key], buckets[key], 'PX', keep_for(changed[key], now))
end
return table.concat(reply)
