-- The requests that wrk sends: the same request repeatedly, or the requests of a file in rotation.
-- Arguments: method, path, kind of the file's lines (none, token, body, refresh), file, milliseconds between two
-- requests of a connection. Prints one line of JSON at the end.

local requests, position = {}, 0
local refresh = false
local first, last = 1, 0

local function body(text)
   return wrk.format(method, path, {["Host"] = wrk.headers["Host"], ["Content-Type"] = "application/json"}, text)
end

function init(arguments)
   method, path = arguments[1], arguments[2]
   local kind, file, pause = arguments[3], arguments[4], tonumber(arguments[5])
   refresh = kind == "refresh"
   if kind == "none" then
      requests[1] = wrk.format(method, path)
   else
      for line in io.lines(file) do
         if kind == "token" then
            requests[#requests + 1] =
               wrk.format(method, path, {["Host"] = wrk.headers["Host"], ["Authorization"] = "Bearer " .. line})
         elseif kind == "body" then
            requests[#requests + 1] = body(line)
         else -- refresh tokens: each response contains the next one
            last = last + 1
            requests[last] = line
         end
      end
   end
   if pause > 0 then
      function delay()
         return pause
      end
   end
   if refresh then
      function response(status, headers, text)
         local token = string.match(text, '"refresh_token":"([^"]+)"')
         if token then
            last = last + 1
            requests[last] = token
         end
      end
   end
end

function request()
   if refresh then
      local token = requests[first]
      requests[first] = nil
      first = first + 1
      return body('{"refresh_token":"' .. token .. '"}')
   end
   position = position % #requests + 1
   return requests[position]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"microseconds":%d,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"p50":%d,"p99":%d}\n',
      summary.requests, summary.duration, errors.status, errors.connect, errors.read, errors.write, errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
