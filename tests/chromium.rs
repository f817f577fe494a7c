//! What only a real browser shows: policies that block, focus, layout, history. The app is at another site.

use std::path::PathBuf;
use std::{env, fs};

use fantoccini::key::Key;
use serde_json::json;

use crate::support::app::{App, Arrival};
use crate::support::op::{Database, EMAIL, Op, PASSWORD, SECRET};
use crate::support::postgres;
use crate::support::relying_party::Rp;
use crate::support::webdriver::{Chromium, Scripts};

const OTHER_EMAIL: &str =
    "bartholomew.featherstonehaugh-cholmondeley@a-rather-long-name.example.test";

#[test]
fn o7_the_policy_lets_the_303_of_the_sign_in_form_reach_the_app() {
    let Some(scene) = Scene::start() else { return };
    sign_in_and_allow(&scene);
}

#[test]
fn o7_the_policy_lets_the_303_of_the_sign_in_form_reach_the_app_on_postgresql() {
    if postgres::cluster().is_none() {
        return;
    }
    let Some(scene) = Scene::with(Database::Postgres, Scripts::On) else {
        return;
    };
    sign_in_and_allow(&scene);
}

#[test]
fn a_person_without_scripts_signs_in() {
    let Some(scene) = Scene::with(Database::Sqlite, Scripts::Off) else {
        return;
    };
    sign_in_and_allow(&scene);
}

fn sign_in_and_allow(scene: &Scene) {
    let (browser, rp) = (&scene.browser, &scene.rp);
    browser.open(&rp.authorize_with_pkce(&[("scope", "openid profile email")]));
    scene.sign_in();
    let asked = browser.text("ul.rows");
    let (name, email) = (asked.find("Alice Archer"), asked.find(EMAIL));
    assert!(
        name.is_some() && name < email,
        "the usual comes first: {asked}"
    );
    browser.click("#consent-allow");
    let arrival = scene.arrival();
    assert_eq!(arrival.method, "GET");
    assert_eq!(arrival.parameters["state"], "a-state");
    assert_eq!(arrival.parameters["iss"], scene.op.issuer);
    // The address of a page of ours holds the ticket, which is no business of the app's.
    assert_eq!(arrival.headers.get("referer"), None);
    assert_eq!(
        rp.exchange_with_pkce(&arrival.parameters["code"]).status,
        200
    );

    // Signed in and agreed: straight to the app, which the policy of no page may stop either.
    browser.open(&rp.authorize(&[]));
    assert!(scene.arrival().parameters.contains_key("code"));
    browser.open(&rp.authorize(&[("prompt", "login")]));
    browser.type_into("input[name=password]", PASSWORD);
    browser.click("#login-submit");
    assert!(
        scene.arrival().parameters.contains_key("code"),
        "from the form itself to the app"
    );
}

#[test]
fn form_post_goes_on_by_itself() {
    let Some(scene) = Scene::start() else { return };
    scene.browser.open(
        &scene
            .rp
            .authorize(&[("response_mode", "form_post"), ("state", "<'\"&>")]),
    );
    scene.sign_in();
    scene.browser.click("#consent-allow");
    assert_posted(&scene);
}

#[test]
fn form_post_has_a_button_where_no_scripts_run() {
    let Some(scene) = Scene::with(Database::Sqlite, Scripts::Off) else {
        return;
    };
    scene.browser.open(
        &scene
            .rp
            .authorize(&[("response_mode", "form_post"), ("state", "<'\"&>")]),
    );
    scene.sign_in();
    scene.browser.click("#consent-allow");
    assert_eq!(scene.browser.text("form > button.primary"), "Continue");
    scene.browser.click("form > button.primary");
    assert_posted(&scene);
}

fn assert_posted(scene: &Scene) {
    let arrival = scene.arrival();
    assert_eq!(arrival.method, "POST");
    assert_eq!(
        arrival.parameters["state"], "<'\"&>",
        "a15: escaped, and whole"
    );
    assert_eq!(arrival.parameters["iss"], scene.op.issuer);
    assert_eq!(arrival.headers.get("referer"), None);
    assert_eq!(
        scene.rp.exchange(&arrival.parameters["code"], &[]).status,
        200
    );
}

#[test]
fn who_cancels_is_back_in_the_app_with_access_denied() {
    let Some(scene) = Scene::start() else { return };
    let (browser, rp) = (&scene.browser, &scene.rp);
    browser.open(&rp.authorize(&[]));
    // Nothing is filled in, and nothing has to be.
    browser.click("#login-cancel");
    assert_eq!(scene.arrival().parameters["error"], "access_denied");

    browser.open(&rp.authorize(&[]));
    scene.sign_in();
    browser.click("#consent-deny");
    assert_eq!(scene.arrival().parameters["error"], "access_denied");

    browser.open(&rp.authorize(&[("prompt", "select_account")]));
    browser.click("#login-cancel");
    let arrival = scene.arrival();
    assert_eq!(arrival.parameters["error"], "access_denied");
    assert_eq!(arrival.parameters["iss"], scene.op.issuer);
}

#[test]
fn a_wrong_password_keeps_the_email_and_tells_a_screen_reader() {
    let Some(scene) = Scene::start() else { return };
    let browser = &scene.browser;
    browser.open(&scene.rp.authorize(&[]));
    browser.type_into("input[name=login]", EMAIL);
    browser.type_into("input[name=password]", "not-the-password");
    browser.click("#login-submit");
    browser.wait_for("#problem[role=alert]");
    assert_eq!(
        browser.property("input[name=login]", "value").as_deref(),
        Some(EMAIL)
    );
    assert_eq!(
        browser.property("input[name=password]", "value").as_deref(),
        Some("")
    );
    assert_eq!(
        browser
            .attribute("input[name=password]", "aria-describedby")
            .as_deref(),
        Some("problem")
    );
    assert_eq!(
        browser
            .attribute("input[name=password]", "aria-invalid")
            .as_deref(),
        Some("true")
    );
    assert_eq!(browser.focused(), "password");
    browser.type_keys(PASSWORD);
    browser.press(Key::Enter);
    browser.click("#consent-allow");
    // The console notes a page that comes with status 400.
    let console = browser.console();
    assert!(
        console.iter().all(|line| line.contains("status of 400")),
        "{console:?}"
    );
    assert!(scene.app.arrival(browser).parameters.contains_key("code"));
}

#[test]
fn the_keyboard_alone_is_enough() {
    let Some(scene) = Scene::start() else { return };
    let browser = &scene.browser;
    browser.open(&scene.rp.authorize(&[]));
    browser.wait_for("#login-submit");
    let mut stops = vec![browser.focused()];
    browser.type_keys(EMAIL);
    for _ in 0..4 {
        browser.press(Key::Tab);
        stops.push(browser.focused());
        if browser.focused() == "password" {
            browser.type_keys(PASSWORD);
        }
    }
    assert_eq!(
        stops,
        [
            "login",
            "password",
            "remember",
            "login-submit",
            "login-cancel"
        ]
    );
    browser.type_into("input[name=password]", "");
    // The form has two buttons; Enter means the first.
    browser.press(Key::Enter);
    browser.wait_for("#consent-allow");
    let allow_is_reached = (0..6).any(|_| {
        browser.press(Key::Tab);
        browser.focused() == "consent-allow"
    });
    assert!(allow_is_reached);
    let outline = browser.style("#consent-allow", "outline-style");
    assert_eq!(outline, "solid", "the focus is visible");
    browser.press(Key::Enter);
    assert!(scene.arrival().parameters.contains_key("code"));
}

#[test]
fn a11_two_tabs_do_not_disturb_each_other() {
    let Some(scene) = Scene::start() else { return };
    let (browser, rp) = (&scene.browser, &scene.rp);
    let first = browser.tab();
    browser.open(&rp.authorize(&[("state", "first")]));
    browser.type_into("input[name=login]", EMAIL);
    let second = browser.new_tab();
    browser.open(&rp.authorize(&[("state", "second"), ("scope", "openid email")]));
    scene.sign_in();
    browser.wait_for("#consent-allow");
    browser.show_tab(&first);
    browser.type_into("input[name=password]", PASSWORD);
    browser.click("#login-submit");
    browser.click("#consent-allow");
    assert_eq!(scene.arrival().parameters["state"], "first");
    browser.show_tab(&second);
    browser.click("#consent-allow");
    let arrival = scene.arrival();
    assert_eq!(arrival.parameters["state"], "second");
    assert_eq!(
        rp.exchange(&arrival.parameters["code"], &[]).text("scope"),
        "email openid"
    );
}

#[test]
fn going_back_and_reloading_lead_on() {
    let Some(scene) = Scene::start() else { return };
    let (browser, rp) = (&scene.browser, &scene.rp);
    browser.open(&rp.authorize(&[]));
    browser.wait_for("#login-submit");
    browser.reload();
    scene.sign_in();
    browser.wait_for("#consent-allow");
    browser.reload();
    browser.wait_for("#consent-allow");
    browser.back();
    scene.sign_in();
    browser.click("#consent-allow");
    let first = scene.arrival();

    browser.back();
    browser.click("#consent-allow");
    let second = scene.arrival();
    browser.back();
    browser.back();
    scene.sign_in();
    let third = scene.arrival();
    let codes =
        [first, second, third].map(|mut arrival| arrival.parameters.remove("code").unwrap());
    assert!(
        codes[0] != codes[1] && codes[1] != codes[2],
        "each answer has a code of its own"
    );
    assert_eq!(rp.exchange(&codes[2], &[]).status, 200);
}

#[test]
fn the_account_is_shown_and_can_be_chosen() {
    let Some(scene) = Scene::start() else { return };
    let (browser, rp) = (&scene.browser, &scene.rp);
    browser.open(&rp.authorize(&[("scope", "openid email")]));
    scene.sign_in();
    browser.wait_for("#consent-allow");
    assert!(browser.text("main").contains(EMAIL));
    browser.click("#consent-deny");
    scene.arrival();

    browser.open(&rp.authorize(&[("prompt", "select_account")]));
    browser.click("button[value=other]");
    scene.sign_in_as(OTHER_EMAIL);
    browser.wait_for("#consent-allow");
    assert!(browser.text("main").contains(OTHER_EMAIL));
    browser.click("#consent-deny");
    scene.arrival();

    browser.open(&rp.authorize(&[("prompt", "select_account"), ("scope", "openid email")]));
    browser.wait_for("button[name=account]");
    let shown = browser.text("main");
    assert!(
        shown.contains(EMAIL) && shown.contains(OTHER_EMAIL),
        "{shown}"
    );
    // The list begins with the current account, which is the last one that signed in.
    browser.click("li:nth-child(2) button");
    browser.click("#consent-allow");
    let tokens = rp.exchange(&scene.arrival().parameters["code"], &[]);
    assert_eq!(rp.userinfo(tokens.access_token()).text("email"), EMAIL);
}

#[test]
fn the_home_page_signs_out() {
    let Some(scene) = Scene::start() else { return };
    let browser = &scene.browser;
    browser.open(&scene.op.url("/login"));
    scene.sign_in();
    browser.wait_for("#logout-confirm");
    assert!(browser.text("main").contains(EMAIL));
    browser.click("#logout-confirm");
    browser.wait_for("a.primary");
    assert!(browser.text("main").contains("signed out"));
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn o7_the_policy_lets_the_303_of_the_sign_out_form_reach_the_app() {
    let Some(scene) = Scene::start() else { return };
    sign_out_and_return(&scene);
}

#[test]
fn a_person_without_scripts_signs_out() {
    let Some(scene) = Scene::with(Database::Sqlite, Scripts::Off) else {
        return;
    };
    sign_out_and_return(&scene);
}

fn sign_out_and_return(scene: &Scene) {
    let (browser, rp) = (&scene.browser, &scene.rp);
    let back = [
        ("post_logout_redirect_uri", rp.redirect_uri.as_str()),
        ("state", "<'\"&>"),
    ];
    browser.open(&rp.authorize(&[]));
    scene.sign_in();
    browser.click("#consent-allow");
    let tokens = rp.exchange(&scene.arrival().parameters["code"], &[]);

    // The person is asked, stays, and is asked again.
    browser.open(&scene.leave(&back));
    browser.wait_for("#logout-confirm");
    assert!(browser.text("main").contains(EMAIL) && browser.text("main").contains("Acme Notes"));
    browser.click("#logout-cancel");
    assert!(
        scene.arrival().parameters.is_empty(),
        "back to the app's own address"
    );
    browser.open(&scene.leave(&back));
    browser.click("#logout-confirm");
    let arrival = scene.arrival();
    assert_eq!(arrival.parameters.len(), 1, "{:?}", arrival.parameters);
    assert_eq!(arrival.parameters["state"], "<'\"&>");
    // The address of the question holds the ticket, which is no business of the app's.
    assert_eq!(arrival.headers.get("referer"), None);
    browser.open(&rp.authorize(&[("prompt", "none")]));
    assert_eq!(scene.arrival().parameters["error"], "login_required");
    assert_eq!(rp.userinfo(tokens.access_token()).status, 401);

    // With a hint nobody is asked.
    browser.open(&rp.authorize(&[]));
    scene.sign_in();
    let tokens = rp.exchange(&scene.arrival().parameters["code"], &[]);
    browser
        .open(&scene.leave(&[&back[..], &[("id_token_hint", tokens.text("id_token"))]].concat()));
    assert_eq!(scene.arrival().parameters["state"], "<'\"&>");
    browser.open(&rp.authorize(&[("prompt", "none")]));
    assert_eq!(scene.arrival().parameters["error"], "login_required");

    // And without an address the last page leads on.
    browser.open(&scene.leave(&[]));
    browser.wait_for("#logout-continue");
    assert!(browser.text("main").contains("signed out"));
    browser.click("#logout-continue");
    scene.arrival();
}

#[test]
fn colours_follow_the_persons_system_and_every_text_can_be_read() {
    let Some(scene) = Scene::start() else { return };
    for (scheme, paper, sheet) in [
        ("light", "rgba(247, 246, 242, 1)", "rgba(255, 254, 251, 1)"),
        ("dark", "rgba(19, 20, 18, 1)", "rgba(27, 29, 26, 1)"),
    ] {
        scene.browser.prefer_colors(scheme);
        scene.visit_every_page(|page, browser| {
            for (selector, colour) in [("body", paper), (".card", sheet)] {
                let shown = browser.style(selector, "background-color");
                assert_eq!(shown, colour, "{selector} of {page}, {scheme}");
            }
            assert_eq!(
                browser.script(CONTRAST),
                json!([]),
                "{page}, {scheme}: WCAG 2.2 §1.4.3"
            );
        });
    }
}

#[test]
fn a_page_that_fits_the_window_does_not_scroll() {
    let Some(scene) = Scene::start() else { return };
    let browser = &scene.browser;
    browser.open(&scene.rp.authorize(&[]));
    browser.wait_for("#login-submit");
    let rest =
        "const page = document.documentElement; return page.scrollHeight - page.clientHeight";
    assert_eq!(browser.script(rest), 0);
}

#[test]
fn a_narrow_screen_needs_no_sideways_scrolling() {
    let Some(scene) = Scene::start() else { return };
    scene.browser.resize(320, 640, 1);
    scene.visit_every_page(|page, browser| {
        for direction in ["ltr", "rtl"] {
            let outside = browser.script(&format!(
                "document.documentElement.dir = '{direction}'; {OUTSIDE}"
            ));
            assert_eq!(outside, json!([]), "{page}, {direction}: WCAG 2.2 §1.4.10");
        }
        let small = browser.script(SMALL_TARGETS);
        assert_eq!(small, json!([]), "{page}: WCAG 2.2 §2.5.8");
    });
}

/// To look at after a change of templates or styles: `LATCHKEY_PICTURES=/tmp cargo test --test flows pictures -- --ignored`.
#[test]
#[ignore = "writes pictures of every page into the directory LATCHKEY_PICTURES"]
fn pictures_of_every_page() {
    let directory = PathBuf::from(env::var_os("LATCHKEY_PICTURES").expect("LATCHKEY_PICTURES"));
    for (kind, width, scheme, language) in [
        ("light", 900, "light", "en"),
        ("dark", 900, "dark", "en"),
        ("narrow", 320, "light", "en"),
        ("german", 900, "light", "de"),
    ] {
        let Some(scene) = Scene::start() else { return };
        let browser = &scene.browser;
        browser.prefer_colors(scheme);
        browser.resize(760, 580, 2);
        browser.open(&scene.rp.authorize(&[]));
        browser.type_into("input[name=login]", EMAIL);
        let name = format!("documentation-{kind}.png");
        fs::write(directory.join(name), browser.picture()).unwrap();
        browser.resize(width, 760, 2);
        scene
            .browser
            .open(&scene.op.url(&format!("/?lang={language}")));
        scene.visit_every_page(|page, browser| {
            let name = format!("{}-{kind}.png", page.replace(' ', "-"));
            fs::write(directory.join(name), browser.picture()).unwrap();
        });
    }
}

/// Elements beyond the edges of the window, or the window itself when it scrolls sideways.
const OUTSIDE: &str = "
    document.querySelectorAll('details').forEach(e => e.open = true);
    const width = document.documentElement.clientWidth;
    const outside = [...document.querySelectorAll('body *')].filter(e => {
        const box = e.getBoundingClientRect();
        return !e.closest('.hidden') && box.width > 0 && (box.left < -0.5 || box.right > width + 0.5);
    }).map(e => e.outerHTML.slice(0, 120));
    if (document.documentElement.scrollWidth > width) outside.push('scrolls');
    return outside;";

/// Buttons and fields of less than 24 by 24 pixels that are no part of a sentence.
const SMALL_TARGETS: &str = "
    return [...document.querySelectorAll('button, .button, input:not([type=hidden], [type=checkbox], [type=radio]), summary')].filter(e => {
        const box = e.getBoundingClientRect();
        return !e.matches('.plain') && (box.width < 24 || box.height < 20);
    }).map(e => e.outerHTML.slice(0, 120));";

/// Texts with less than 4.5 : 1 between them and what is behind them.
const CONTRAST: &str = "
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => {
        const linear = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const behind = e => {
        for (; e; e = e.parentElement) {
            const colour = rgba(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.data.trim();
        if (!text) continue;
        const e = walker.currentNode.parentElement;
        const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faint.push(text + ': ' + contrast.toFixed(2));
    }
    return faint;";

/// A browser, an app, and a server with two people.
struct Scene {
    browser: Chromium,
    app: App,
    op: Op,
    rp: Rp,
}

impl Scene {
    fn start() -> Option<Self> {
        Self::with(Database::Sqlite, Scripts::On)
    }

    fn with(database: Database, scripts: Scripts) -> Option<Self> {
        let browser = Chromium::start(scripts)?;
        let op = Op::start(database, &[]);
        let app = App::start();
        op.seed(json!({
            "users": [{ "email": OTHER_EMAIL, "password": PASSWORD, "claims": { "name": "Bartholomew Featherstonehaugh-Cholmondeley" } }],
            "clients": [{ "client_id": "app", "client_name": "Acme Notes", "client_secret": SECRET, "redirect_uris": [app.redirect_uri], "post_logout_redirect_uris": [app.redirect_uri],
                          "client_uri": app.redirect_uri, "policy_uri": "https://acme.example/privacy", "tos_uri": "https://acme.example/terms" }],
            "scopes": [
                { "name": "contact", "description": "Reach you in a hurry", "claims": ["email", "phone_number"] },
                { "name": "calendar.read", "description": "See your calendar, and whom of the people in it you invited" }
            ]
        }));
        let rp = op.rp().named("app").at(&app.redirect_uri);
        Some(Self {
            browser,
            app,
            op,
            rp,
        })
    }

    fn sign_in(&self) {
        self.sign_in_as(EMAIL);
    }

    fn sign_in_as(&self, email: &str) {
        self.browser.fill("input[name=login]", email);
        self.browser.fill("input[name=password]", PASSWORD);
        self.browser.click("#login-submit");
    }

    /// The app's request to sign out, without a hint.
    fn leave(&self, parameters: &[(&str, &str)]) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("client_id", &self.rp.client_id);
        query.extend_pairs(parameters);
        self.op.url(&format!("/end-session?{}", query.finish()))
    }

    /// Waits for the app's page, to which nothing that the console would report may have led.
    fn arrival(&self) -> Arrival {
        let arrival = self.app.arrival(&self.browser);
        assert_eq!(self.browser.console(), [""; 0]);
        // So that the next arrival is not taken for this one.
        self.browser
            .script("document.getElementById('app').remove()");
        arrival
    }

    /// Shows each page to the test, by name.
    fn visit_every_page(&self, look: impl Fn(&str, &Chromium)) {
        let (browser, rp) = (&self.browser, &self.rp);
        let show = |page: &str, selector: &str| {
            browser.wait_for(selector);
            look(page, browser);
        };
        browser.open(&rp.authorize(&[("prompt", "login")]));
        show("sign-in", "#login-submit");
        browser.click("#login-submit");
        show("sign-in with an error", "#problem[role=alert]");
        browser.open(&self.op.url("/login"));
        self.sign_in();
        show("home", "#logout-confirm");
        browser.open(&self.leave(&[("state", "s")]));
        show("sign-out", "#logout-confirm");
        browser.open(&self.op.url("/login"));
        self.sign_in_as(OTHER_EMAIL);
        browser.wait_for("#logout-confirm");
        browser.open(&rp.authorize(&[
            (
                "scope",
                "openid profile email address phone offline_access contact calendar.read",
            ),
            ("prompt", "consent"),
        ]));
        show("consent", "#consent-allow");
        browser.open(&rp.authorize(&[("prompt", "select_account")]));
        show("account chooser", "button[name=account]");
        browser.open(
            &rp.clone()
                .at("https://somewhere.else.example/a-long-path/that-nobody-ever-registered")
                .authorize(&[]),
        );
        show("error", "#op-error");
        browser.open(&self.op.url("/nowhere"));
        show("not found", "#op-error");
        browser.open(&self.leave(&[(
            "post_logout_redirect_uri",
            "https://somewhere.else.example/a-long-path/that-nobody-ever-registered",
        )]));
        show("sign-out refused", "#op-error");
        browser.open(&self.leave(&[]));
        show("sign-out of several", "input[value=all]");
        browser.click("input[value=all]");
        browser.click("#logout-confirm");
        show("signed out", "#logout-continue");
    }
}
