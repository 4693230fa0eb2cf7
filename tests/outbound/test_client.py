"""The guarded client, over real sockets: where it goes, how often, and how much it takes."""

import asyncio
import gzip
import ssl
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.outbound.client import Outbound
from app.outbound.errors import AnswerTooLarge, AnswerUnexpected, OutboundRefused, RedirectsEndless, UrlInvalid
from app.outbound.policy import Limits, Reach
from graphs.errors import PilothouseError, UpstreamError, UpstreamTimeout
from tests.outbound.servers import LOCAL, Names, answer, named, redirect, serving

WITHIN = Limits(total_s=20.0, max_bytes=100_000, redirects=3)


async def test_an_answer_comes_whole_with_its_head() -> None:
    async with serving(
        lambda _: answer(b"hi", "Content-Type: Text/Plain; charset=utf-8", "X-A: 1", "X-A: 2")
    ) as server:
        reply = await Outbound(LOCAL, WITHIN).send("GET", server.url("/a?b=c#d"), headers={"X-Mine": "1"})
    assert (reply.status, reply.body, reply.content_type, reply.headers["x-a"]) == (200, b"hi", "text/plain", "1")
    assert reply.url == server.url("/a?b=c")
    assert server.requests[0].startswith("GET /a?b=c HTTP/1.1\r\n")
    assert (server.header("x-mine"), server.header("cookie")) == ("1", None)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "localhost"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::1]", "[::]", "[64:ff9b::7f00:1]"),
        *("a@127.0.0.1", "good.test@127.0.0.1", "good.test\\@127.0.0.1", "127.0.0.1\\@good.test", "①②⑦.⓪.⓪.①"),
        *("localhost.", "127。0。0。1", "LOCALHOST", "%31%32%37.0.0.1"),
    ],
)
async def test_s01_no_way_to_write_loopback_gets_there(host: str) -> None:
    async with serving(lambda _: answer()) as server:
        with pytest.raises(PilothouseError) as refused:
            await Outbound(Reach(), WITHIN).send("GET", server.url(host=host))
    assert isinstance(refused.value, OutboundRefused | UrlInvalid)
    assert server.requests == []


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:127.0.0.1", "169.254.169.254"]
)
async def test_s02_a_name_that_leads_inside_is_refused_as_one_that_does_not_exist(inside: str) -> None:
    client = Outbound(Reach(), WITHIN, lookup=named(inside_test=inside))
    told = set()
    for name in ("inside.test", "missing.test"):
        with pytest.raises(OutboundRefused) as refused:
            await client.send("GET", f"http://{name}/")
        told.add((refused.value.kind, refused.value.code, refused.value.message))
    ((kind, code, message),) = told
    assert (kind, code) == ("denied", "outbound_refused")
    assert inside not in message


async def test_s04_one_inner_address_among_the_answers_refuses_them_all() -> None:
    async with serving(lambda _: answer()) as server:
        for answers in (("1.1.1.1", "10.0.0.1"), ("10.0.0.1", "1.1.1.1"), ()):
            names = Names({"mixed.test": [answers]})
            with pytest.raises(OutboundRefused):
                await Outbound(Reach(), WITHIN, lookup=names).send("GET", server.url(host="mixed.test"))
    assert server.requests == []


async def test_s04_a_name_is_looked_up_once_and_the_connection_goes_where_the_check_went() -> None:
    names = Names({"rebinds.test": [("127.0.0.1",), ("169.254.169.254",)]})
    async with serving(lambda _: answer()) as server:
        reply = await Outbound(LOCAL, WITHIN, lookup=names).send("GET", server.url(host="rebinds.test"))
    assert (reply.status, names.asked) == (200, ["rebinds.test"])
    assert server.header("host") == f"rebinds.test:{server.port}"


async def test_s04_a_name_that_rebinds_between_two_hops_is_caught_at_the_second() -> None:
    names = Names({"rebinds.test": [("127.0.0.1",), ("10.0.0.1",)]})
    async with serving(lambda _: redirect("/again")) as server:
        with pytest.raises(OutboundRefused):
            await Outbound(LOCAL, WITHIN, lookup=names).send("GET", server.url(host="rebinds.test"))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "location",
    [
        *("http://10.0.0.1/", "http://inside.test/", "//169.254.169.254/latest", "http://[::1]/", "http://2130706433/"),
        *(
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "javascript:1",
            "http://a@127.0.0.1/",
            "http://x\\@y/",
        ),
    ],
)
async def test_s03_a_redirect_to_where_no_request_may_go_is_not_followed(location: str) -> None:
    client = Outbound(LOCAL, WITHIN, lookup=named(inside_test="10.0.0.1"))
    async with serving(lambda _: redirect(location)) as server:
        with pytest.raises(OutboundRefused) as refused:
            await client.send("GET", server.url())
    assert len(server.requests) == 1
    assert not any(word in refused.value.message for word in ("10.0.0.1", "inside", "169.254", "passwd"))


async def test_s03_three_redirects_are_followed_and_a_loop_is_not_for_ever() -> None:
    def answers(path: str) -> bytes:
        left = int(path.strip("/"))
        return redirect(f"/{left - 1}", "307 Temporary Redirect") if left else answer(b"there")

    async with serving(answers) as server:
        reply = await Outbound(LOCAL, WITHIN).send("GET", server.url("/3"))
        assert (reply.body, reply.url) == (b"there", server.url("/0"))
        with pytest.raises(RedirectsEndless):
            await Outbound(LOCAL, WITHIN).send("GET", server.url("/4"))
    async with serving(lambda _: redirect("/")) as server:
        with pytest.raises(RedirectsEndless):
            await Outbound(LOCAL, WITHIN).send("GET", server.url())
    assert len(server.requests) == 4


@pytest.mark.parametrize(("method", "redirects"), [("POST", 3), ("GET", 0)])
async def test_s03_a_body_follows_no_redirect_and_nothing_does_where_none_are_allowed(
    method: str, redirects: int
) -> None:
    async with serving(lambda _: redirect("/elsewhere", "307 Temporary Redirect")) as server:
        reply = await Outbound(LOCAL, Limits(redirects=redirects)).send(method, server.url(), body=b"secret")
    assert (reply.status, len(server.requests)) == (307, 1)


async def test_s03_credentials_stay_with_the_origin_they_were_meant_for() -> None:
    sent = {"Authorization": "Bearer canary", "X-Api-Key": "canary", "Cookie": "canary", "Accept": "text/plain"}
    async with serving(lambda _: answer()) as other:
        answers = {"/": redirect("/again"), "/again": redirect(other.url(host="other.test"))}
        async with serving(lambda path: answers[path]) as first:
            client = Outbound(LOCAL, WITHIN, lookup=named(other_test="127.0.0.1"))
            await client.send("GET", first.url(), headers=sent)
    assert [first.header("x-api-key", at) for at in (0, 1)] == ["canary", "canary"]
    assert "canary" not in other.requests[0]
    assert other.header("accept") == "text/plain"


async def test_s09_a_bomb_is_left_when_its_bound_is_reached_and_others_get_their_turns() -> None:
    bomb, turns = gzip.compress(b"\0" * (32 << 20)), 0  # a thousand to one

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with serving(lambda _: answer(bomb, "Content-Encoding: gzip")) as server:
        beside = asyncio.create_task(others())
        with pytest.raises(AnswerTooLarge):
            await Outbound(LOCAL, Limits(total_s=60.0, max_bytes=24 << 20)).send("GET", server.url())
        beside.cancel()
    assert turns > 80  # 24 MB are unpacked in steps of a quarter


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
async def test_a_packed_answer_is_unpacked_up_to_its_bound(encoding: str) -> None:
    pack: Callable[[bytes], bytes] = zlib.compress if encoding == "deflate" else gzip.compress
    async with serving(lambda path: answer(pack(b"x" * int(path[1:])), f"Content-Encoding: {encoding}")) as server:
        client = Outbound(LOCAL, WITHIN)
        assert (await client.send("GET", server.url("/100000"))).body == b"x" * 100_000
        with pytest.raises(AnswerTooLarge):
            await client.send("GET", server.url("/100001"))


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(gzip.compress(b"x" * 1000)[:-6], "gzip", id="cut short"),
        pytest.param(gzip.compress(b"x") + gzip.compress(b"") * 1000, "gzip", id="in too many members"),
        (b"not packed", "gzip"),
        (b"x", "br"),
        (b"x", "gzip, gzip"),
    ],
)
async def test_s09_what_is_packed_wrongly_or_unasked_is_no_answer(body: bytes, encoding: str) -> None:
    async with serving(lambda _: answer(body, f"Content-Encoding: {encoding}")) as server:
        with pytest.raises(UpstreamError) as broken:
            await Outbound(LOCAL, WITHIN).send("GET", server.url())
    assert broken.value.code == "upstream_error"


async def test_s09_an_endless_answer_and_one_that_announces_too_much_are_left() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()

    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(lambda _: chunked, then=endless) as server:
        with pytest.raises(AnswerTooLarge):
            await Outbound(LOCAL, WITHIN).send("GET", server.url())
    async with serving(
        lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n", then=asyncio.Event().wait
    ) as server:
        with pytest.raises(AnswerTooLarge):  # before anything of the body came
            await Outbound(LOCAL, WITHIN).send("GET", server.url())


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
async def test_s09_a_dripping_server_hits_the_deadline_over_all(start: bytes) -> None:
    async def drips(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(lambda _: start, then=drips) as server:
        with pytest.raises(UpstreamTimeout) as late:
            await Outbound(LOCAL, Limits(total_s=0.3)).send("GET", server.url())
    assert "127.0.0.1" not in late.value.message


async def test_the_deadline_is_one_for_all_hops_and_for_looking_up_the_name() -> None:
    async def never(host: str, port: int) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    with pytest.raises(UpstreamTimeout):
        await Outbound(LOCAL, Limits(total_s=0.1), lookup=never).send("GET", "http://slow.test/")


async def test_s10_no_proxy_cookie_or_password_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passwords = tmp_path / "netrc"
    passwords.write_text("machine 127.0.0.1 login ann password canary")
    monkeypatch.setenv("NETRC", str(passwords))
    async with serving(lambda _: answer(b"proxy")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        async with serving(lambda _: answer(b"direct", "Set-Cookie: a=b; Path=/")) as server:
            client = Outbound(LOCAL, WITHIN)
            assert {(await client.send("GET", server.url())).body for _ in range(2)} == {b"direct"}
    assert proxy.requests == []
    assert "canary" not in "".join(server.requests)
    assert server.header("authorization") is server.header("cookie") is None


async def test_only_types_that_are_wanted_are_taken() -> None:
    client = Outbound(LOCAL, Limits(content_types=frozenset({"text/plain"})))
    async with serving(lambda path: answer(b"x", f"Content-Type: {path[1:]}")) as server:
        assert (await client.send("GET", server.url("/TEXT/plain;charset=x"))).body == b"x"
        with pytest.raises(AnswerUnexpected):
            await client.send("GET", server.url("/image/png"))
    async with serving(lambda _: answer(b"x")) as server:
        with pytest.raises(AnswerUnexpected):
            await client.send("GET", server.url())


@pytest.mark.parametrize("junk", [b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
async def test_a_server_that_speaks_no_http_or_breaks_off_is_an_upstream_failure(junk: bytes) -> None:
    async with serving(lambda _: junk) as server:
        with pytest.raises(UpstreamError) as broken:
            await Outbound(LOCAL, WITHIN).send("GET", server.url())
    assert "127.0.0.1" not in broken.value.message
    with pytest.raises(UpstreamError) as gone:
        await Outbound(LOCAL, WITHIN).send("GET", server.url())
    assert "127.0.0.1" not in gone.value.message


async def test_s06_a_request_leaves_its_url_s_hash_in_the_log_and_not_the_url(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with serving(lambda _: answer()) as server:
        url = server.url("/canary?token=canary")
        await Outbound(LOCAL, WITHIN).send("GET", url)
    assert [vars(line)["urlHash"] for line in caplog.records if line.name == "pilothouse.outbound"] == [
        sha256(url.encode()).hexdigest()
    ]
    assert not any("canary" in str(vars(line)) for line in caplog.records)


async def test_https_speaks_under_the_url_s_name_and_never_steps_down(tmp_path: Path) -> None:
    ours, theirs = certificate(tmp_path, "good.test")
    seen: list[str | None] = []
    theirs.sni_callback = lambda _, name, __: seen.append(name)
    names = named(good_test="127.0.0.1", wrong_test="127.0.0.1")
    client = Outbound(LOCAL, WITHIN, lookup=names, certificates=ours)
    async with serving(lambda _: answer(b"plain")) as plain:
        answers = {"/": answer(b"safe"), "/down": redirect(plain.url(host="good.test"))}
        async with serving(lambda path: answers[path], tls=theirs) as server:
            reply = await client.send("GET", server.url(host="good.test", scheme="https"))
            assert (reply.body, seen) == (b"safe", ["good.test"])
            with pytest.raises(OutboundRefused):
                await client.send("GET", server.url("/down", host="good.test", scheme="https"))
            for host in ("wrong.test", "127.0.0.1"):
                with pytest.raises(UpstreamError):
                    await client.send("GET", server.url(host=host, scheme="https"))
            with pytest.raises(UpstreamError):  # a certificate that the system does not trust
                await Outbound(LOCAL, WITHIN, lookup=names).send("GET", server.url(host="good.test", scheme="https"))
    assert plain.requests == []
    assert len(server.requests) == 2


def certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's context that trusts a server's, for this host."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    kept, secret = folder / "cert.pem", folder / "key.pem"
    kept.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(kept, secret)
    return ssl.create_default_context(cafile=str(kept)), theirs
