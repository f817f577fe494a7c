//! The built-in test app of development mode: a sign-in through it as a person sees it.

use std::sync::mpsc;

use latchkey::clock::Clock;
use latchkey::config::{Config, Sources};
use latchkey::startup::{self, Stopper};
use tempfile::TempDir;

use crate::support::browser::{Browser, Page};
use crate::support::op::{free_port, now};

/// A server in development mode.
struct Dev {
    issuer: String,
    stopper: Stopper,
    thread: Option<std::thread::JoinHandle<()>>,
    _directory: TempDir,
}

#[test]
fn a_run_shows_every_step_and_the_verified_claims() {
    let dev = Dev::start("");
    let page = dev.run(
        &mut dev.browser(),
        "scope=profile&scope=email&id_token_claims=on",
    );
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(!page.has("[role=alert]"), "{}", page.text("[role=alert]"));
    let steps = page.text("ol.rows strong");
    assert_eq!(
        steps,
        "1. Authorization 2. Discovery 3. Key set 4. Token 5. UserInfo"
    );
    let claims = page.text("table");
    for expected in [
        "alice@example.test",
        "Alice Archer",
        "at_hash",
        "nonce",
        &dev.issuer,
        "UTC)",
    ] {
        assert!(claims.contains(expected), "{expected} is not in {claims}");
    }
    assert_eq!(
        page.text("table").matches("Alice Archer").count(),
        2,
        "in the ID token and in UserInfo"
    );
}

#[test]
fn no_secret_stands_on_the_page() {
    let dev = Dev::start("");
    let page = dev.run(&mut dev.browser(), "scope=profile");
    let sent = page.text("ol.rows pre");
    let secrets: Vec<_> = [
        "authorization: Basic ",
        "authorization: Bearer ",
        "\"access_token\": \"",
    ]
    .iter()
    .map(|before| {
        sent.split_once(before)
            .unwrap_or_else(|| panic!("{before} is not in {sent}"))
            .1
    })
    .collect();
    for secret in secrets {
        assert_eq!(
            secret.chars().position(|c| c == '…'),
            Some(6),
            "{secret:.20}"
        );
    }
}

#[test]
fn works_under_an_issuer_with_a_path() {
    let dev = Dev::start("/id");
    let page = dev.run(&mut dev.browser(), "scope=email");
    assert_eq!(page.status, 200, "{}", page.text("[role=alert]"));
    assert!(page.text("table").contains("alice@example.test"));
}

#[test]
fn tokens_are_refreshed_until_the_person_signs_out() {
    for path in ["", "/id"] {
        let dev = Dev::start(path);
        let mut browser = dev.browser();
        let mut page = dev.run(&mut browser, "scope=email");
        for _ in 0..2 {
            page = browser.submit(&page, &[]);
            assert_eq!(page.status, 200, "{}", page.text("[role=alert]"));
            assert_eq!(
                page.text("ol.rows strong"),
                "1. Discovery 2. Key set 3. Token 4. UserInfo"
            );
            assert!(
                page.text("ol.rows pre")
                    .contains("grant_type=refresh_token")
            );
            assert!(page.text("table").contains("alice@example.test"));
        }
        let refreshing = page.clone();
        let mut copy = browser.clone();
        let page = browser.get(&page.attribute("#dev-sign-out", "href").unwrap());
        assert_eq!(page.status, 200, "{}", page.text("[role=alert]"));
        assert_eq!(page.text("ol.rows strong"), "1. Sign-out");
        let exchange = page.text("ol.rows pre");
        for part in [
            "/end-session",
            "id_token_hint=",
            "post_logout_redirect_uri=",
            "/dev/app/signed-out state=",
        ] {
            assert!(exchange.contains(part), "{part} is not in {exchange}");
        }
        assert!(!page.has("#dev-refresh") && !page.has("#dev-sign-out"));
        assert!(page.has("#dev-sign-in"));
        let home = browser.get(&format!("{}/", dev.issuer));
        assert!(home.text("main").contains("signed out"), "{}", home.body);
        // What the app had is worth nothing any more, and is forgotten besides.
        let late = copy.submit(&refreshing, &[]);
        let words = late.text("[role=alert]");
        assert!(words.starts_with("invalid_grant"), "{words}");
        let forgotten = browser.get(&format!("{}/dev/app/sign-out", dev.issuer));
        assert!(forgotten.text("[role=alert]").starts_with("not_signed_in"));
    }
}

#[test]
fn e3_tokens_are_refreshed_from_the_apps_own_page_only() {
    let dev = Dev::start("");
    let mut browser = dev.browser();
    let page = dev.run(&mut browser, "scope=email");
    let refused = browser.submit(&page, &[("csrf", "AAAA")]);
    assert_eq!(refused.status, 403);
    let page = browser.get("/dev/app/refresh");
    assert_eq!((page.status, page.header("allow")), (405, "POST"));
}

#[test]
fn an_end_of_a_sign_out_that_was_not_begun_here_is_refused() {
    let dev = Dev::start("");
    let mut browser = dev.browser();
    let alert = |page: Page| page.text("[role=alert]");
    let page = browser.get("/dev/app/signed-out?state=s");
    assert!(alert(page).starts_with("state_unknown"));
    let page = dev.run(&mut browser, "scope=email");
    let begun = browser.get_once(&page.attribute("#dev-sign-out", "href").unwrap());
    assert_eq!(begun.status, 303);
    let page = browser.get("/dev/app/signed-out?state=of-another");
    assert!(alert(page).starts_with("state_mismatch"));
    let again = browser.get("/dev/app/sign-out");
    assert!(!again.has("[role=alert]"), "and the tokens are still there");
}

#[test]
fn an_answer_with_another_state_is_not_exchanged() {
    let dev = Dev::start("");
    let mut browser = dev.browser();
    let page = dev.run(&mut browser, "scope=profile");
    let (start, rest) = page.url.split_once("state=").unwrap();
    let other = if rest.starts_with('x') { 'y' } else { 'x' };
    let forged = format!("{start}state={other}{}", rest.get(1..).unwrap());
    let page = browser.get(&forged);
    assert_eq!(page.status, 400);
    assert!(
        page.text("[role=alert]").starts_with("state_mismatch"),
        "{}",
        page.body
    );
    assert_eq!(page.text("ol.rows strong"), "1. Authorization");
}

#[test]
fn an_answer_without_our_issuer_is_not_exchanged() {
    let dev = Dev::start("");
    let mut browser = dev.browser();
    let page = dev.run(&mut browser, "scope=profile");
    let page = browser.get(&page.url.replace("iss=", "was="));
    assert!(
        page.text("[role=alert]").starts_with("iss_mismatch"),
        "{}",
        page.body
    );
}

#[test]
fn a_reload_says_that_the_code_was_used_already() {
    let dev = Dev::start("");
    let mut browser = dev.browser();
    let page = dev.run(&mut browser, "scope=profile");
    let again = browser.get(&page.url);
    assert_eq!(again.status, 400);
    let words = again.text("[role=alert]");
    assert!(
        words.starts_with("invalid_grant") && words.contains("already used"),
        "{words}"
    );
    assert!(again.has("#dev-sign-in"));
}

#[test]
fn an_answer_that_nobody_asked_for_is_refused() {
    let dev = Dev::start("");
    let page = dev.browser().get("/dev/app/callback?code=c&state=s");
    assert_eq!(page.status, 400);
    assert!(
        page.text("[role=alert]").starts_with("state_unknown"),
        "{}",
        page.body
    );
}

#[test]
fn a_refusal_is_shown_with_its_code() {
    let dev = Dev::start("");
    let page = dev
        .browser()
        .get("/dev/app/sign-in?scope=profile&prompt=none");
    assert!(
        page.text("[role=alert]").starts_with("login_required"),
        "{}",
        page.body
    );
}

#[test]
fn any_other_method_is_refused_with_the_one_that_works() {
    let dev = Dev::start("");
    let page = dev.browser().post("/dev/app", &[]);
    assert_eq!((page.status, page.header("allow")), (405, "GET"));
}

impl Dev {
    /// `path` is the issuer's.
    fn start(path: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let port = free_port();
        let issuer = format!("http://localhost:{port}{path}");
        let overrides = [
            ("issuer", issuer.clone()),
            ("listen", format!("127.0.0.1:{port}")),
            (
                "database.url",
                format!("sqlite://{}/latchkey.db", directory.path().display()),
            ),
            ("password.memory_kib", "7168".to_owned()),
        ];
        let sources = Sources {
            overrides: overrides
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            ..Sources::default()
        };
        let mut config = Config::load(sources).unwrap_or_else(|findings| panic!("{findings}"));
        config.development = true;
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let running = startup::start(config, Clock::manual(now()))
                    .await
                    .unwrap_or_else(|error| panic!("{error}"));
                sender.send(running.stopper()).unwrap();
                running.run().await.unwrap();
            });
        });
        let stopper = receiver.recv().expect("the server starts");
        Self {
            issuer,
            stopper,
            thread: Some(thread),
            _directory: directory,
        }
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.issuer)
    }

    /// From the start page's form to the result.
    fn run(&self, browser: &mut Browser, choices: &str) -> Page {
        let start = browser.get(&format!("{}/dev/app", self.issuer));
        let action = start.attribute("form", "action").unwrap();
        let page = browser.complete(&format!("{action}?{choices}"));
        assert!(
            page.url.contains("/dev/app/callback?"),
            "ended at {}: {}",
            page.url,
            page.body
        );
        page
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let stopper = self.stopper.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _late = runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(5), stopper.stop()).await
        });
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
