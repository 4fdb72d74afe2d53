-- One change for all agents (redis_changes.h): KEYS are the hash, the number and the log; ARGV the
-- name, and the text unless it is taken away. Returns its number.
local number = redis.call('INCR', KEYS[2])
local entry = { 'XADD', KEYS[3], 'MAXLEN', '1000', string.format('%.0f-0', number), 'name', ARGV[1] }
if ARGV[2] then
	redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
	entry[8], entry[9] = 'text', ARGV[2]
else
	redis.call('HDEL', KEYS[1], ARGV[1])
end
-- Numbers only rise, unless the one before was lost and its log was not: then that begins anew. (Who
-- may not write it goes without: others miss a number, and read all.)
if type(redis.pcall(unpack(entry))) == 'table' then
	redis.pcall('DEL', KEYS[3])
	redis.pcall(unpack(entry))
end
return number
