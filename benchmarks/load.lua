-- The script for wrk. It sends the requests in `work` in turn; the text before this one defines
-- them. If `rotating` is set, each has a refresh token that works once, and its answer the next.

local ready, turn = {}, 0

local function formatted(each)
    return wrk.format(each.method, each.path, each.headers, each.body)
end

function init()
    for number, each in ipairs(work) do
        ready[number] = formatted(each)
    end
end

function request()
    turn = turn + 1
    if rotating then
        local mine = ready[turn]
        ready[turn] = nil
        return mine
    end
    return ready[(turn - 1) % #work + 1]
end

if rotating then
    local last = #work

    function response(status, headers, body)
        local token = body:match('"refresh_token"%s*:%s*"([^"]+)"')
        if token then
            local again = work[1]
            again.body = '{"refresh_token": "' .. token .. '"}'
            last = last + 1
            ready[last] = formatted(again)
        end
    end
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000,
        e.connect + e.read + e.write + e.status + e.timeout))
end
