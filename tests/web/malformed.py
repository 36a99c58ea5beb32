"""Requests that have to be refused, and unusual ones that have to be answered."""

from __future__ import annotations

GET = b"GET /ping HTTP/1.1"
POST = b"POST /events HTTP/1.1"
HOST = b"Host: x"
CHUNKED = b"Transfer-Encoding: chunked"


def lines(*parts: bytes) -> bytes:
    return b"\r\n".join([*parts, b"", b""])


def get(*fields: bytes) -> bytes:
    return lines(GET, HOST, *fields)


def post(body: bytes, *fields: bytes) -> bytes:
    return lines(POST, HOST, *fields) + body


def target(line: bytes) -> bytes:
    return lines(line, HOST)


def chunks(body: bytes) -> bytes:
    return post(body, CHUNKED)


CONTROLS = [b"%c" % code for code in (*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F)]

REQUEST_LINES = {
    400: [
        *(target(line) for line in (b"GET", b"GET /", b"GET / ", b"GET /ping", b"/ping HTTP/1.1")),
        *(target(b"GET /ping" + sep + b"HTTP/1.1") for sep in (b"  ", b"\t", b"\x0b", b" \t")),
        *(target(b"GET" + sep + b"/ping HTTP/1.1") for sep in (b"  ", b"\t", b": ", b"\x00 ")),
        target(b"GET /ping HTTP/1.1 "),
        target(b"GET /ping HTTP/1.1 x"),
        target(b" GET /ping HTTP/1.1"),
        *(target(b"GET /ping " + v) for v in (b"http/1.1", b"HTTP/1", b"HTTP/11", b"HTTP/1.10")),
        *(target(b"GET /ping " + v) for v in (b"HTTP/.1", b"HTTP/1.", b"HTTP/a.b", b"HTTPS/1.1")),
        *(target(b"GET /ping " + v) for v in (b"FTP/1.1", b"HTTP/ 1.1", b"HTTP 1.1", b"HTTP/-1.1")),
        *(target(m + b" /ping HTTP/1.1") for m in (b"get", b"Get", b"G(T", b"G\xc9T", b"G@T")),
        *(target(b"GET /p" + c + b"ing HTTP/1.1") for c in (b"\x00", b"\x01", b"\x1b", b"\x7f")),
        *(target(b"POST " + t + b" HTTP/1.1") for t in (b"foo:events", b"events", b"?a", b"#a")),
        *(target(b"GET " + t + b" HTTP/1.1") for t in (b"x:status", b"host:443", b"x", b"*")),
        *(
            target(b"GET " + t + b" HTTP/1.1")
            for t in (b"ftp://x/", b"http:/x", b"http:///x", b".")
        ),
        *(target(b"GET " + t + b" HTTP/1.1") for t in (b"http://[::1/", b"http://a b/", b"s://]/")),
        *(target(b"GET http://" + t + b"/ HTTP/1.1") for t in (b"x:y", b"x:1:2", b"", b"[::1]x")),
        target(b"POST * HTTP/1.1"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n" + get(),
        b"GET /ping HTTP/1.1\n" + HOST + b"\n\n",
        b"GET /ping HTTP/1.1\r" + HOST + b"\r\r",
        b"\x16\x03\x01\x02\x00\x01",
        b"\r\n" * 17 + get(),
        b"\n" * 17 + get(),
    ],
    501: [target(b"CONNECT " + t + b" HTTP/1.1") for t in (b"x:443", b"/ping", b"*", b"http://x/")],
    505: [
        target(b"GET /ping HTTP/" + version)
        for version in (b"2.0", b"9.9", b"0.9", b"3.0", b"0.0", b"2.1", b"0.99"[:3])
    ],
    200: [
        *(get(), target(b"GET /ping HTTP/1.7"), target(b"GET /ping HTTP/1.2")),
        *(lines(b"GET /ping HTTP/1.0"), target(b"GET /ping HTTP/1.0")),
        *(target(b"GET " + t + b" HTTP/1.1") for t in (b"/ping?", b"/ping#x", b"/ping?a=/b?c#d")),
        *(target(b"GET " + t + b" HTTP/1.1") for t in (b"/%70ing", b"//ping", b'/ping?\xe4"<>')),
        *(target(b"GET " + t + b" HTTP/1.1") for t in (b"http://x/ping", b"HTTPS://y:1/ping?a")),
        *(target(b"GET http://" + t + b"/ping HTTP/1.1") for t in (b"[::1]:80", b"u:p@x", b"x:")),
        *(target(b"OPTIONS * HTTP/1.1"), b"\r\n" + get(), b"\r\n\r\n\r\n" + get()),
    ],
    404: [
        target(b"GET http://x HTTP/1.1"),
        target(b"GET / HTTP/1.1"),
        target(b"GET /x:1 HTTP/1.1"),
    ],
    405: [target(b"POST /ping HTTP/1.1").replace(b"x\r\n", b"x\r\nContent-Length: 0\r\n", 1)],
}
HOSTS = {
    400: [
        lines(GET),
        lines(GET, b"X-Host: x"),
        lines(GET, HOST, HOST),
        lines(GET, HOST, b"Host: y"),
        lines(GET, HOST, b"hOsT: x"),
        lines(b"GET /ping HTTP/1.0", HOST, HOST),
        lines(b"GET http://x/ping HTTP/1.1", HOST, HOST),
        *(
            lines(GET, b"Host: " + host)
            for host in (b"a b", b"a/b", b"a@b", b"a?b", b"a#b", b"a,b", b'"a"', b"a:b", b"a:1:2")
        ),
        *(
            lines(GET, b"Host: " + host)
            for host in (
                b"[::1",
                b"::1",
                b"[x]",
                b"[]",
                b"%zz",
                b"\xe4",
                b"a:123456",
                b"<a>",
                b"a\tb",
            )
        ),
    ],
    200: [
        lines(GET, b"Host: " + host)
        for host in (
            b"",
            b"a:",
            b"a.b-c_d:65535",
            b"127.0.0.1",
            b"[::1]:5151",
            b"%41",
            b"[fe80::1%25a]",
        )
    ],
}
FIELDS = {
    400: [
        *(get(field) for field in (b": a", b"nocolon", b"X : a", b"X\t: a", b" X: a", b"\tX: a")),
        *(get(b"X: a\r\n" + fold + b"b") for fold in (b" ", b"\t", b" X: ")),
        *(get(b"X: a" + control + b"b") for control in CONTROLS),
        *(get(b"X" + control + b": a") for control in CONTROLS[:4]),
        *(get(b"X: a" + end + b"Y: b") for end in (b"\n", b"\r", b"\n\r", b"\r\r\n", b"\n ")),
        *(
            get(name + b": a")
            for name in (b"X(", b"X[]", b"X\xe4", b"X,", b"X/", b"X{}", b"X;", b"X=")
        ),
        get(b"Content-Type: a/b", b"Content-Type: a/b"),
    ],
    431: [
        get(b"X: " + b"x" * 300_000),
        get(*[b"X: a"] * 1001),
    ],
    200: [
        get(*fields)
        for fields in (
            [b"X:"],
            [b"X:a"],
            [b"X:  \t a \t "],
            [b"X: a\tb c"],
            [b"X: \xe4\xff"],
            [b"!#$%&'*+-.^_`|~: odd"],
            [b"X: a", b"X: b"],
            [b"X_Y: a"],
            [b"Content_Length: 5"],
            [b"Transfer_Encoding: chunked"],
            [b"X: " + b"x" * 100_000],
            [b"X: a"] * 900,
            [b"Expect: 200-ok"],
            [b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings"],
        )
    ],
}
LENGTHS = {
    400: [
        *(
            post(b"1", b"Content-Length: " + length)
            for length in (
                b"-1",
                b"+1",
                b"1 ,1",
                b"1,1",
                b"1 1",
                b"0x1",
                b"1.0",
                b"1e0",
                b"",
                b"\xb2",
            )
        ),
        *(
            post(b"1", b"Content-Length: " + length)
            for length in (b"one", b"1_0", b"\xd9\xa1", b"-0")
        ),
        post(b"1", b"Content-Length: 1", b"Content-Length: 1"),
        post(b"1", b"Content-Length: 1", b"Content-Length: 2"),
        post(b"1", b"Content-Length: 1", b"content-length: 1"),
        post(b"1\r\n1\r\n0\r\n\r\n", b"Content-Length: 1", CHUNKED),
        post(b"1\r\n1\r\n0\r\n\r\n", CHUNKED, b"Content-Length: 1"),
        post(b"1", b"Content-Length: 1", b"Transfer-Encoding:"),
        lines(b"POST /events HTTP/1.0", CHUNKED) + b"1\r\n1\r\n0\r\n\r\n",
        lines(b"POST /events HTTP/1.0", CHUNKED, b"Content-Length: 1") + b"1",
        *(
            post(b"1\r\n1\r\n0\r\n\r\n", b"Transfer-Encoding: " + coding)
            for coding in (
                b"",
                b",",
                b"chunked, chunked",
                b"chunked,",
                b", chunked",
                b"chunked\x00",
            )
        ),
        post(b"1\r\n1\r\n0\r\n\r\n", CHUNKED, CHUNKED),
        post(b"1\r\n1\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\x0b"),
        post(b"1\r\n1\r\n0\r\n\r\n", b"Transfer-Encoding:\x0bchunked"),
        post(b"1\r\n1\r\n0\r\n\r\n", b"Transfer-Encoding : chunked"),
        post(b"1\r\n1\r\n0\r\n\r\n", b" Transfer-Encoding: chunked"),
        post(b"1\r\n1\r\n0\r\n\r\n", b"Transfer-Encoding:\r\n chunked"),
    ],
    501: [
        post(b"1\r\n1\r\n0\r\n\r\n", b"Transfer-Encoding: " + coding)
        for coding in (
            *(
                b"gzip",
                b"identity",
                b"gzip, chunked",
                b"chunked, gzip",
                b"chunked;a=b",
                b"xchunked",
            ),
            *(b'"chunked"', b"chunked chunked", b"\xa0chunked", b"chunked\xa0", b"cow"),
        )
    ],
    411: [post(b"")],
    413: [
        post(b"", b"Content-Length: 10485761"),
        post(b"", b"Content-Length: 99999999999999999999"),
        post(b"", b"Content-Length: " + b"9" * 5000),
        *(chunks(size + b"\r\n") for size in (b"A00001", b"FFFFFFFFFF", b"F" * 15, b"F" * 100)),
        chunks(b"1\r\n1\r\na00000\r\n"),
    ],
    200: [
        post(b"1", b"Content-Length: 1"),
        post(b"1", b"Content-Length: 01"),
        post(b"1", b"Content-Length:\t1 "),
        post(b"1", b"Content-Length: " + b"0" * 5000 + b"1"),
    ],
}
CHUNK_LINES = {
    400: [
        *(
            chunks(line + b"\r\n1\r\n0\r\n\r\n")
            for line in (
                *(
                    b"",
                    b" 1",
                    b"1 ",
                    b"\t1",
                    b"1\t",
                    b"+1",
                    b"-1",
                    b"0x1",
                    b"1h",
                    b"g",
                    b"1_0",
                    b"1,",
                ),
                *(b"1;", b"1; ", b"1;;a", b"1;a=", b"1;=a", b'1;a="', b'1;a="b', b"1;a b", b"1 a"),
                *(b"1;a=b;", b"1;a=\x00", b"1;\x7f", b"1;a\rb", b"1\n;a", b"1;a\nb", b"1;a=(b)"),
                *(b'1;a="\x00"', b"\xef\xbc\x91", b";a=b", b" ;a=b", b"1" + b";a" * 3000),
            )
        ),
        chunks(b"1\n1\r\n0\r\n\r\n"),
        chunks(b"1\r1\r\n0\r\n\r\n"),
        chunks(b"1\r\n12\r\n0\r\n\r\n"),
        chunks(b"1\r\n1\n0\r\n\r\n"),
        chunks(b"1\r\n10\r\n\r\n"),
        chunks(b"1\r\n1\rx0\r\n\r\n"),
        chunks(b"2\r\n1\r\n0\r\n\r\n"),
        chunks(b"1\r\n1\r\n\r\n0\r\n\r\n"),
        chunks(b"1\r\n1\r\n0\r\n\n"),
        chunks(b"1\r\n1\r\n0\r\nx\r\n\r\n"),
        chunks(b"1\r\n1\r\n0\r\n: a\r\n\r\n"),
        chunks(b"1\r\n1\r\n0\r\nX : a\r\n\r\n"),
        chunks(b"1\r\n1\r\n0\r\n X: a\r\n\r\n"),
        chunks(b"1\r\n1\r\n0\r\nX: a\r\n b\r\n\r\n"),
        chunks(b"1\r\n1\r\n0\r\nX: a\nY: b\r\n\r\n"),
        chunks(b"1\r\n1\r\n0\r\nX: \x01\r\n\r\n"),
        *(
            chunks(b"1\r\n1\r\n0\r\n" + name + b": 1\r\n\r\n")
            for name in (b"Content-Length", b"transfer-encoding", b"HOST")
        ),
        chunks(b"1\r\n1\r\n0\r\nX: " + b"x" * 9000 + b"\r\n\r\n"),
        chunks(b"1;a=%b\r\n1\r\n" % (b"x" * 4000) * 5 + b"0\r\n\r\n"),
    ],
    431: [chunks(b"1\r\n1\r\n0\r\n" + b"X: a\r\n" * 3000 + b"\r\n")],
    200: [
        chunks(line + b"\r\n1\r\n0\r\n\r\n")
        for line in (
            *(
                b"1",
                b"01",
                b"0" * 50 + b"1",
                b"1; a=b",
                b"1;a",
                b"1 ;a",
                b"1\t;\ta\t=\tb",
                b"1;a;b;c=d",
            ),
            *(b'1;a="b c;\\"d"', b'1;a=""', b"1; a", b"1;a=b;c", b"1" + b";a" * 100),
        )
    ]
    + [
        chunks(b"1\r\n1\r\n000\r\n\r\n"),
        chunks(b"1\r\n1\r\n0;a=b\r\n\r\n"),
        chunks(b"1\r\n1\r\n0\r\nX: a\r\nY:\r\n\r\n"),
        chunks(b"A\r\n1234567890\r\nb\r\n12345678901\r\n0\r\n\r\n"),
        chunks(b"1\r\n1\r\n" * 3000 + b"0\r\n\r\n"),
    ],
}
CONNECTIONS = [
    *(b"Connection: close", b"Connection: CLOSE", b"Connection: keep-alive, close"),
    *(
        b"Connection: TE, close",
        b"Connection: close,x",
        b"Connection: ,close ,",
        b"Connection:close",
    ),
    *(
        b"Connection: keep-alive\r\nConnection: close",
        b"Connection: close\r\nConnection: keep-alive",
    ),
    b"Connection: upgrade\r\nX: y\r\nConnection:\tclose",
]
"""Fields that say that the connection is to be closed."""

ALL = [REQUEST_LINES, HOSTS, FIELDS, LENGTHS, CHUNK_LINES]
ANSWERS = [(data, code) for table in ALL for code, datas in table.items() for data in datas]
"""Requests with the status of their answers."""
