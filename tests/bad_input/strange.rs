//! Everything that may be wrong with a request.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::request::{Body, Framing, Request, Spoil, pair};

/// Whoever shows this as it is shows scripts too.
pub const MARK: &str = "i7q\"'><i7q x=1>";
/// A header, if somebody lets a line break through.
const BREAK: &str = "a\r\ni7q-header: 1\r\nset-cookie: i7q=1\r\n\r\n<i7q>";

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub enum Change {
    Method(&'static str),
    Path(Vec<u8>),
    Target(Vec<u8>),
    Repeat(usize),
    Drop(usize),
    Value(usize, Vec<u8>),
    /// In the place of what came under this name.
    Instead(&'static str, Vec<u8>),
    Cut(usize, usize),
    Flip(usize, usize, u8),
    Add(Vec<u8>),
    Many(usize, Vec<u8>),
    Header(String, Vec<u8>),
    SameHeaderTwice(usize),
    WithoutHeader(usize),
    CutHeader(usize, usize),
    ManyHeaders(usize),
    ContentType(&'static str),
    Body(Vec<u8>),
    BodyInQuery,
    Frame(Framing),
    Spoil(Spoil),
}

impl Change {
    pub fn apply(&self, request: &mut Request) {
        match self {
            Self::Method(name) => (*name).clone_into(&mut request.method),
            Self::Path(suffix) => request.path.extend_from_slice(suffix),
            Self::Target(target) => {
                request.path.clone_from(target);
                request.query.clear();
            }
            Self::Repeat(index) => {
                let pairs = request.pairs();
                if let Some(pair) = nth(pairs, *index).cloned() {
                    pairs.push(pair);
                }
            }
            Self::Drop(index) => {
                let pairs = request.pairs();
                if !pairs.is_empty() {
                    pairs.remove(index % pairs.len());
                }
            }
            Self::Value(index, value) => {
                if let Some(pair) = nth(request.pairs(), *index) {
                    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
                    *pair = [name, b"=", value].concat();
                }
            }
            Self::Instead(name, value) => {
                let start = format!("{name}=").into_bytes();
                let pairs = request.pairs();
                pairs.retain(|pair| !pair.starts_with(&start));
                pairs.push([start, value.clone()].concat());
            }
            Self::Cut(index, thousandths) => {
                if let Some(pair) = nth(request.pairs(), *index) {
                    pair.truncate(pair.len() * thousandths / 1000);
                }
            }
            Self::Flip(index, thousandths, bits) => {
                if let Some(pair) = nth(request.pairs(), *index) {
                    let place = pair.len() * thousandths / 1000;
                    if let Some(byte) = pair.get_mut(place) {
                        *byte ^= bits;
                    }
                }
            }
            Self::Add(pair) => request.pairs().push(pair.clone()),
            Self::Many(count, pair) => {
                let all = std::iter::repeat_n(pair.clone(), *count);
                request.pairs().extend(all);
            }
            Self::Header(name, value) => request.headers.push((name.clone(), value.clone())),
            Self::SameHeaderTwice(index) => {
                if let Some(header) = nth(&mut request.headers, *index).cloned() {
                    request.headers.push(header);
                }
            }
            Self::WithoutHeader(index) => {
                if !request.headers.is_empty() {
                    request.headers.remove(index % request.headers.len());
                }
            }
            Self::CutHeader(index, thousandths) => {
                if let Some((_, value)) = nth(&mut request.headers, *index) {
                    value.truncate(value.len() * thousandths / 1000);
                }
            }
            Self::ManyHeaders(count) => {
                let many = (0..*count).map(|number| (format!("x-{number}"), b"y".to_vec()));
                request.headers.extend(many);
            }
            Self::ContentType(value) => {
                request.headers.retain(|(name, _)| name != "content-type");
                let value = value.as_bytes().to_vec();
                request.headers.push(("content-type".to_owned(), value));
            }
            Self::Body(bytes) => request.body = Body::Bytes(bytes.clone()),
            Self::BodyInQuery => {
                if let Body::Form(pairs) = &request.body {
                    request.query.extend(pairs.clone());
                }
            }
            Self::Frame(framing) => request.framing = *framing,
            Self::Spoil(spoil) => request.spoilt.push(spoil.clone()),
        }
    }
}

fn nth<T>(all: &mut [T], index: usize) -> Option<&mut T> {
    let count = all.len().max(1);
    all.get_mut(index % count)
}

/// The mark in each place from which a page or a redirect may take it.
pub fn marks() -> impl Iterator<Item = Change> {
    let mark = |name: &&'static str| Change::Instead(name, pair("", MARK).split_off(1));
    SHOWN.iter().map(mark)
}

/// What may be wrong, in any combination.
pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    vec(change(), 1..5)
}

fn change() -> impl Strategy<Value = Change> {
    let share = || 0..1000usize;
    let bits = || (0..8u32).prop_map(|bit| 1u8 << bit);
    prop_oneof![
        2 => select(METHODS).prop_map(Change::Method),
        2 => select(SUFFIXES).prop_map(|suffix| Change::Path(suffix.to_vec())),
        1 => select(TARGETS).prop_map(|target| Change::Target(target.to_vec())),
        2 => any::<usize>().prop_map(Change::Repeat),
        2 => any::<usize>().prop_map(Change::Drop),
        10 => (any::<usize>(), value()).prop_map(|(index, value)| Change::Value(index, value)),
        4 => (select(SHOWN), value()).prop_map(|(name, value)| Change::Instead(name, value)),
        3 => (any::<usize>(), share()).prop_map(|(index, at)| Change::Cut(index, at)),
        3 => (any::<usize>(), share(), bits()).prop_map(|(index, at, bits)| Change::Flip(index, at, bits)),
        6 => (name(), value()).prop_map(|(name, value)| Change::Add([&name[..], b"=", &value].concat())),
        1 => (1..3_000usize, select(vec![&b"a=1"[..], b"", b"=", b"client_id=rp", b"resource=https://a.example/"]))
            .prop_map(|(count, pair)| Change::Many(count, pair.to_vec())),
        8 => (select(HEADERS), header_value()).prop_map(|(name, value)| Change::Header(name.to_owned(), value)),
        3 => cookie().prop_map(|value| Change::Header("cookie".to_owned(), value)),
        3 => authorization().prop_map(|value| Change::Header("authorization".to_owned(), value)),
        3 => codings().prop_map(|value| Change::Header("accept-encoding".to_owned(), value)),
        1 => any::<usize>().prop_map(Change::SameHeaderTwice),
        1 => any::<usize>().prop_map(Change::WithoutHeader),
        2 => (any::<usize>(), share()).prop_map(|(index, at)| Change::CutHeader(index, at)),
        1 => select(vec![50, 90, 96, 97, 500]).prop_map(Change::ManyHeaders),
        2 => select(CONTENT_TYPES).prop_map(Change::ContentType),
        3 => body().prop_map(Change::Body),
        1 => Just(Change::BodyInQuery),
        4 => framing().prop_map(Change::Frame),
        2 => share().prop_map(|place| Change::Spoil(Spoil::BreakOff(place))),
        2 => (share(), bits()).prop_map(|(place, bits)| Change::Spoil(Spoil::Flip(place, bits))),
        2 => (share(), vec(any::<u8>(), 1..8)).prop_map(|(place, what)| Change::Spoil(Spoil::Insert(place, what))),
        1 => Just(Change::Spoil(Spoil::LineFeedsOnly)),
    ]
}

const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "G\u{e4}T",
    "",
    "POST /login HTTP/1.1\r\n\r\nGET",
];
const SUFFIXES: &[&[u8]] = &[
    b"/",
    b"%",
    b"%0",
    b"%zz",
    b"%00",
    b"%0d%0ai7q-header:%201",
    b"%ff%fe",
    b"\xff\xfe",
    b"\x00",
    b" ",
    b"\t",
    b";x=y",
    b"/..",
    b"/../token",
    b"/%2e%2e/token",
    b"//",
    b"#fragment",
    b"?",
    b"??a=b",
    b"?%",
    b"?a=%",
    b"?a=%zz&b=%0",
    b"?a=%00",
    b"?a=%0d%0ai7q-header:%201",
    b"?a=%ff",
    b"?a=\xff",
    b"?<i7q>",
    b"<i7q>",
];
const TARGETS: &[&[u8]] = &[
    b"*",
    b"",
    b"/",
    b"//evil.example/",
    b"/\\evil.example/",
    b"http://evil.example/login",
    b"http://evil.example:99999999/",
    b"https://",
    b"evil.example:443",
    b"login",
    b"?a=b",
    b"/static/0/../../Cargo.toml",
    b"/static/%00/%ff",
    b"/.well-known/<i7q>",
    b"/<i7q>",
];
const CONTENT_TYPES: &[&str] = &[
    "",
    "application/json",
    "text/plain",
    "text/xml",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "application/x-www-form-urlencoded; charset=utf-7",
    "application/x-www-form-urlencoded; charset=\"",
    "application/x-www-form-urlencoded;;;;",
    "application/jwt",
    "*/*",
    "/",
    ";",
];
const HEADERS: &[&str] = &[
    "cookie",
    "authorization",
    "accept",
    "accept-encoding",
    "accept-language",
    "access-control-request-headers",
    "access-control-request-method",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "dpop",
    "expect",
    "forwarded",
    "host",
    "if-modified-since",
    "if-none-match",
    "max-forwards",
    "origin",
    "range",
    "referer",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-http-method-override",
    "x-request-id",
];
/// What some page shows again, or what some redirect carries.
const SHOWN: &[&str] = &[
    "client_id",
    "login",
    "login_hint",
    "post_logout_redirect_uri",
    "redirect_uri",
    "scope",
    "state",
    "ui_locales",
];
/// Names that some parser of ours looks for.
const NAMES: &[&str] = &[
    "access_token",
    "account",
    "acr_values",
    "action",
    "claims",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "csrf",
    "grant_type",
    "id_token_hint",
    "language",
    "login",
    "login_hint",
    "max_age",
    "nonce",
    "password",
    "post_logout_redirect_uri",
    "prompt",
    "redirect_uri",
    "refresh_token",
    "remember",
    "request",
    "request_uri",
    "resource",
    "response_mode",
    "response_type",
    "scope",
    "session",
    "state",
    "ticket",
    "token",
    "token_type_hint",
    "ui_locales",
];

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => select(NAMES).prop_map(|name| name.as_bytes().to_vec()),
        1 => Just(MARK.to_owned()).prop_map(|mark| pair(&mark, "")),
        1 => Just(b"%zz".to_vec()),
        1 => vec(any::<u8>(), 0..12),
    ]
}

/// What stands after `name=`: properly encoded, or not.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => text().prop_map(|text| pair("", &text).split_off(1)),
        2 => text().prop_map(String::into_bytes),
        2 => select(vec![
            &b"%"[..], b"%0", b"%zz", b"%00", b"%ff", b"%c0%80", b"%ed%a0%80", b"%u0041", b"a%0d%0ai7q-header:%201", b"\x00", b"\xff\xfe", b"+", b"=", b"==",
            b"[]", b"%2525252525",
        ]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..60),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let longest = select(vec![100usize, 1_000, 4_000, 9_000, 40_000, 70_000]);
    prop_oneof![
        4 => select(TEXTS).prop_map(str::to_owned),
        2 => Just(MARK.to_owned()),
        1 => Just(BREAK.to_owned()),
        3 => token(),
        2 => json(),
        2 => any::<String>(),
        2 => (select(vec!["x", "%", "<i7q>", "a.", " ", "\u{202e}", "\u{1f600}", "A"]), longest)
            .prop_map(|(piece, bytes)| piece.repeat(bytes / piece.len())),
    ]
}

const TEXTS: &[&str] = &[
    "",
    " ",
    "rp",
    "robot",
    "code",
    "token id_token",
    "none",
    "none login",
    "login",
    "consent",
    "select_account",
    "openid",
    "openid openid profile",
    "offline_access",
    "plain",
    "S256",
    "form_post",
    "fragment",
    "query.jwt",
    "authorization_code",
    "refresh_token",
    "client_credentials",
    "password",
    "urn:ietf:params:oauth:grant-type:device_code",
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "-1",
    "0",
    "00",
    "1e308",
    "18446744073709551616",
    "99999999999999999999999999",
    "NaN",
    "true",
    "null",
    "undefined",
    "alice@example.test",
    "a@b@c",
    "\"\"@[127.0.0.1]",
    "https://rp.example/callback",
    "https://rp.example/callback#",
    "https://rp.example/callback/../x",
    "https:\\\\rp.example\\callback",
    "https://rp.example%2f@evil.example/",
    "//evil.example/",
    "/\\evil.example",
    "javascript:alert(1)",
    "data:text/html,<i7q>",
    "http://[::1",
    "http://2130706433/",
    "x:y:z",
    "de-DE de",
    "se",
    "../../etc/passwd",
    "' OR 1=1 --",
    "${7*7}{{7*7}}",
    "%s%n%x",
    "\u{0}",
    "\u{feff}",
    "\u{d7ff}\u{e000}\u{10ffff}",
];

/// Tokens that are nearly some.
fn token() -> impl Strategy<Value = String> {
    let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = select(vec![
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","kid":"x"}"#,
        r#"{"alg":"ES256","kid":["x"]}"#,
        r#"{"alg":"ES256","kid":null,"crit":[]}"#,
        r#"{"alg":"RS256","typ":"JWT","zip":"DEF"}"#,
        r#"{"alg":"PBES2-HS256+A128KW","p2c":1000000,"enc":"A128GCM"}"#,
        r#"{"alg":"ES256","jwk":{"kty":"EC"},"jku":"http://evil.example/","x5c":["x"]}"#,
        r#"{"alg":1}"#,
        "[]",
        "",
        "{",
        "\u{feff}{}",
    ]);
    let payload = select(vec![
        r#"{"iss":"robot","sub":"robot","aud":["x",1,null],"exp":1e308,"jti":"x"}"#,
        r#"{"iss":"robot","sub":"robot","aud":"x","exp":18446744073709551615,"nbf":-1e308,"iat":-9223372036854775808}"#,
        r#"{"iss":"robot","sub":"rp","aud":{},"exp":"soon"}"#,
        r#"{"sub":"robot","sub":"rp"}"#,
        r#"{"sub":"<i7q>"}"#,
        "null",
        "",
        "{\"a\":",
    ]);
    let signature = select(vec!["", "AA", "AA==", "!", "a.b", "a.b.c", "\u{1f600}"]);
    prop_oneof![
        4 => (header, payload, signature)
            .prop_map(move |(header, payload, signature)| format!("{}.{}.{signature}", b64(header), b64(payload))),
        1 => (100..3_000usize).prop_map(move |depth| {
            format!("{}.{}.AA", b64(r#"{"alg":"ES256"}"#), b64(&"[".repeat(depth)))
        }),
        1 => vec(any::<u8>(), 0..120).prop_map(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
        1 => vec(any::<u8>(), 32..33).prop_map(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
        1 => select(vec!["....", ".", "..", "a.b", "a.b.c", "a.b.c.d", "a.b.c.d.e"]).prop_map(str::to_owned),
    ]
}

fn json() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec![
            "{", "}", "[]", "null", "1e999", "\"", "{\"userinfo\":", "{\"userinfo\":[]}", "{\"userinfo\":{\"email\":{\"essential\":\"x\"}}}",
            "{\"id_token\":{\"acr\":{\"values\":[1,null,{}]}}}", "{\"id_token\":{\"sub\":{\"value\":[\"<i7q>\"]}}}", "{\"id_token\":{\"auth_time\":{\"essential\":true}}}",
            "{\"\\ud800\":null}", "{\"userinfo\":{\"<i7q>\":null}}", "{\"a\":1,\"a\":2}",
        ]).prop_map(str::to_owned),
        1 => (1..8_000usize).prop_map(|depth| "[".repeat(depth)),
        1 => (1..2_000usize).prop_map(|depth| "{\"userinfo\":".repeat(depth)),
        1 => (1..800usize).prop_map(|count| {
            let names: Vec<_> = (0..count).map(|number| format!("\"c{number}\":null")).collect();
            format!("{{\"userinfo\":{{{}}}}}", names.join(","))
        }),
    ]
}

fn header_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => select(vec![
            &b""[..], b" ", b"*", b"*/*;q=9", b"\xff\xfe", b"a\x00b", b"a\tb", b"a\r\n folded", b"a\rb", b"a\nb", b"a\r\ni7q-header: 1", b"gzip", b"br;q=x", b"identity",
            b"chunked", b"chunked, chunked", b"close", b"keep-alive", b"keep-alive, upgrade", b"h2c", b"websocket", b"100-continue", b"200-ok", b"trailers",
            b"0", b"-1", b"5, 5", b"99999999999999999999", b"null", b"https://evil.example", b"https://rp.example", b"evil.example", b"localhost:1, evil.example", b"http",
            b"198.51.100.7, [::1], unknown", b"for=\"[2001:db8::1]:4711\";proto=https;host=evil.example", b"for=\"", b"bytes=0-1,2-3,-9,9-", b"W/\"x\", \"", b"cross-site",
            b"same-origin", b"GET", b"DELETE", b"x-i7q, authorization", b"Thu, 99 Foo 2099 99:99:99 GMT", b"de;q=x, en;;q=0.5, <i7q>;q=1", b"<i7q>", b"{\"a\":1}",
        ]).prop_map(<[u8]>::to_vec),
        1 => Just(MARK.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..60),
        1 => vec(b' '..=b'~', 0..60),
        1 => select(vec![1_000usize, 8_000, 30_000, 130_000]).prop_map(|length| vec![b'x'; length]),
    ]
}

/// What an answer may be packed with, said well or badly.
fn codings() -> impl Strategy<Value = Vec<u8>> {
    let coding = select(vec![
        "gzip", "GZIP", "x-gzip", "br", "zstd", "deflate", "compress", "identity", "*", "x-i7q",
        "", "<i7q>", "gzip/br",
    ]);
    let weight = select(vec![
        "",
        ";q=0",
        ";q=1",
        ";q=0.001",
        ";q=0.0001",
        ";q=1.001",
        ";q=-1",
        ";q=NaN",
        ";q=",
        ";q",
        ";",
        ";Q=0.5",
        "; q = 0.5",
        ";q=0;q=1",
        ";x=y",
        ";q=1e9",
        ";q=0.5\"",
    ]);
    let item = (coding, weight).prop_map(|(coding, weight)| format!("{coding}{weight}"));
    prop_oneof![
        6 => vec(item.clone(), 0..6).prop_map(|items| items.join(", ").into_bytes()),
        1 => vec(item.clone(), 1..4).prop_map(|items| items.join(",,;,\t").into_bytes()),
        1 => (item, 100..2_000usize).prop_map(|(item, count)| vec![item; count].join(",").into_bytes()),
    ]
}

fn cookie() -> impl Strategy<Value = Vec<u8>> {
    let known = || {
        select(vec![
            "latchkey-session",
            "latchkey-browser",
            "latchkey-known",
            "latchkey-language",
            "__Host-latchkey-session",
            "",
        ])
    };
    let half_right = prop_oneof![
        vec(any::<u8>(), 32..33).prop_map(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
        (vec(any::<u8>(), 32..33), 1..9usize)
            .prop_map(|(bytes, times)| { vec![URL_SAFE_NO_PAD.encode(bytes); times].join(".") }),
        token(),
        text(),
    ];
    let pair = (known(), half_right).prop_map(|(name, value)| format!("{name}={value}"));
    prop_oneof![
        4 => vec(pair, 1..4).prop_map(|pairs| pairs.join("; ").into_bytes()),
        1 => select(vec![&b";;;"[..], b"=", b"a", b"latchkey-session", b"latchkey-session=\"", b"latchkey-language=<i7q>", b"latchkey-session=\xff", b"\x01=\x02"])
            .prop_map(<[u8]>::to_vec),
        1 => (1..2_000usize).prop_map(|count| b"latchkey-session=a; ".repeat(count)),
    ]
}

fn authorization() -> impl Strategy<Value = Vec<u8>> {
    let scheme = select(vec![
        "Basic", "basic", "BASIC", "Bearer", "bearer", "DPoP", "Digest", "", "Bearer,",
    ]);
    let credentials = prop_oneof![
        4 => (text(), text()).prop_map(|(id, secret)| STANDARD.encode(format!("{id}:{secret}"))),
        2 => token(),
        2 => text(),
        1 => vec(any::<u8>(), 0..60).prop_map(|bytes| STANDARD.encode(bytes)),
        1 => select(vec!["cnA", "cnA6", "cnA6!!!", "cnA6JXp6", "Og==", "=", "/w=="]).prop_map(str::to_owned),
    ];
    let space = select(vec![" ", "  ", "\t", "", " , "]);
    (scheme, space, credentials)
        .prop_map(|(scheme, space, rest)| format!("{scheme}{space}{rest}").into_bytes())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => vec(any::<u8>(), 0..300),
        2 => json().prop_map(String::into_bytes),
        1 => text().prop_map(String::into_bytes),
        1 => select(vec![&b"--x\r\ncontent-disposition: form-data; name=\"client_id\"\r\n\r\nrp\r\n--x--"[..], b"\x1f\x8b\x08\x00\x00\x00\x00\x00", b"<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>"])
            .prop_map(<[u8]>::to_vec),
        1 => select(vec![60_000usize, 65_536, 65_537, 200_000]).prop_map(|length| vec![b'x'; length]),
    ]
}

fn framing() -> impl Strategy<Value = Framing> {
    prop_oneof![
        (1..100_000usize).prop_map(Framing::TooLong),
        (1..50usize).prop_map(Framing::TooShort),
        Just(Framing::TwoLengths),
        Just(Framing::NoNumber),
        Just(Framing::Chunked),
        Just(Framing::HalfChunked),
        Just(Framing::ShortChunk),
        Just(Framing::BadChunk),
        Just(Framing::Both),
        Just(Framing::StrangeCoding),
    ]
}
