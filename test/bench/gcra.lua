-- What the Redis store is measured against: three limits of a request as most would write them, all
-- or nothing, by GCRA: a key holds the instant at which its bucket is full again. One script, three
-- keys, one MGET, TTLs, nothing packed or decoded.
--
-- KEYS     the three counters
-- ARGV     for each: microseconds for one unit, and from empty to full
-- returns  1: admitted; what is left of the fullest; microseconds to wait
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local tats = call('MGET', KEYS[1], KEYS[2], KEYS[3])
local left, wait = math.huge, 0
for i = 1, 3 do
	local interval, most = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
	local tat = tonumber(tats[i]) or now
	if tat < now then
		tat = now
	end
	tat = tat + interval
	tats[i] = tat
	local room = most - (tat - now)
	if room < -wait then
		wait = -room
	end
	room = room / interval
	if room < left then
		left = room
	end
end
if wait > 0 then
	return { 0, 0, wait }
end
for i = 1, 3 do
	call('SET', KEYS[i], tats[i], 'PX', math.ceil((tats[i] - now) / 1000))
end
return { 1, left, 0 }
