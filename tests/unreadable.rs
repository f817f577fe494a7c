//! What can't be read counts for nothing: no malformed cookie or header signs anybody in, authenticates an app or escapes a
//! limit (row E7). OWASP ASVS 5.0 §16.5.3.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use latchkey::protocol::seal::{RootKey, SealingKey, TokenHash};
use latchkey::store::users;
use serde_json::json;

use crate::bad_input::request::Request;
use crate::support::on_both_databases;
use crate::support::op::{EMAIL, Op, PASSWORD, SECRET};
use crate::support::raw_http::{Reply, converse};
use crate::throttle::attempt_in;

const SESSION: &str = "latchkey-session";
const BROWSER: &str = "latchkey-browser";
const KNOWN: &str = "latchkey-known";
const QUICK: [(&str, &str); 2] = [
    ("password.memory_kib", "7168"),
    ("password.iterations", "1"),
];
const PROXY: (&str, &str) = ("trusted_proxies", "127.0.0.1/32,::1/128");
const FEW_REQUESTS: [(&str, &str); 2] = [PROXY, ("throttle.address_requests", "5")];
const FEW_GUESSES: [(&str, &str); 2] = [PROXY, ("throttle.account_failures", "3")];
/// Each of them from somewhere else, if it were believed.
const FORWARDED: [&[u8]; 12] = [
    b"",
    b"unknown",
    b"_hidden",
    b"999.1.1.1",
    b"198.51.100.1 198.51.100.2",
    b"198.51.100.3;",
    b"198.51.100.4, x",
    b"198.51.100.5,",
    b"[2001:db8::1",
    b"::ffff:1.2.3",
    b"\xff\xfe",
    b"198.51.100.6, \xe4",
];

/// The answer; nothing where the server closed without one, which is fine for what is no HTTP.
fn ask(op: &Op, request: &Request) -> Option<Reply> {
    let host = op.issuer.trim_start_matches("http://");
    let replies = converse(host, &request.bytes(host), request.extent());
    let mut replies = replies.unwrap_or_else(|problem| panic!("{problem}: {request:?}"));
    assert!(replies.len() <= 1, "{request:?}: {replies:?}");
    replies.pop()
}

fn status(op: &Op, request: &Request) -> u16 {
    ask(op, request).map_or(400, |reply| reply.status)
}

/// A cookie's values that nobody was given, made of one that somebody was.
fn altered(good: &str) -> Vec<Vec<u8>> {
    let cut = &good[..good.len() - 1];
    let (first, rest) = good.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    let swapped: String = good
        .chars()
        .map(|c| match c.is_ascii_lowercase() {
            true => c.to_ascii_uppercase(),
            false => c.to_ascii_lowercase(),
        })
        .collect();
    let texts = [
        String::new(),
        cut.to_owned(),
        rest.to_owned(),
        format!("{good}A"),
        format!("{other}{rest}"),
        swapped,
        format!("{good}="),
        format!("={good}"),
        format!("\"{good}\""),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}..{good}"),
        format!("{good}{good}"),
        [good; 7].join("."),
        format!("{good}, {good}"),
        format!("{good} x"),
        format!("%{:02x}{rest}", first.as_bytes()[0]),
        format!("{good}%00"),
        format!("{good}\u{e4}"),
        good[..good.len() / 2].to_owned(),
        URL_SAFE_NO_PAD.encode([0; 32]),
        URL_SAFE_NO_PAD.encode(TokenHash::of(good).as_bytes()),
        "null".to_owned(),
        "[]".to_owned(),
        "x".repeat(5_000),
    ];
    let bytes = [
        [good.as_bytes(), b"\xff"].concat(),
        [b"\xff", good.as_bytes()].concat(),
        [good.as_bytes(), b"\0"].concat(),
        [b"\x01", good.as_bytes()].concat(),
    ];
    let texts = texts.into_iter().map(String::into_bytes);
    texts.chain(bytes).collect()
}

/// Whole headers that hold a good cookie, and leave it open whether it is the one.
fn ambiguous(name: &str, good: &str) -> Vec<Vec<u8>> {
    let upper = name.to_ascii_uppercase();
    let headers = [
        format!("{name}={good}; {name}={good}"),
        format!("{name}={good}; {name}="),
        format!("{name}=; {name}={good}"),
        format!("{name}={good}\u{e4}; {name}={good}"),
        format!("a=b, {name}={good}"),
        format!("{upper}={good}"),
        format!("__Host-{name}={good}"),
        format!("{name} ={good}"),
        format!("{name}:{good}"),
        format!("${name}={good}"),
        format!("{name}%3d{good}"),
        good.to_owned(),
    ];
    headers.into_iter().map(String::into_bytes).collect()
}

fn header(mut request: Request, name: &str, value: &[u8]) -> Request {
    request.headers.push((name.to_owned(), value.to_vec()));
    request
}

fn with_cookie(request: Request, name: &str, value: &[u8]) -> Request {
    header(request, "cookie", &[name.as_bytes(), b"=", value].concat())
}

/// Whether the authorization endpoint knows somebody who sends this.
fn is_signed_in(op: &Op, change: impl FnOnce(Request) -> Request) -> bool {
    let url = op.rp().authorize(&[("prompt", "none")]);
    let target = url.strip_prefix(&op.issuer).unwrap();
    let request = change(Request::new("GET", target));
    let Some(reply) = ask(op, &request) else {
        return false;
    };
    let location = reply.header("location").unwrap_or_default();
    let is_nobody = reply.status == 400 || location.contains("error=login_required");
    let is_somebody = location.contains("code=");
    assert!(is_nobody != is_somebody, "{request:?}: {reply:?}");
    is_somebody
}

/// The sign-in form as alice fills it in, without any cookie.
fn filled_in(browser: &mut crate::support::browser::Browser) -> Request {
    let (action, hidden) = browser.get("/login").form();
    let mut fields: Vec<_> = hidden
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    fields.extend([("login", EMAIL), ("password", PASSWORD)]);
    Request::new("POST", &action).form(&fields)
}

fn signs_in(reply: Option<&Reply>) -> bool {
    let mut headers = reply.into_iter().flat_map(|reply| &reply.headers);
    headers.any(|(name, value)| name == "set-cookie" && value.starts_with(SESSION))
}

fn basic(credentials: impl AsRef<[u8]>) -> Vec<u8> {
    format!("Basic {}", STANDARD.encode(credentials)).into_bytes()
}

on_both_databases! {
    fn e7_a_sign_in_that_can_not_be_read_is_nobodys(op with QUICK) {
        let mut browser = op.browser();
        browser.complete(&op.rp().authorize(&[]));
        let good = browser.cookies[SESSION].clone();
        let by_value = |value: &[u8]| is_signed_in(&op, |request| with_cookie(request, SESSION, value));
        let is_there = || by_value(good.as_bytes()) && by_value(format!("{good}; ; =; x; latchkey-known=....").as_bytes());
        assert!(is_there());
        for value in altered(&good) {
            assert!(!by_value(&value), "{}", String::from_utf8_lossy(&value));
        }
        // What was made for another purpose, by us and for this very browser.
        for (name, other) in browser.cookies.iter().filter(|(name, _)| *name != SESSION) {
            assert!(!by_value(other.as_bytes()), "{name}");
        }
        for value in ambiguous(SESSION, &good) {
            assert!(!is_signed_in(&op, |request| header(request, "cookie", &value)), "{}", String::from_utf8_lossy(&value));
        }
        let twice = |request| with_cookie(with_cookie(request, SESSION, good.as_bytes()), SESSION, good.as_bytes());
        assert!(!is_signed_in(&op, twice), "in two headers");
        assert!(is_there(), "none of this has ended it");
    }

    fn e7_a_form_from_a_browser_whose_name_can_not_be_read_signs_nobody_in(op with QUICK) {
        let mut browser = op.browser();
        let form = filled_in(&mut browser);
        let good = browser.cookies[BROWSER].clone();
        let mut cookies: Vec<_> = altered(&good).iter().map(|value| [b"latchkey-browser=", value.as_slice()].concat()).collect();
        cookies.extend(ambiguous(BROWSER, &good));
        cookies.push(Vec::new());
        for cookie in cookies {
            let reply = ask(&op, &header(form.clone(), "cookie", &cookie));
            let shown = String::from_utf8_lossy(&cookie);
            assert!(!signs_in(reply.as_ref()), "{shown}");
            assert!(reply.is_none_or(|reply| reply.status == 400), "{shown}");
        }
        assert!(signs_in(ask(&op, &with_cookie(form, BROWSER, good.as_bytes())).as_ref()));
    }

    fn e7_a_form_whose_origin_can_not_be_read_signs_nobody_in(op with QUICK) {
        let mut browser = op.browser();
        let form = filled_in(&mut browser);
        let form = with_cookie(form, BROWSER, browser.cookies[BROWSER].as_bytes());
        let issuer = op.issuer.as_bytes();
        let origins: [&[u8]; 10] = [
            b"", b"null", b"\xff", &[issuer, b"/"].concat(), &[issuer, b"\xff"].concat(), &[issuer, b" ", issuer].concat(), &[issuer, b",", issuer].concat(),
            &issuer.to_ascii_uppercase(), &[issuer, b".evil.example"].concat(), &issuer[..issuer.len() - 1],
        ];
        let sites: [&[u8]; 9] = [b"", b"cross-site", b"same-site", b"SAME-ORIGIN", b"same-origin, none", b"same-origin;x", b"\"same-origin\"", b"\xff", b"same-origin\xff"];
        let of_origin = origins.iter().map(|value| ("origin", *value));
        for (name, value) in of_origin.chain(sites.iter().map(|value| ("sec-fetch-site", *value))) {
            let refused = ask(&op, &header(form.clone(), name, value)).unwrap();
            assert_eq!((refused.status, signs_in(Some(&refused))), (403, false), "{name} {}", String::from_utf8_lossy(value));
        }
        // Twice is once too often, and whatever else is said does not make up for it.
        let right = [("origin", issuer), ("sec-fetch-site", &b"same-origin"[..])];
        for (name, value) in right {
            let twice = header(header(form.clone(), name, value), name, value);
            assert_eq!(ask(&op, &twice).unwrap().status, 403, "{name}");
        }
        let mut elsewhere = header(form.clone(), "sec-fetch-site", b"cross-site");
        for (name, value) in [("origin", issuer), ("sec-fetch-mode", &b"\xff"[..]), ("sec-fetch-dest", b"document"), ("sec-fetch-user", b"?1"), ("referer", issuer)] {
            elsewhere = header(elsewhere, name, value);
        }
        assert_eq!(ask(&op, &elsewhere).unwrap().status, 403);
        let ours = right.iter().fold(form, |form, (name, value)| header(form, name, value));
        assert!(signs_in(ask(&op, &ours).as_ref()));
    }

    fn e7_a_mark_of_a_known_browser_that_can_not_be_read_is_none(op with QUICK) {
        let mut known = op.browser();
        assert_eq!(attempt_in(&mut known, EMAIL, PASSWORD).status, 303);
        known.cookies.remove(SESSION);
        for _ in 0..10 {
            assert_eq!(attempt_in(&mut op.browser(), EMAIL, "not-the-password-of-anybody").status, 400);
        }
        let is_known = |value: &str| {
            let mut browser = known.clone();
            browser.cookies.insert(KNOWN.to_owned(), value.to_owned());
            match attempt_in(&mut browser, EMAIL, PASSWORD).status {
                303 => true,
                429 => false,
                other => panic!("{other}: {value}"),
            }
        };
        let (good, browser) = (known.cookies[KNOWN].clone(), known.cookies[BROWSER].clone());
        let texts = altered(&good).into_iter().filter_map(|value| String::from_utf8(value).ok());
        // (Beside other bytes than text no cookie is read at all, not even the browser's name.)
        for value in texts.filter(|value| value.is_ascii() && !value.contains(char::is_control)) {
            assert!(!is_known(&value), "{value}");
        }
        let alice = op.store.read_blocking(|conn| users::find_by_email(conn, EMAIL)).unwrap().unwrap().id;
        let (list, place) = (json!([alice]).to_string(), format!("cookie.known.{browser}"));
        let seal = |root: u8, purpose: &str, plain: &str, place: &str| {
            SealingKey::derive(&RootKey::from_bytes([root; 32]), purpose).seal_text(plain.as_bytes(), place.as_bytes())
        };
        assert!(is_known(&seal(0x5a, "cookies", &list, &place)), "so are good ones made");
        for (value, what) in [
            (seal(0x5b, "cookies", &list, &place), "another installation's key"),
            (seal(0x5a, "tickets", &list, &place), "another purpose"),
            (seal(0x5a, "cookies", &list, "cookie.known."), "another place"),
            (seal(0x5a, "cookies", &list, "cookie.latchkey-dev-app"), "another cookie"),
            (seal(0x5a, "cookies", &alice, &place), "no list"),
            (seal(0x5a, "cookies", &list[..list.len() - 1], &place), "half a list"),
            (seal(0x5a, "cookies", &json!([[alice]]).to_string(), &place), "a list of lists"),
            (seal(0x5a, "cookies", "[\"somebody else\"]", &place), "somebody else"),
            (seal(0x5a, "cookies", "", &place), "nothing"),
            (format!("{good}; {KNOWN}={good}"), "twice"),
            (good.replacen('A', "+", 1) + "+/", "another alphabet"),
        ] {
            assert!(!is_known(&value), "{what}");
        }
        assert!(is_known(&good));
    }

    fn e7_an_app_is_not_known_by_what_can_not_be_read(op with QUICK) {
        op.seed(json!({ "clients": [
            { "client_id": "robot", "client_secret": SECRET, "grant_types": ["client_credentials"], "redirect_uris": [] },
            { "client_id": "spa", "token_endpoint_auth_method": "none", "redirect_uris": ["https://spa.example/callback"] }
        ] }));
        let right = format!("robot:{SECRET}");
        let (good, encoded) = (basic(&right), STANDARD.encode(&right));
        let granted = op.rp().named("robot").client_credentials(&[]);
        let token = granted.access_token();
        let asked: [(&str, &[(&str, &str)]); 3] = [
            ("/token", &[("grant_type", "client_credentials")]), ("/introspect", &[("token", token)]), ("/revoke", &[("token", token)]),
        ];
        let request = |(path, form): (&str, &[(&str, &str)]), beside: &[(&str, &str)]| Request::new("POST", path).form(&[form, beside].concat());
        let mut unreadable = vec![
            good[..good.len() - 1].to_vec(), [&good[..], b"="].concat(), [&good[..], b" x"].concat(), [&good[..], b","].concat(),
            [&good[..], b", ", &good].concat(), [&good[..], b"\xff"].concat(), [b"\xff", &good[..]].concat(), b"Basic \xff".to_vec(), b"Basic".to_vec(), Vec::new(),
            format!("Basic  {encoded}").into_bytes(), format!("Basic\t{encoded}").into_bytes(), format!("Basic \"{encoded}\"").into_bytes(), format!("Basic{encoded}").into_bytes(),
            format!("Basic {}", encoded.to_lowercase()).into_bytes(), format!("Bearer {encoded}").into_bytes(), format!("Basic realm=x, {encoded}").into_bytes(),
            encoded.clone().into_bytes(), format!("Basic {right}").into_bytes(),
        ];
        unreadable.extend([
            format!("{right}\n"), format!("{right}\0"), format!(" {right}"), format!("\u{feff}{right}"), format!("{right}:"), right.replace(':', "%3a"), right.replace(':', ""),
            right.to_uppercase(), "robot:".to_owned(), "robot".to_owned(), format!(":{SECRET}"), "robot:%zz".to_owned(),
            format!("robot:{}", URL_SAFE_NO_PAD.encode(TokenHash::of(SECRET).as_bytes())),
        ].map(basic));
        unreadable.push(basic([b"robot:\xff", SECRET.as_bytes()].concat()));
        let refused = |request: &Request, what: &str| {
            let status = status(&op, request);
            assert!(status == 400 || status == 401, "{status} {what}: {}", String::from_utf8_lossy(&request.bytes("")));
        };
        for value in &unreadable {
            for asked in asked {
                refused(&header(request(asked, &[]), "authorization", value), "by itself");
            }
            // Nor does what would do by itself help where this stands beside it.
            let (id, secret) = (("client_id", "robot"), ("client_secret", SECRET));
            refused(&header(request(asked[0], &[id, secret]), "authorization", value), "beside a good secret");
            refused(&header(request(asked[2], &[("client_id", "spa")]), "authorization", value), "beside a public client");
        }
        for asked in asked {
            let twice = header(header(request(asked, &[]), "authorization", &good), "authorization", &good);
            refused(&twice, "twice");
        }
        let active = ask(&op, &header(request(asked[1], &[]), "authorization", &good)).unwrap();
        assert!(active.text().contains("\"active\":true"), "{}", active.text());
        assert_eq!(status(&op, &header(request(asked[0], &[]), "authorization", &good)), 200);
    }

    fn e7_a_forwarded_address_that_can_not_be_read_asks_for_the_proxy(op with FEW_REQUESTS) {
        let keys = |address: &[u8]| status(&op, &header(Request::new("GET", "/jwks"), "x-forwarded-for", address));
        for address in FORWARDED.iter().take(5) {
            assert_eq!(keys(address), 200);
        }
        for address in FORWARDED {
            assert_eq!(keys(address), 429, "{}", String::from_utf8_lossy(address));
        }
        // A second header is read as the end of the first.
        let two = header(Request::new("GET", "/jwks"), "x-forwarded-for", b"198.51.100.8");
        assert_eq!(status(&op, &header(two, "x-forwarded-for", b"unknown")), 429);
        assert_eq!(keys(b"198.51.100.9"), 200, "what can be read is believed");
    }

    fn e7_a_forwarded_address_that_can_not_be_read_guesses_no_secret(op with FEW_GUESSES) {
        let guess = |address: &[u8]| {
            let request = Request::new("POST", "/introspect").form(&[("token", "x")]);
            let request = header(request, "authorization", &basic("rp:a-guess"));
            status(&op, &header(request, "x-forwarded-for", address))
        };
        for address in FORWARDED.iter().take(3) {
            assert_eq!(guess(address), 401);
        }
        for address in FORWARDED {
            assert_eq!(guess(address), 429, "{}", String::from_utf8_lossy(address));
        }
        assert_eq!(guess(b"198.51.100.9"), 401, "what can be read is believed");
    }
}
