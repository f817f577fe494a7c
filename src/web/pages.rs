//! What each page shows: a struct a template. Handlers fill them; nothing here decides.

use askama::Template;

use super::assets;
use super::texts::{Language, Moment, Texts};

/// The frame around every page.
pub struct Page {
    pub texts: &'static Texts,
    /// The issuer's path: empty or like `/id`.
    pub base: String,
    pub css: String,
    pub favicon: String,
    pub development: bool,
    pub product: String,
    pub languages: Vec<LanguageLink>,
    /// Of the app that is being signed in to, where it registered them.
    pub policy: Option<String>,
    pub terms: Option<String>,
}

pub struct LanguageLink {
    pub language: Language,
    pub href: String,
    pub current: bool,
}

impl Page {
    /// A frame without language links and without an app's links.
    pub fn new(language: Language, base: &str, development: bool) -> Self {
        Self {
            texts: Texts::of(language),
            base: base.to_owned(),
            css: format!("{base}{}", assets::url("css/latchkey.css")),
            favicon: format!("{base}{}", assets::url("img/favicon.svg")),
            development,
            product: "Latchkey".to_owned(),
            languages: Vec::new(),
            policy: None,
            terms: None,
        }
    }

    /// A link to this page in each language.
    pub fn with_languages(mut self, href: impl Fn(Language) -> String) -> Self {
        let current = self.texts.language();
        self.languages = Language::ALL
            .into_iter()
            .map(|language| LanguageLink {
                language,
                href: href(language),
                current: language == current,
            })
            .collect();
        self
    }
}

/// How an app looks: its initial, its name and the host that answers go back to.
pub struct AppFace {
    pub name: String,
    pub initial: String,
    pub host: String,
}

impl AppFace {
    pub fn new(name: &str, host: &str) -> Self {
        Self {
            name: name.to_owned(),
            initial: initial(name),
            host: host.to_owned(),
        }
    }
}

/// How a person's account looks.
pub struct AccountFace {
    pub name: String,
    pub email: String,
    pub initial: String,
}

impl AccountFace {
    /// Somebody without a name goes by the e-mail address.
    pub fn new(name: Option<&str>, email: &str) -> Self {
        let name = name.unwrap_or(email);
        Self {
            name: name.to_owned(),
            email: email.to_owned(),
            initial: initial(name),
        }
    }
}

/// An 18 px line drawing; `components/icon.html` has the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icon {
    Key,
    Person,
    People,
    Mail,
    Home,
    Phone,
    Clock,
    Tag,
    Next,
}

impl Icon {
    /// Does it turn round where people read from right to left?
    fn points(self) -> bool {
        self == Self::Next
    }
}

#[derive(Template)]
#[template(path = "login/sign_in.html")]
pub struct SignIn {
    pub page: Page,
    pub app: Option<AppFace>,
    pub action: String,
    pub ticket: String,
    pub csrf: String,
    /// As typed before, or the app's `login_hint`.
    pub login: String,
    /// The account that has to prove itself again.
    pub account: Option<AccountFace>,
    pub remember: bool,
    pub problem: Option<SignInProblem>,
}

impl SignIn {
    fn is_about_login(&self) -> bool {
        matches!(
            self.problem,
            Some(SignInProblem::Mismatch | SignInProblem::MissingLogin)
        )
    }

    fn is_about_password(&self) -> bool {
        matches!(
            self.problem,
            Some(SignInProblem::Mismatch | SignInProblem::MissingPassword)
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInProblem {
    Mismatch,
    Slowed {
        minutes: u64,
    },
    Busy,
    Expired,
    MissingLogin,
    MissingPassword,
    /// The app wants a fresh sign-in.
    SignInAgain,
}

impl SignInProblem {
    fn words(self, texts: &Texts) -> String {
        match self {
            Self::Mismatch => texts.get("sign-in-mismatch"),
            Self::Slowed { minutes } => texts.count("sign-in-slowed", "minutes", minutes),
            Self::Busy => texts.get("sign-in-busy"),
            Self::Expired => texts.get("sign-in-expired"),
            Self::MissingLogin => texts.get("sign-in-missing-login"),
            Self::MissingPassword => texts.get("sign-in-missing-password"),
            Self::SignInAgain => texts.get("sign-in-again"),
        }
    }

    /// The colour of the bar: nobody did anything wrong when the app only asks for a fresh sign-in.
    fn tone(self) -> &'static str {
        match self {
            Self::Mismatch | Self::MissingLogin | Self::MissingPassword => "bad",
            Self::Slowed { .. } | Self::Busy => "warn",
            Self::Expired | Self::SignInAgain => "calm",
        }
    }
}

#[derive(Template)]
#[template(path = "login/account_chooser.html")]
pub struct AccountChooser {
    pub page: Page,
    pub app: Option<AppFace>,
    pub action: String,
    pub ticket: String,
    pub csrf: String,
    pub accounts: Vec<ChoosableAccount>,
}

pub struct ChoosableAccount {
    pub face: AccountFace,
    /// Sent back as `account`.
    pub session: String,
    pub signed_in: bool,
}

#[derive(Template)]
#[template(path = "login/consent.html")]
pub struct Consent {
    pub page: Page,
    pub app: AppFace,
    pub action: String,
    pub ticket: String,
    pub csrf: String,
    pub account: AccountFace,
    pub rows: Vec<ConsentRow>,
    /// Did an administrator of this server register the app?
    pub vouched: bool,
}

/// One thing the app would learn or may do.
pub struct ConsentRow {
    pub icon: Icon,
    pub title: String,
    /// What will be shared.
    pub value: Option<String>,
    pub note: Option<String>,
    pub choice: Option<Choice>,
    pub new: bool,
}

/// A scope the person may leave out; sent back as `optional`.
pub struct Choice {
    pub scope: String,
    pub checked: bool,
}

impl ConsentRow {
    /// A sentence for a scope; one that we don't know goes by its name.
    pub fn for_scope(scope: &str, texts: &Texts) -> Self {
        let (icon, title) = match scope {
            "profile" => (Icon::Person, texts.get("scope-profile")),
            "email" => (Icon::Mail, texts.get("scope-email")),
            "address" => (Icon::Home, texts.get("scope-address")),
            "phone" => (Icon::Phone, texts.get("scope-phone")),
            "groups" => (Icon::People, texts.get("scope-groups")),
            "offline_access" => (Icon::Clock, texts.get("scope-offline-access")),
            other => (Icon::Tag, texts.with("scope-other", "scope", other)),
        };
        Self::plain(icon, title)
    }

    /// A sentence for a single claim of the `claims` parameter (OpenID Connect Core §5.5).
    pub fn for_claim(claim: &str, texts: &Texts) -> Self {
        let (icon, title) = match claim {
            "name" | "given_name" | "family_name" | "middle_name" | "nickname"
            | "preferred_username" => (Icon::Person, texts.get("claim-name")),
            "email" | "email_verified" => (Icon::Mail, texts.get("scope-email")),
            "address" => (Icon::Home, texts.get("scope-address")),
            "phone_number" | "phone_number_verified" => (Icon::Phone, texts.get("scope-phone")),
            "groups" => (Icon::People, texts.get("scope-groups")),
            "birthdate" => (Icon::Person, texts.get("claim-birthdate")),
            "picture" => (Icon::Person, texts.get("claim-picture")),
            other => (Icon::Tag, texts.with("claim-other", "claim", other)),
        };
        Self::plain(icon, title)
    }

    fn plain(icon: Icon, title: String) -> Self {
        Self {
            icon,
            title,
            value: None,
            note: None,
            choice: None,
            new: false,
        }
    }
}

#[derive(Template)]
#[template(path = "login/form_post.html")]
pub struct FormPost {
    pub page: Page,
    pub app: Option<AppFace>,
    /// The validated redirect URI.
    pub action: String,
    pub fields: Vec<(String, String)>,
    pub script: String,
}

impl FormPost {
    pub fn new(
        page: Page,
        app: Option<AppFace>,
        action: String,
        fields: Vec<(String, String)>,
    ) -> Self {
        let script = format!("{}{}", page.base, assets::url("js/form-post.js"));
        Self {
            page,
            app,
            action,
            fields,
            script,
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
pub struct ErrorPage {
    pub page: Page,
    pub title: String,
    pub words: String,
    pub action: Option<Link>,
    /// The registered OAuth error code.
    pub code: Option<String>,
    /// For the app's developer.
    pub details: Vec<Detail>,
    pub time: Moment,
    pub request_id: String,
}

pub struct Link {
    pub label: String,
    pub href: String,
}

pub struct Detail {
    pub label: String,
    pub value: Compared,
}

/// A received value, split so that the page can mark the part that differs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub same_start: String,
    pub differs: String,
    pub same_end: String,
}

impl Compared {
    /// Nothing to compare with.
    pub fn plain(received: &str) -> Self {
        Self {
            same_start: received.to_owned(),
            ..Self::default()
        }
    }

    /// Marks what stands between the common start and the common end.
    pub fn with(received: &str, expected: &str) -> Self {
        let same = |(a, b): &(char, char)| a == b;
        let start = received
            .chars()
            .zip(expected.chars())
            .take_while(same)
            .count();
        let most = received
            .chars()
            .count()
            .min(expected.chars().count())
            .saturating_sub(start);
        let end = received
            .chars()
            .rev()
            .zip(expected.chars().rev())
            .take_while(same)
            .take(most)
            .count();
        let middle = received
            .chars()
            .count()
            .saturating_sub(start)
            .saturating_sub(end);
        let mut rest = received.chars();
        Self {
            same_start: rest.by_ref().take(start).collect(),
            differs: rest.by_ref().take(middle).collect(),
            same_end: rest.collect(),
        }
    }
}

/// The errors a person can meet, in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The redirect URI isn't registered.
    RedirectUri,
    UnknownClient,
    /// The app's request breaks a rule.
    Request,
    /// The form's token or ticket doesn't belong to this browser.
    Forgery,
    Forbidden,
    NotFound,
    Method,
    TooMany,
    Unavailable,
    Fault,
}

impl ErrorKind {
    pub fn title(self, texts: &Texts) -> String {
        match self {
            Self::RedirectUri => texts.get("error-redirect-uri"),
            Self::UnknownClient => texts.get("error-unknown-client"),
            Self::Request => texts.get("error-request"),
            Self::Forgery => texts.get("error-forgery"),
            Self::Forbidden => texts.get("error-forbidden"),
            Self::NotFound => texts.get("error-not-found"),
            Self::Method => texts.get("error-method"),
            Self::TooMany => texts.get("error-too-many"),
            Self::Unavailable => texts.get("error-unavailable"),
            Self::Fault => texts.get("error-fault"),
        }
    }

    pub fn words(self, texts: &Texts) -> String {
        match self {
            Self::RedirectUri => texts.get("error-redirect-uri-words"),
            Self::UnknownClient => texts.get("error-unknown-client-words"),
            Self::Request => texts.get("error-request-words"),
            Self::Forgery => texts.get("error-forgery-words"),
            Self::Forbidden => texts.get("error-forbidden-words"),
            Self::NotFound => texts.get("error-not-found-words"),
            Self::Method => texts.get("error-method-words"),
            Self::TooMany => texts.get("error-too-many-words"),
            Self::Unavailable => texts.get("error-unavailable-words"),
            Self::Fault => texts.get("error-fault-words"),
        }
    }
}

#[derive(Template)]
#[template(path = "wrong_address.html")]
pub struct WrongAddress {
    pub page: Page,
    pub opened: String,
    pub configured: String,
    /// The line of the configuration to change, complete.
    pub line: String,
}

#[derive(Template)]
#[template(path = "home.html")]
pub struct Home {
    pub page: Page,
    /// Nobody in it: signed out.
    pub accounts: Vec<SignedIn>,
    pub csrf: String,
    pub sign_in_href: String,
    pub sign_out_action: String,
    pub test_app_href: Option<String>,
}

pub struct SignedIn {
    pub face: AccountFace,
    pub since: Moment,
    /// Sent back as `session`.
    pub session: String,
}

/// The built-in test app: choices at the start, and what happened after a run.
#[derive(Template)]
#[template(path = "dev/app.html")]
pub struct DevApp {
    pub page: Page,
    pub issuer: String,
    pub client_id: String,
    pub redirect_uri: String,
    /// GET with `scope` (repeated), `prompt` and `id_token_claims=on`.
    pub start_href: String,
    pub scopes: Vec<DevChoice>,
    pub prompts: Vec<DevChoice>,
    pub id_token_claims: bool,
    pub error: Option<DevError>,
    pub run: Option<DevRun>,
}

pub struct DevChoice {
    pub value: String,
    pub chosen: bool,
}

pub struct DevError {
    pub code: String,
    pub description: String,
}

pub struct DevRun {
    pub steps: Vec<DevStep>,
    pub tokens: Vec<DevTable>,
    /// POST; absent without a refresh token.
    pub refresh_action: Option<String>,
    pub csrf: String,
    pub sign_out_href: Option<String>,
}

pub struct DevStep {
    pub title: String,
    pub request: String,
    pub response: String,
    pub duration_ms: u64,
}

/// Claims of a token, or of UserInfo, with the token itself where there is one.
pub struct DevTable {
    pub title: String,
    pub raw: Option<String>,
    pub claims: Vec<DevClaim>,
}

pub struct DevClaim {
    pub name: String,
    pub value: String,
}

impl DevRun {
    fn total_ms(&self) -> u64 {
        self.steps.iter().map(|step| step.duration_ms).sum()
    }

    /// Each step with its place in the whole run, as start and width out of 1000.
    fn timeline(&self) -> Vec<(&DevStep, u64, u64)> {
        let total = self.total_ms().max(1);
        let mut before = 0;
        let place = |step: &DevStep| {
            // Even a step of no measurable length gets a mark.
            let place = (
                before * 990 / total,
                (step.duration_ms * 990 / total).max(10),
            );
            before += step.duration_ms;
            place
        };
        let places: Vec<_> = self.steps.iter().map(place).collect();
        self.steps
            .iter()
            .zip(places)
            .map(|(step, (start, width))| (step, start, width))
            .collect()
    }
}

fn initial(name: &str) -> String {
    name.chars()
        .find(|c| c.is_alphanumeric())
        .map_or_else(|| "?".to_owned(), |c| c.to_uppercase().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_that_differs_is_marked() {
        let slash = Compared::with("https://a.test/cb/", "https://a.test/cb");
        assert_eq!(
            (
                slash.same_start.as_str(),
                slash.differs.as_str(),
                slash.same_end.as_str()
            ),
            ("https://a.test/cb", "/", "")
        );
        let scheme = Compared::with("http://a.test/cb", "https://a.test/cb");
        assert_eq!(
            (scheme.differs.as_str(), scheme.same_end.as_str()),
            ("", "://a.test/cb")
        );
        let host = Compared::with("https://ä.test/cb", "https://a.test/cb");
        assert_eq!(
            (host.differs.as_str(), host.same_end.as_str()),
            ("ä", ".test/cb")
        );
        assert_eq!(Compared::with("aa", "aaa").differs, "");
    }

    #[test]
    fn an_app_without_a_letter_still_has_a_face() {
        assert_eq!(AppFace::new("…", "a.test").initial, "?");
        assert_eq!(AppFace::new("«élan»", "a.test").initial, "É");
    }

    #[test]
    fn what_a_stranger_sent_is_text_on_the_page() {
        let fields = vec![("state".to_owned(), "\"><script>".to_owned())];
        let page = FormPost::new(
            Page::new(Language::English, "", false),
            None,
            "https://a.test/cb".to_owned(),
            fields,
        );
        let html = page.render().unwrap();
        assert!(!html.contains("\"><script>"));
        assert_eq!(html.matches("<script").count(), 1);
    }
}
