"""Secrets of addresses are shown nowhere, however the address is mistyped."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from framegate.benchmarks.latency.options import command_of
from framegate.runtime.cli.main import main
from framegate.runtime.console import plain
from framegate.runtime.errors import FramegateError, SourceError
from framegate.runtime.passwords import hide_in_text, hide_passwords
from framegate.runtime.sources.address import StreamAddress
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions

SECRET = "S3CRET"
"""Stands in every piece of a generated password, so that a piece that is shown is found."""


@st.composite
def passwords(draw):
    """Passwords of any characters, whose every part between two of them holds the secret word."""
    signs = st.sampled_from([*"#/?:@&=;%!$ '\"\\[]()<>{}|^`~,.+*\t", "%40", "%3A", "://", " ! ", "é", "\x1b"])
    return SECRET + "".join(f"{sign}{SECRET}" for sign in draw(st.lists(signs, max_size=5)))


schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "udp", "RTSP", "srt", "rtmp", "ftp", "x+y.z"])
users = st.sampled_from(["admin", "me", "a.b-c_1", "user%40firm", ""])
hosts = st.sampled_from(["127.0.0.1:9", "[::1]:9", "127.0.0.1", "cam.invalid"])
paths = st.sampled_from(["", "/", "/s", "/a/b.sdp"])
# fmt: off
names = st.sampled_from([
    "token", "password", "key", "pwd", "signature", "X-Amz-Signature", "loginpas", "usr", "auth", "sid", "st", "e",
    "apikey", "whatever", "Expires",
])
# fmt: on


@st.composite
def queries(draw):
    """Behind the ?: secrets under many names, and without one."""
    value = re.sub("[&;#=]", "", draw(passwords()))
    kind = draw(st.sampled_from(["only", "first", "last", "bare", "base64", "semicolon", "sharp"]))
    pair = f"{draw(names)}={value}"
    return {
        "only": f"?{pair}",
        "first": f"?{pair}&fps=5",
        "last": f"?fps=5&{pair}",
        "bare": f"?{value}",
        "base64": f"?{value}==",
        "semicolon": f"?fps=5;{pair}",
        "sharp": f"?fps=5#{pair}",
    }[kind]


@st.composite
def addresses(draw):
    """Addresses with a secret in them, right and wrong ones."""
    user, host, path, scheme = draw(users), draw(hosts), draw(paths), draw(schemes)
    form = draw(st.sampled_from(["right", "query", "no scheme", "one slash", "no slashes", "backslashes", "no host"]))
    if form == "query":
        return f"{scheme}://{host}{path}{draw(queries())}"
    secret = draw(passwords())
    if form == "no host":
        return f"{scheme}://{user or 'me'}:{re.sub('[/?#@]', '', secret)}{path}"
    account = f"{user}:{secret}@{host}{path}"
    between = {"right": "://", "one slash": ":/", "no slashes": ":", "backslashes": ":\\\\"}
    return account if form == "no scheme" else f"{scheme}{between[form]}{account}"


@given(addresses())
@example(f"rtsp://admin:{SECRET}#99{SECRET}@127.0.0.1/s")
@example(f"rtsp://admin:12#345{SECRET}@127.0.0.1/s")
@example(f"rtsp://a:{SECRET}://{SECRET}@h")
@example(f"http://h/user=admin_password={SECRET}_channel=1.sdp")
@settings(max_examples=500)
def test_no_secret_of_an_address_is_shown(address):
    shown = hide_passwords(address)
    assert SECRET not in shown
    assert hide_passwords(shown) == shown
    assert hide_in_text(shown) == shown or SECRET not in hide_in_text(shown)


@given(schemes, users.filter(bool), hosts, paths)
def test_an_address_without_a_secret_stays(scheme, user, host, path):
    for address in (f"{scheme}://{host}{path}", f"{scheme}://{user}@{host}{path}", f"{scheme}://{host}{path}?fps=5"):
        assert hide_passwords(address) == address
        assert hide_in_text(address) == address


@given(st.text())
def test_any_text_can_be_shown(text):
    hide_passwords(text)
    hide_in_text(text)


PIECES = [
    "a",
    "-",
    ".",
    "a-",
    "a:",
    "?a=",
    "?-",
    "passw",
    "passw=",
    "passw =",
    '"',
    "'a",
    "://",
    "a://",
    "a:// ",
    " ! ",
]
PIECES += ["@", "(a)", "user-pw=", "%", "=", " ", "\\", '"\\']


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_takes_long(piece):
    """As long as the square of its length would be minutes."""
    began = time.process_time()
    hide_in_text(piece * 40_000)
    hide_passwords(piece * 8_000)
    hide_passwords(f"gst://{piece * 8_000}")
    plain(piece * 40_000)
    assert time.process_time() - began < 8


@given(st.text(alphabet="abc123 ./_-,", max_size=60))
def test_ordinary_text_stays(text):
    assert hide_passwords(text) == text
    assert hide_in_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "give user and password as in rtsp://USER:PASSWORD@host/path",
        "stream rtsp://...: there is no host in it; expected rtsp://host:port/path",
        "possible are: rtsp://, rtsps://, http:// or udp:// and an address, or synthetic://?width=640&height=480",
        "region 'key=0.5,0,1,1': fractions of the frame must stay within 1.0 (x+w and y+h)",
        "nothing listens at [::1]:554; is the camera or server running, and is the port right?",
    ],
)
def test_our_own_messages_stay(text):
    assert hide_in_text(text) == text


@pytest.mark.parametrize(
    "pipeline",
    [
        f"rtspsrc location=rtsp://me:{SECRET}@camera/x latency=0 ! decodebin",
        f'rtspsrc location="rtsp://me:{SECRET} ! {SECRET}@camera/x" latency=0 ! decodebin',
        f"rtspsrc location=rtsp://camera/x user-id=me user-pw='{SECRET} {SECRET}' latency=0 ! decodebin",
        f'souphttpsrc proxy-pw="{SECRET} \\" {SECRET}" location=http://camera/x?token={SECRET} latency=0 ! decodebin',
        f'souphttpsrc extra-headers="a,Authorization=(string)\\"Bearer {SECRET}\\"" latency=0 ! decodebin',
        f'souphttpsrc cookies="{{a={SECRET}, b={SECRET}}}" latency=0 ! decodebin',
        f"srtsrc uri=srt://h:1?passphrase={SECRET} passphrase={SECRET} latency=0 ! decodebin",
        f"gst://rtspsrc location=rtsp://h/x user-pw={SECRET} latency=0 ! decodebin",
        f'gst://rtspsrc user-pw="{SECRET} {SECRET}',
        f"x location=http://a:{SECRET}@h/s proxy=http://b:{SECRET}@p latency=0 ! decodebin",
        f"x location=http://a:{SECRET}@h/s ! y uri=http://b:{SECRET}@p latency=0 ! decodebin",
    ],
)
def test_no_secret_of_a_pipeline_is_shown(pipeline):
    shown = hide_passwords(pipeline)
    assert SECRET not in shown
    assert "latency=0 ! decodebin" in shown or "latency=0" not in pipeline
    assert hide_passwords(shown) == shown


@given(addresses())
@settings(max_examples=150, deadline=None)
def test_no_secret_is_in_what_a_source_says(address):
    """What cannot be opened says why, without it; what is parsed carries a name without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("framegate.runtime.sources.open.STREAM_SCHEMES", ())  # nobody is asked over the network here
        with contextlib.suppress(ValueError), pytest.raises(FramegateError) as caught:
            open_source(address).close()
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value)
    said = []
    try:
        parsed = StreamAddress.parse(address)
        said += [parsed.shown, parsed.place]
    except SourceError as error:
        said.append(str(error))
    assert SECRET not in " ".join(said)


@given(st.sampled_from(["0", "/dev/video0", "csi://0", "synthetic://"]), queries())
@settings(max_examples=150, deadline=None)
def test_no_secret_is_in_what_is_said_about_parameters(source, query):
    with pytest.raises(FramegateError) as caught:
        SourceOptions().with_query(source + query, query.partition("?")[2])
    assert SECRET not in str(caught.value)
    with pytest.raises(FramegateError) as caught:
        open_source(f"synthetic://{query}")
    assert SECRET not in str(caught.value)


@given(addresses())
@settings(max_examples=100)
def test_no_secret_is_in_the_command_of_a_record(address):
    arguments = argparse.Namespace(bundle="x.bundle", source=address, frames=5, out=None)
    assert SECRET not in command_of(arguments)


@given(addresses())
@settings(max_examples=100)
def test_an_error_that_quotes_a_library_shows_no_secret(address):
    """Where a library wrote an address into its own text, spaces and quotation marks end it."""
    scheme, separator, rest = address.partition("://")
    address = scheme + separator + re.sub(r"[\s'\"<>]|://", "", rest)
    if separator and ":" not in scheme:
        assert SECRET not in str(FramegateError(f"OpenCV(4.13.0): can't open '{address}' (code 5)"))


@pytest.mark.parametrize(
    "words",
    [
        [f"rtsp://admin:{SECRET} {SECRET}@127.0.0.1/s"],
        ["run", "0", "--bundle", "b", f"rtsp://admin:{SECRET}'{SECRET}@127.0.0.1/s"],
        ["run", "0", "--bundle", "b", "--fps", f"rtsp://admin:{SECRET}@127.0.0.1/s"],
        ["run", "0", "--bundle", "b", f"--source=http://127.0.0.1/?token={SECRET}"],
        ["info", "b", f"admin:{SECRET}@127.0.0.1"],
    ],
)
def test_no_secret_is_in_what_is_said_about_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert "127.0.0.1" in said.err
    assert SECRET not in said.err + said.out


@pytest.mark.parametrize(
    "address",
    [
        f"rtsp://admin:{SECRET}#99@127.0.0.1/s",
        f"rtsp://admin:12#345{SECRET}@127.0.0.1/s",
        f"rtsp://admin:12/345{SECRET}@127.0.0.1/s",
        f"rtsp://admin:{SECRET}/ret@127.0.0.1/s",
        f"http://admin:{SECRET}?ret@127.0.0.1/s",
        f"http://admin:{SECRET}@b/{SECRET}@127.0.0.1/s",
    ],
)
def test_a_password_that_ends_the_host_is_explained(address):
    with pytest.raises(SourceError, match="%23 %2F %3F %3A %40") as caught:
        open_source(address)
    assert SECRET not in str(caught.value)
    assert "admin" in str(caught.value)


def test_the_summary_of_a_run_names_a_stream_without_its_secrets(tiny_bundle, capsys):
    """Nobody listens there: the error is what is said, as one line."""
    address = f"http://admin:{SECRET}@127.0.0.1:9/live?token={SECRET}&fps=5"
    assert main(["run", address, "--bundle", str(tiny_bundle), "--json", "--timeout", "0.3"]) == 1
    said = capsys.readouterr()
    assert "http://admin:***@127.0.0.1:9/live?token=***&fps=5" in said.err
    assert SECRET not in said.err + said.out


def test_limits_learnt_from_a_source_do_not_keep_its_password(tmp_path, monkeypatch):
    from framegate.runtime.cli import health
    from framegate.runtime.sources.synthetic import SyntheticSource

    def opened(uri, **options):
        return SyntheticSource(320, 240, 30.0, 40, realtime=False)

    monkeypatch.setattr(health, "open_source", opened)
    out = tmp_path / "limits.json"
    assert main(["health", f"rtsp://me:{SECRET}@camera/x", "--out", str(out)]) == 0
    assert SECRET not in out.read_text()
    assert "rtsp://me:***@camera/x" in json.dumps(json.loads(out.read_text()))
