-- The requests that wrk sends: all the same, or with one header that differs.
-- Arguments: the path and, of requests with a body, the file of the body, "alike" or "differing", and
-- header fields.

function init(args)
   wrk.path = args[1]
   if args[2] == nil then
      return
   end
   local file = assert(io.open(args[2], "rb"))
   wrk.method = "POST"
   wrk.body = file:read("*a")
   file:close()
   for place = 4, #args do
      local name, value = string.match(args[place], "^(.-): (.*)$")
      wrk.headers[name] = value
   end
   if args[3] == "differing" then
      wrk.headers["X-Request-Id"] = "@"
      local before, after = string.match(wrk.format(), "^(.*X%-Request%-Id: )@(.*)$")
      local count = 0
      function request()
         count = count + 1
         return before .. count .. after
      end
   end
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "microseconds": %d, "p99": %d, "errors": {"connect": %d, "read": %d, ' ..
      '"write": %d, "status": %d, "timeout": %d}}\n',
      summary.requests, summary.duration, latency:percentile(99),
      e.connect, e.read, e.write, e.status, e.timeout))
end
