-- The responses of haproxy.cfg to what is not HTTP: problem details (RFC 9457), as its lines `http-error`.
-- Every origin may read them, because they are the same for every client, and the request's own could not be read.

local RESPONSE = "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n" ..
    "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Request-ID: %s\r\n" ..
    "Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n%s"

local function refuse(code, status, title, body)
    core.register_service(code, "tcp", function(applet)
        local request_id = applet.f:uuid()
        applet:set_var("txn.request_id", request_id)
        applet:set_var("txn.status", status)
        local text = body:gsub("ID", request_id)
        applet:send(RESPONSE:format(status, title, #text, request_id, text))
    end)
end

refuse("bad_request", 400, "Bad Request",
    '{"type":"about:blank","title":"Bad Request","status":400,"detail":"The request is not valid HTTP.","code":"bad_request","request_id":"ID"}')
refuse("request_timeout", 408, "Request Timeout",
    '{"type":"about:blank","title":"Request Timeout","status":408,"detail":"The request took too long to arrive.","code":"request_timeout","request_id":"ID"}')
refuse("payload_too_large", 413, "Content Too Large",
    '{"type":"about:blank","title":"Content Too Large","status":413,"detail":"The request is too large.","code":"payload_too_large","request_id":"ID"}')
