"""Requests to /events: plain, nearly plain and hostile ones."""

from __future__ import annotations

from daemonkit.web.fast_lane import MAX_BATCH, MAX_BODY, MAX_HEAD

LIMIT = 100_000
"""The max_request_size that the corpus expects."""


def request(
    body: bytes = b"{}",
    *headers: str,
    line: str = "POST /events HTTP/1.1",
    length: int | str | None = -1,
) -> bytes:
    """A request's bytes; length: of the body by default, None for no such header."""
    lines = [line, "Host: x", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


NDJSON = "Content-Type: application/x-ndjson"
CHUNKED = "Transfer-Encoding: chunked"
BODIES = [
    *(b"1", b"0", b"-0.5e3", b'""', b"null", b"true", b"false", b"[]", b"{}", b'"\\ud800"'),
    *(b' {"a": 1}', b'{"a": 1}\n', b"\t[1,\r\n2]\r\n", b'{"a": 1, "a": 2}', b"[1.5, 1e400]"),
    *("\ufeff{}".encode(), '"ä€😀"'.encode(), '{"ключ": "знач"}'.encode(), b"\xef\xbb\xbf"),
    *(b"", b" ", b"\n", b"nope", b"{", b"[1,]", b"{'a': 1}", b"01", b"1 2", b"{} x", b"\x00"),
    *(b"NaN", b"-Infinity", b"[Infinity]", b'"\t"', b'"\\x"', b"\xff", b'"\xc3"', b"\xff\xfe1\x00"),
    *(b"9" * 4300, b"9" * 4301, b"1e999", b"[" * 200 + b"]" * 200, b"[" * 201 + b"]" * 201),
    *(b'"' + b"[" * 300 + b'"', b'{"a":' * 150 + b"1" + b"}" * 150, b'{"s": "%s"}' % (b"x" * 500)),
    b'"%s"' % (b"x" * (MAX_BODY - 2)),
    b'"%s"' % (b"x" * (MAX_BODY - 1)),
    b'"%s"' % (b"x" * (LIMIT - 2)),
    b'"%s"' % (b"x" * (LIMIT - 1)),
]
BATCHES = [
    *(b"1", b"1\n", b"1\n2", b"1\r\n2\r\n", b"\n\n1\n\n \n2\n", b'{"a": 1}\n{"b": 2}\n'),
    *(b"", b"\n", b" \r\n\t", b"1\nx\n3", b"1\n\n2 3", b"[1\n]", b"\xef\xbb\xbf1\n2", b"1\n\xff"),
    *(b"1,2\n[3\n4]", b"NaN\n1", b"1\n" + b"[" * 201, b" 1\n2 ", b"1\n" * 1000, b"1\n" * 1001),
    b"1\n" + b" " * (MAX_BATCH - 2),
    b"1\n" + b" " * (MAX_BATCH - 1),
]
HEADERS = [
    *(
        "Content-Type: application/json",
        "Content-Type: text/plain; charset=utf-16",
        "Content-Type:",
    ),
    *("content-type:application/json", "Content-Type: APPLICATION/X-NDJSON", f"{NDJSON}; a=b"),
    *("Content-Type: application/x-ndjson ;a", "Content-Type: x application/x-ndjson", "X-Empty:"),
    *("Content-Type: application/x-ndjson,text/plain", "Content-Type:  application/x-ndjson  "),
    *("Content-Type: multipart/form-data; boundary=a", "Content-Type: a=b", "Content-Type: ;"),
    *(
        "Content-Type: application/x-www-form-urlencoded",
        "Accept: text/html",
        "Accept-Encoding: gzip",
    ),
    *("Connection: keep-alive", "Connection: Keep-Alive", "Connection: close", "Connection: CLOSE"),
    *(
        "Connection: upgrade",
        "Connection: keep-alive, close",
        "Connection: close, x",
        "Connection:",
    ),
    *(
        "Expect: 100-continue",
        "Expect: 200-ok",
        "Expect:",
        "Upgrade: websocket",
        "Range: bytes=0-1",
    ),
    *("Transfer-Encoding: identity", "Transfer-Encoding:", CHUNKED, "TE: trailers", "X_Y: z"),
    *("Content-Length: 2", "Content-Length: 3", "Content_Length: 9", "Content-length : 2"),
    *("Host: y", "Host: a..b", "Host:", "Cookie: session=abc.def; a=b", "Cookie: ,,=;\x7f"),
    *("X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4;host=a b", "X-HTTP-Method-Override: PUT"),
    *("If-Match: *", "If-None-Match: *", "Authorization: Basic !!!", "Authorization: Bearer \xe4"),
    *(
        "X: \xe4",
        "X: a\tb",
        "X: \x01",
        "X: \x0b",
        "X\x00: a",
        "X: a\rb",
        "X: a\nb",
        ": a",
        "nocolon",
    ),
    *(
        " folded: a",
        "X: a\r\n folded",
        "X:a",
        "X:    a   ",
        "Content-Encoding: gzip",
        "Date: never",
    ),
    *(
        f"X: {'x' * (MAX_HEAD - 100)}",
        f"X: {'x' * MAX_HEAD}",
        "Retry-After: 1",
        "Max-Forwards: 0",
    ),
    *("!#$%&'*+-.^`|~: odd", "X-Two: 1\r\nX-Two: 2", "Connection: close\r\nConnection: keep-alive"),
]
HOSTS = [
    *("localhost", "LOCALHOST:80", "127.0.0.1:5151", "[::1]", "[::1]:5151", "a-b.c_d:1", "x:99999"),
    *(
        "x:",
        "x:y",
        ":80",
        "a b",
        "a/b",
        "a@b",
        "ä",
        "xn--a",
        "a..b",
        ".a",
        "a.",
        "[::1",
        "[x]",
        "*",
    ),
    *("a" * 63, "a" * 64, ".".join(["a"] * 150), "x,y", "x:80:80", "x:123456", "x\\y", "", "[]"),
]
LINES = [
    *("POST /events HTTP/1.0", "POST /events HTTP/1.2", "POST /events HTTP/2.0", "POST /events"),
    *(
        "POST /events?a=b HTTP/1.1",
        "POST /events# HTTP/1.1",
        "POST /events/ HTTP/1.1",
        "POST * HTTP/1.1",
    ),
    *("POST /%65vents HTTP/1.1", "POST //events HTTP/1.1", "POST http://x/events HTTP/1.1"),
    *(
        "GET /events HTTP/1.1",
        "PUT /events HTTP/1.1",
        "HEAD /events HTTP/1.1",
        "OPTIONS /events HTTP/1.1",
    ),
    *(
        "post /events HTTP/1.1",
        "POST  /events HTTP/1.1",
        "POST /events  HTTP/1.1",
        "POST /events HTTP/1.1 ",
    ),
    *(
        "POST /EVENTS HTTP/1.1",
        "POST /event HTTP/1.1",
        "POST /events http/1.1",
        "DELETE /events HTTP/1.1",
    ),
    *(
        "POST /./events HTTP/1.1",
        "POST /events\tHTTP/1.1",
        "\r\nPOST /events HTTP/1.1",
        "POST /events;a HTTP/1.1",
    ),
]
ONE = request(b'{"a": 1}')
CORPUS = {
    **{f"body {body[:30]!r} of {len(body)}": request(body) for body in BODIES},
    **{f"ndjson {body[:30]!r} of {len(body)}": request(body, NDJSON) for body in BATCHES},
    **{f"header {header[:50]!r}": request(b"{}", header) for header in HEADERS},
    **{f"ndjson, header {h[:50]!r}": request(b"1\n2", NDJSON, h) for h in HEADERS[-8:]},
    **{
        f"host {host[:70]!r}": ONE.replace(b"Host: x", f"Host: {host}".encode("latin-1"))
        for host in HOSTS
    },
    **{f"line {line!r}": request(b"{}", line=line) for line in LINES},
    **{f"1.0, {h!r}": request(b"{}", h, line="POST /events HTTP/1.0") for h in HEADERS[15:24]},
    **{
        f"length {n!r}": request(b"{}", length=n)
        for n in ("0", "1", "002", "+2", "-2", "2.0", "0x2", "2 ", "", "9" * 30, "2,2", None)
    },
    "no host": ONE.replace(b"Host: x\r\n", b""),
    "bare line feeds": ONE.replace(b"\r\n", b"\n"),
    "two events": ONE + ONE,
    "fifty events": ONE * 50,
    "good, bad, good": ONE + request(b"nope") + ONE,
    "event, status line, event": ONE + request(b"", line="GET /last HTTP/1.1") + ONE,
    "event, batch, event": ONE + request(b"1\n2\n", NDJSON) + ONE,
    "batch, bad batch, event": request(b"1\n2", NDJSON) + request(b"1\nx", NDJSON) + ONE,
    "event, close, event": ONE + request(b"{}", "Connection: close") + ONE,
    "event, unframed, event": ONE + request(b"", length=None) + ONE,
    "event, nonsense, event": ONE + b"nonsense\r\n\r\n" + ONE,
    "event, blank lines, event": ONE + b"\r\n\r\n\r\n" + ONE,
    "chunked": request(chunked(b'{"a":', b" 1}"), CHUNKED, length=None),
    "chunked, empty": request(chunked(), CHUNKED, length=None),
    "chunked, bad JSON": request(chunked(b"nope"), CHUNKED, length=None),
    "chunked, bad framing": request(b"zz\r\n", CHUNKED, length=None),
    "chunked ndjson": request(chunked(b"1\n", b"2\n"), CHUNKED, NDJSON, length=None),
    "chunked, then an event": request(chunked(b"1"), CHUNKED, length=None) + ONE,
    "event, then chunked": ONE + request(chunked(b"1"), CHUNKED, length=None),
}

# With the settings for access control

SEND_TOKEN, OTHER_SEND_TOKEN, READ_TOKEN = "s" * 16, "t" * 20, "r" * 16
AUTHORIZED = f"Authorization: Bearer {SEND_TOKEN}"
AUTHORIZATIONS = [
    *(AUTHORIZED, f"authorization:bearer {SEND_TOKEN}", f"Authorization: BEARER  {SEND_TOKEN} "),
    *(f"Authorization: Bearer {OTHER_SEND_TOKEN}", f"Authorization: Bearer {READ_TOKEN}"),
    *(f"Authorization: Bearer {SEND_TOKEN}x", f"Authorization: Bearer {SEND_TOKEN[1:]}"),
    *(f"Authorization: {SEND_TOKEN}", f"Authorization: Basic {SEND_TOKEN}", "Authorization:"),
    *("Authorization: Bearer", "Authorization: Bearer ", f"Authorization: Bearer\t{SEND_TOKEN}"),
    *(f"Authorization: Bearer {SEND_TOKEN.upper()}", f"Authorization: Bearer {SEND_TOKEN}\xe4"),
    *(f"{AUTHORIZED}\r\n{AUTHORIZED}", f"{AUTHORIZED}, Bearer x", f"Proxy-{AUTHORIZED}"),
    *(f"Authorization : Bearer {SEND_TOKEN}", f"Authorization_: Bearer {SEND_TOKEN}", "X: y"),
]
FORWARDINGS = [
    *("X-Forwarded-For: 192.0.2.5", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: unknown"),
    *("X-Forwarded-For: 203.0.113.9, 192.0.2.5", "X-Forwarded-For: 192.0.2.5, 203.0.113.9"),
    *("X-Forwarded-For: 192.0.2.5:80", "X-Forwarded-For: [2001:db8::5]:80", "X-Forwarded-For:"),
    *("X-Forwarded-For: 192.0.2.5, 127.0.0.1", "X-Forwarded-For: ::ffff:192.0.2.5"),
    *(
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-For: ,",
        "X-Forwarded-For: []",
        "x-forwarded-for:x",
    ),
    *(
        "X-Forwarded-For: [192.0.2.5]",
        "X-Forwarded-For: 192.0.2.5%eth0",
        "X-Forwarded-For: fe80::1%1",
    ),
    "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 192.0.2.5",
    "X-Forwarded-For: 192.0.2.5\r\nX-Forwarded-For: 203.0.113.9",
    *("X_Forwarded_For: 203.0.113.9", "X-Forwarded_For: 192.0.2.5", "X-Forwarded-For : 192.0.2.5"),
    *("X-Forwarded-For: 192.0.2.5\t", "X-Forwarded-For: 192.0.2.5\xa0", "X-Real-IP: 203.0.113.9"),
    *("X-Forwarded-Host: x", "X-Forwarded-Host: evil.example", "X-Forwarded-Host: a.internal:80"),
    *(
        "X-Forwarded-Host: evil.example, x",
        "X-Forwarded-Host: x, evil.example",
        "X-Forwarded-Host:",
    ),
    *(
        "X-Forwarded-Host: x,",
        "X-Forwarded-Host: a b",
        "X-Forwarded-Host: x y",
        "X-Forwarded-Host: [::1",
    ),
    *(
        "X-Forwarded-Host: x@y",
        "X-Forwarded-Host: x/y",
        "X-Forwarded-Host: .internal",
        "X_Forwarded_Host: y",
    ),
    *(
        f"X-Forwarded-Host: {'a' * 70}.internal",
        "X-Forwarded-Host: a..internal",
        "X-Forwarded-Host: x:y",
    ),
    *("X-Forwarded-Host: x:99999", "X-Forwarded-Host: *.internal", "X-Forwarded-Host: x\xe4"),
    "X-Forwarded-Host: x\r\nX-Forwarded-Host: evil.example",
    *("X-Forwarded-Proto: https", "X-Forwarded-Proto: https, http", "X-Forwarded-Proto: gopher"),
    *("X-Forwarded-Proto:", "X-Forwarded-Port: 443", "X-Forwarded-Prefix: /a", "X-Forwarded-By: a"),
    *("Forwarded: for=203.0.113.9;host=evil.example;proto=https", "Via: 1.1 proxy", "Forwarded:"),
]
SITES = [
    *("Origin: http://x", "Origin: http://x:80", "Origin: http://evil.example", "Origin: null"),
    *("Origin:", "Origin: http://[", "Origin: https://x", "Origin: http://a.internal:81"),
    *("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"),
    *("Sec-Fetch-Site: same-site", "Sec-Fetch-Site:", "SEC-FETCH-SITE: CROSS-SITE"),
    *("Origin: http://evil.example\r\nSec-Fetch-Site: none", "Sec-Fetch-Mode: cors"),
    "Origin: http://x\r\nX-Forwarded-Host: a.internal",
    "Origin: http://a.internal\r\nX-Forwarded-Host: a.internal",
]
NAMED = [
    *("x:80", "X", "x.", "x.:5151", "a.internal", "internal", "INTERNAL:1", "a.b.internal."),
    *(
        "evil.example",
        "ainternal",
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1",
        "127.9.9.9:1",
        "127.1",
    ),
    *(
        "[::1]",
        "[::1]:5151",
        "[::ffff:127.0.0.1]",
        "[2001:db8::7]",
        "[2001:DB8:0::7]:1",
        "[::2]",
        "",
    ),
]
AUTHORIZED_ONE = request(b'{"a": 1}', AUTHORIZED)
GUARDED_CORPUS = {
    **{
        name: data.replace(b"Host: x\r\n", f"Host: x\r\n{AUTHORIZED}\r\n".encode())
        for name, data in CORPUS.items()
    },
    **{f"{value[:60]!r}": request(b"1", value) for value in AUTHORIZATIONS},
    **{f"ndjson, {value[:60]!r}": request(b"1\n2", NDJSON, value) for value in AUTHORIZATIONS},
    **{f"{v[:70]!r}": request(b"1", AUTHORIZED, v) for v in (*FORWARDINGS, *SITES)},
    **{f"nobody, {v[:70]!r}": request(b"1", v) for v in (*FORWARDINGS[:4], *SITES[:4])},
    **{
        f"named {host!r}": AUTHORIZED_ONE.replace(b"Host: x", f"Host: {host}".encode())
        for host in NAMED
    },
    **{
        f"named {host!r}, {forwarded}": AUTHORIZED_ONE.replace(
            b"Host: x", f"Host: {host}\r\nX-Forwarded-Host: {forwarded}".encode()
        )
        for host in ("x", "evil.example", "localhost")
        for forwarded in ("x", "evil.example", "localhost")
    },
    "allowed, nobody, allowed": AUTHORIZED_ONE + ONE + AUTHORIZED_ONE,
    "allowed, denied client, allowed": AUTHORIZED_ONE
    + request(b"2", AUTHORIZED, "X-Forwarded-For: 203.0.113.9")
    + AUTHORIZED_ONE,
}
