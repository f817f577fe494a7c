//! What each page shows: a struct a template. Handlers fill them; nothing here decides.

use askama::Template;

use super::assets;
use super::texts::{Language, Moment, Texts};

/// The frame around every page.
pub(super) struct Page {
    pub(super) texts: &'static Texts,
    /// The issuer's path: empty or like `/id`.
    pub(super) base: String,
    pub(super) css: String,
    pub(super) favicon: String,
    pub(super) development: bool,
    pub(super) product: String,
    pub(super) languages: Vec<LanguageLink>,
    /// Of the app that is being signed in to, where it registered them.
    pub(super) policy: Option<String>,
    pub(super) terms: Option<String>,
}

pub(super) struct LanguageLink {
    pub(super) language: Language,
    pub(super) href: String,
    pub(super) current: bool,
}

impl Page {
    /// A frame without language links and without an app's links.
    pub(super) fn new(language: Language, base: &str, development: bool) -> Self {
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
    pub(super) fn with_languages(mut self, href: impl Fn(Language) -> String) -> Self {
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
pub(super) struct AppFace {
    pub(super) name: String,
    pub(super) initial: String,
    pub(super) host: String,
}

impl AppFace {
    pub(super) fn new(name: &str, host: &str) -> Self {
        Self {
            name: name.to_owned(),
            initial: initial(name),
            host: host.to_owned(),
        }
    }
}

/// How a person's account looks.
pub(super) struct AccountFace {
    pub(super) name: String,
    pub(super) email: String,
    pub(super) initial: String,
}

impl AccountFace {
    /// Somebody without a name goes by the e-mail address.
    pub(super) fn new(name: Option<&str>, email: &str) -> Self {
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
pub(super) enum Icon {
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
pub(super) struct SignIn {
    pub(super) page: Page,
    pub(super) app: Option<AppFace>,
    pub(super) action: String,
    pub(super) ticket: String,
    pub(super) csrf: String,
    /// As typed before, or the app's `login_hint`.
    pub(super) login: String,
    /// The account that has to prove itself again.
    pub(super) account: Option<AccountFace>,
    pub(super) remember: bool,
    pub(super) problem: Option<SignInProblem>,
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
pub(super) enum SignInProblem {
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
pub(super) struct AccountChooser {
    pub(super) page: Page,
    pub(super) app: Option<AppFace>,
    pub(super) action: String,
    pub(super) ticket: String,
    pub(super) csrf: String,
    pub(super) accounts: Vec<ChoosableAccount>,
}

pub(super) struct ChoosableAccount {
    pub(super) face: AccountFace,
    /// Sent back as `account`.
    pub(super) session: String,
    pub(super) signed_in: bool,
}

#[derive(Template)]
#[template(path = "login/consent.html")]
pub(super) struct Consent {
    pub(super) page: Page,
    pub(super) app: AppFace,
    pub(super) action: String,
    pub(super) ticket: String,
    pub(super) csrf: String,
    pub(super) account: AccountFace,
    pub(super) rows: Vec<ConsentRow>,
    /// Did an administrator of this server register the app?
    pub(super) vouched: bool,
}

/// One thing the app would learn or may do.
pub(super) struct ConsentRow {
    pub(super) icon: Icon,
    pub(super) title: String,
    /// What will be shared.
    pub(super) value: Option<String>,
    pub(super) note: Option<String>,
    pub(super) choice: Option<Choice>,
    pub(super) new: bool,
}

/// A scope the person may leave out; sent back as `optional`.
pub(super) struct Choice {
    pub(super) scope: String,
    pub(super) checked: bool,
}

impl ConsentRow {
    /// A sentence for a scope: ours for a standard one, else the operator's; without either it goes by its name.
    pub(super) fn for_scope(scope: &str, description: Option<&str>, texts: &Texts) -> Self {
        let (icon, title) = match scope {
            "profile" => (Icon::Person, texts.get("scope-profile")),
            "email" => (Icon::Mail, texts.get("scope-email")),
            "address" => (Icon::Home, texts.get("scope-address")),
            "phone" => (Icon::Phone, texts.get("scope-phone")),
            "groups" => (Icon::People, texts.get("scope-groups")),
            "offline_access" => (Icon::Clock, texts.get("scope-offline-access")),
            other => {
                let by_name = || texts.with("scope-other", "scope", other);
                (Icon::Tag, description.map_or_else(by_name, str::to_owned))
            }
        };
        Self::plain(icon, title)
    }

    /// A sentence for a single claim of the `claims` parameter (OpenID Connect Core §5.5).
    pub(super) fn for_claim(claim: &str, texts: &Texts) -> Self {
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
pub(super) struct FormPost {
    pub(super) page: Page,
    pub(super) app: Option<AppFace>,
    /// The validated redirect URI.
    pub(super) action: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) script: String,
}

impl FormPost {
    pub(super) fn new(
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
pub(super) struct ErrorPage {
    pub(super) page: Page,
    pub(super) title: String,
    pub(super) words: String,
    pub(super) action: Option<Link>,
    /// The registered OAuth error code.
    pub(super) code: Option<String>,
    /// For the app's developer.
    pub(super) details: Vec<Detail>,
    pub(super) time: Moment,
    pub(super) request_id: String,
}

pub(super) struct Link {
    pub(super) label: String,
    pub(super) href: String,
}

pub(super) struct Detail {
    pub(super) label: String,
    pub(super) value: Compared,
}

/// A received value, split so that the page can mark the part that differs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) same_start: String,
    pub(super) differs: String,
    pub(super) same_end: String,
}

impl Compared {
    /// Nothing to compare with.
    pub(super) fn plain(received: &str) -> Self {
        Self {
            same_start: received.to_owned(),
            ..Self::default()
        }
    }

    /// Marked from a byte on.
    pub(super) fn from_byte(received: &str, differs_at: usize) -> Self {
        let (same_start, differs) = received
            .split_at_checked(differs_at)
            .unwrap_or((received, ""));
        Self {
            same_start: same_start.to_owned(),
            differs: differs.to_owned(),
            same_end: String::new(),
        }
    }
}

/// The errors a person can meet, in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// The redirect URI isn't registered.
    RedirectUri,
    UnknownClient,
    /// The app's request breaks a rule.
    Request,
    /// The app's request to sign somebody out does.
    SignOut,
    /// The form's token or ticket doesn't belong to this browser.
    Forgery,
    NotFound,
    Method,
    /// The address asked too often.
    TooMany,
    Unavailable,
    Fault,
}

impl ErrorKind {
    pub(super) fn title(self, texts: &Texts) -> String {
        match self {
            Self::RedirectUri => texts.get("error-redirect-uri"),
            Self::UnknownClient => texts.get("error-unknown-client"),
            Self::Request => texts.get("error-request"),
            Self::SignOut => texts.get("error-sign-out"),
            Self::Forgery => texts.get("error-forgery"),
            Self::NotFound => texts.get("error-not-found"),
            Self::Method => texts.get("error-method"),
            Self::TooMany => texts.get("error-too-many"),
            Self::Unavailable => texts.get("error-unavailable"),
            Self::Fault => texts.get("error-fault"),
        }
    }

    pub(super) fn words(self, texts: &Texts) -> String {
        match self {
            Self::RedirectUri => texts.get("error-redirect-uri-words"),
            Self::UnknownClient => texts.get("error-unknown-client-words"),
            Self::Request => texts.get("error-request-words"),
            Self::SignOut => texts.get("error-sign-out-words"),
            Self::Forgery => texts.get("error-forgery-words"),
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
pub(super) struct WrongAddress {
    pub(super) page: Page,
    pub(super) opened: String,
    pub(super) configured: String,
    /// The line of the configuration to change, complete.
    pub(super) line: String,
}

#[derive(Template)]
#[template(path = "home.html")]
pub(super) struct Home {
    pub(super) page: Page,
    /// Nobody in it: signed out.
    pub(super) accounts: Vec<SignedIn>,
    pub(super) csrf: String,
    pub(super) sign_in_href: String,
    pub(super) sign_out_action: String,
    pub(super) test_app_href: Option<String>,
}

pub(super) struct SignedIn {
    pub(super) face: AccountFace,
    pub(super) since: Moment,
    /// Sent back as `session`.
    pub(super) session: String,
}

/// The question before somebody is signed out.
#[derive(Template)]
#[template(path = "login/sign_out.html")]
pub(super) struct SignOut {
    pub(super) page: Page,
    pub(super) app: Option<AppFace>,
    pub(super) action: String,
    pub(super) ticket: String,
    pub(super) csrf: String,
    pub(super) accounts: Vec<ChoosableAccount>,
    /// Which of several is chosen already; without one, all of them.
    pub(super) chosen: Option<String>,
    pub(super) stay_href: String,
    /// What the app's developer would otherwise wonder about.
    pub(super) note: Option<String>,
}

/// What comes after it, when the app named no place to go to.
#[derive(Template)]
#[template(path = "login/signed_out.html")]
pub(super) struct SignedOut {
    pub(super) page: Page,
    pub(super) others_remain: bool,
    pub(super) next: Link,
}

/// The built-in test app: choices at the start, and what happened after a run.
#[derive(Template)]
#[template(path = "dev/app.html")]
pub(super) struct DevApp {
    pub(super) page: Page,
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    /// GET with `scope` (repeated), `prompt` and `id_token_claims=on`.
    pub(super) start_href: String,
    pub(super) scopes: Vec<DevChoice>,
    pub(super) prompts: Vec<DevChoice>,
    pub(super) id_token_claims: bool,
    pub(super) error: Option<DevError>,
    pub(super) run: Option<DevRun>,
}

pub(super) struct DevChoice {
    pub(super) value: String,
    pub(super) chosen: bool,
}

#[derive(Clone)]
pub(super) struct DevError {
    pub(super) code: String,
    pub(super) description: String,
}

pub(super) struct DevRun {
    pub(super) steps: Vec<DevStep>,
    pub(super) tokens: Vec<DevTable>,
    /// POST; absent without a refresh token.
    pub(super) refresh_action: Option<String>,
    pub(super) csrf: String,
    pub(super) sign_out_href: Option<String>,
}

pub(super) struct DevStep {
    pub(super) title: String,
    pub(super) request: String,
    pub(super) response: String,
    pub(super) duration_ms: u64,
}

/// Claims of a token, or of UserInfo, with the token itself where there is one.
pub(super) struct DevTable {
    pub(super) title: String,
    pub(super) raw: Option<String>,
    pub(super) claims: Vec<DevClaim>,
}

pub(super) struct DevClaim {
    pub(super) name: String,
    pub(super) value: String,
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
