-- A thousand clients in turn, each with a key and a user of its own.
local requests, at = {}, 0

function init()
	for i = 0, 999 do
		requests[i] = wrk.format("GET", "/api/v1/orders", {
			["Host"] = "api.example.org",
			["X-Api-Key"] = string.format("sk-live-7f3a90-%06x", i),
			["X-User"] = string.format("user-%06x", i),
		})
	end
end

function request()
	at = (at + 1) % 1000
	return requests[at]
end
