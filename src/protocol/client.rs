//! Clients: the apps that send people here. RFC 7591 §2; OpenID Connect Dynamic Client Registration §2.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::duration;
use super::grants::GrantType;
use super::jose::{ClientKey, SigningAlgorithm};
use super::known_scopes::KnownScopes;
use super::problem::Problem;
use super::redirect_uri::RedirectUri;
use super::resource;
use super::scope::{self, Scope};

/// A client's public name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(String);

impl ClientId {
    /// From a request, where it is only looked up.
    pub fn from_request(value: &str) -> Self {
        Self(value.to_owned())
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a client proves itself at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// `Authorization: Basic`. Stands for `client_secret_post` too: it is the same secret.
    ClientSecretBasic,
    /// In the body. Stands for `client_secret_basic` too.
    ClientSecretPost,
    /// An assertion that it signed with a key of its `jwks`.
    PrivateKeyJwt,
    /// A public client: it has no secret to keep.
    None,
}

impl AuthMethod {
    /// Every method that the token endpoint accepts.
    pub const ALL: &[Self] = &[
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::PrivateKeyJwt,
        Self::None,
    ];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::None => "none",
        }
    }
}

/// Where a client runs (OpenID Connect Registration §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplicationType {
    #[default]
    Web,
    /// On the person's own machine: loopback redirects with any port, and schemes of its own.
    Native,
}

/// What an access token looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessTokenFormat {
    /// `at+jwt` (RFC 9068).
    #[default]
    Jwt,
    /// Random; only this server knows what it means.
    Opaque,
}

/// A registered client whose every value was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    pub client_id: ClientId,
    pub client_name: Option<String>,
    pub client_uri: Option<String>,
    pub policy_uri: Option<String>,
    pub tos_uri: Option<String>,
    pub application_type: ApplicationType,
    pub redirect_uris: Vec<RedirectUri>,
    /// Where people may be sent after signing out (RP-Initiated Logout §3.1).
    #[serde(default)]
    pub post_logout_redirect_uris: Vec<RedirectUri>,
    pub grant_types: Vec<GrantType>,
    pub token_endpoint_auth_method: AuthMethod,
    /// The only algorithm that its assertions may be signed with; otherwise each that its keys are for.
    #[serde(default)]
    pub token_endpoint_auth_signing_alg: Option<SigningAlgorithm>,
    /// With which it signs assertions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jwks: Vec<ClientKey>,
    pub id_token_signed_response_alg: SigningAlgorithm,
    pub default_max_age: Option<u64>,
    pub default_acr_values: Vec<String>,
    /// What it may ask for; `None` is everything that the server knows.
    pub scope: Option<Scope>,
    pub require_pkce: bool,
    pub skip_consent: bool,
    pub access_token_format: AccessTokenFormat,
    pub allowed_cors_origins: Vec<String>,
    pub allowed_resources: Vec<String>,
    /// The resources that it protects: tokens that are meant for them concern it.
    #[serde(default)]
    pub protected_resources: Vec<String>,
    pub claims_in_id_token: bool,
    /// A refresh token without `offline_access` too, bound to the sign-in.
    pub session_refresh_tokens: bool,
    #[serde(default)]
    pub tokens: Lifetimes,
}

/// Lifetimes that differ from the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    pub code: Option<Duration>,
    pub access: Option<Duration>,
    pub id: Option<Duration>,
    pub refresh_idle: Option<Duration>,
    pub refresh_absolute: Option<Duration>,
    pub refresh_retry_window: Option<Duration>,
}

impl Client {
    /// Whether it proves itself with a secret.
    pub fn has_secret(&self) -> bool {
        matches!(
            self.token_endpoint_auth_method,
            AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost
        )
    }

    /// Whether it can't prove itself at all (RFC 6749 §2.1).
    pub fn is_public(&self) -> bool {
        self.token_endpoint_auth_method == AuthMethod::None
    }

    /// What people see: its name, else its id.
    pub fn display_name(&self) -> &str {
        self.client_name
            .as_deref()
            .unwrap_or(self.client_id.as_str())
    }

    /// Must it send a `code_challenge`? Public clients always (security decision 2).
    pub fn must_use_pkce(&self) -> bool {
        self.require_pkce || self.is_public()
    }

    /// May it ask for tokens in this way?
    pub fn may_use(&self, grant_type: GrantType) -> bool {
        self.grant_types.contains(&grant_type)
    }

    /// May any loopback port be used? (RFC 8252 §7.3)
    pub fn any_loopback_port(&self) -> bool {
        self.is_public() && self.application_type == ApplicationType::Native
    }

    /// May it ask for this claim by name? Only for what a scope that it may have brings: else `claims` would walk around `scope`.
    pub fn may_learn(&self, claim: &str, known: &KnownScopes) -> bool {
        known
            .with_claims()
            .filter(|scope| self.may_have(scope))
            .any(|scope| known.claims_of(scope).any(|brought| brought == claim))
    }

    /// What is left of a scope under what the server knows and what this client may have.
    pub fn allowed_scope(&self, requested: Scope, known: &KnownScopes) -> Scope {
        requested.retain(|token| {
            known.contains(token)
                && (token != scope::OFFLINE_ACCESS || self.may_use(GrantType::RefreshToken))
                && self.may_have(token)
        })
    }

    fn may_have(&self, scope: &str) -> bool {
        let allowed = self.scope.as_ref();
        allowed.is_none_or(|allowed| allowed.contains(scope))
    }
}

/// Client metadata as an operator writes it, before it is checked. The names are RFC 7591's; the last ones are ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientMetadata {
    pub client_id: Option<String>,
    #[serde(default, skip_serializing)]
    pub client_secret: Option<String>,
    /// In place of `client_secret`, from an operator's file only: the hashes of all.
    #[serde(default, skip_serializing)]
    pub client_secret_hashes: Option<Vec<Value>>,
    pub client_name: Option<String>,
    pub client_uri: Option<String>,
    pub policy_uri: Option<String>,
    pub tos_uri: Option<String>,
    pub application_type: Option<String>,
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    #[serde(default)]
    pub post_logout_redirect_uris: Vec<String>,
    pub response_types: Option<Vec<String>>,
    pub grant_types: Option<Vec<String>>,
    pub token_endpoint_auth_method: Option<String>,
    pub token_endpoint_auth_signing_alg: Option<String>,
    pub jwks: Option<Value>,
    pub id_token_signed_response_alg: Option<String>,
    pub default_max_age: Option<u64>,
    pub default_acr_values: Option<Vec<String>>,
    pub scope: Option<String>,
    pub require_pkce: Option<bool>,
    pub skip_consent: Option<bool>,
    pub access_token_format: Option<String>,
    pub allowed_cors_origins: Option<Vec<String>>,
    pub allowed_resources: Option<Vec<String>>,
    pub protected_resources: Option<Vec<String>>,
    pub claims_in_id_token: Option<bool>,
    pub session_refresh_tokens: Option<bool>,
    pub refresh_retry_window: Option<DurationText>,
    #[serde(default)]
    pub tokens: BTreeMap<String, DurationText>,
}

/// A duration with a unit (`"10m"`), or whole seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DurationText {
    Seconds(u64),
    Text(String),
}

impl DurationText {
    /// Nothing when the text has no sense.
    pub fn duration(&self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs(*seconds)),
            Self::Text(text) => duration::parse(text),
        }
    }
}

/// What a client can have lifetimes of.
pub(crate) const LIFETIMES: &[&str] = &[
    "code",
    "access",
    "id",
    "refresh_idle",
    "refresh_absolute",
    "refresh_retry_window",
];
pub(crate) const UNKNOWN_LIFETIME: &str =
    "is not known: code, access, id, refresh_idle, refresh_absolute or refresh_retry_window";

const LONGEST_NAME: usize = 200;
const LONGEST_TEXT: usize = 2_000;
const MOST_VALUES: usize = 100;
const LONGEST_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3_600);
const LONGEST_CODE_LIFE: Duration = Duration::from_secs(600);
const LONGEST_FAMILY_LIFE: Duration = Duration::from_secs(3_650 * 86_400);
const LONGEST_RETRY_WINDOW: Duration = Duration::from_secs(600);

impl ClientMetadata {
    /// Checks everything and lists every problem at once.
    pub fn check(&self, client_id: ClientId, known: &KnownScopes) -> Result<Client, Vec<Problem>> {
        self.check_beside(client_id, known, BTreeSet::new())
    }

    /// The same where some fields were refused before and are absent here: what depends on one of them is not judged.
    pub fn check_beside(
        &self,
        client_id: ClientId,
        known: &KnownScopes,
        refused: BTreeSet<String>,
    ) -> Result<Client, Vec<Problem>> {
        let mut problems = Problems {
            found: Vec::new(),
            refused,
        };
        let mut fitting = self.clone();
        fitting.refuse_what_is_too_large(&mut problems);
        fitting.check_values(client_id, known, problems)
    }

    fn check_values(
        &self,
        client_id: ClientId,
        known: &KnownScopes,
        mut problems: Problems,
    ) -> Result<Client, Vec<Problem>> {
        if problems.is_sound("client_id") && !is_client_id(client_id.as_str()) {
            problems.add::<()>(
                "client_id",
                "is 1 to 255 of A-Z a-z 0-9 - _ . ~, and not dots alone",
            );
        }
        let application_type = match self.application_type.as_deref() {
            None | Some("web") => ApplicationType::Web,
            Some("native") => ApplicationType::Native,
            Some(_) => problems
                .add("application_type", "is web or native")
                .unwrap_or_default(),
        };
        let method = self.check_method(&mut problems);
        if let Some(method @ (AuthMethod::None | AuthMethod::PrivateKeyJwt)) = method {
            let name = method.as_str();
            let reason = format!("a client with token_endpoint_auth_method {name} has no secret");
            if self.client_secret.is_some() {
                problems.add::<()>("client_secret", reason.as_str());
            }
            if self.client_secret_hashes.is_some() {
                problems.add::<()>("client_secret_hashes", reason);
            }
        }
        let (jwks, auth_algorithm) = self.check_keys(method, &mut problems);
        if let Some(secret) = &self.client_secret
            && (secret.len() < 32 || !secret.chars().all(|c| c.is_ascii_graphic()))
        {
            problems.add::<()>(
                "client_secret",
                "is at least 32 printable ASCII characters; leave it out to have one made",
            );
        }
        // Where nobody knows, what either may have is no mistake.
        let native =
            application_type == ApplicationType::Native || !problems.is_sound("application_type");
        let redirect_uris = problems.register("redirect_uris", &self.redirect_uris, native);
        let post_logout_redirect_uris = problems.register(
            "post_logout_redirect_uris",
            &self.post_logout_redirect_uris,
            native,
        );
        let grant_types = self.check_grant_types(method, &mut problems);
        let knows_grants = problems.is_sound("grant_types");
        let signs_in = grant_types.contains(&GrantType::AuthorizationCode);
        if self.redirect_uris.is_empty()
            && signs_in
            && knows_grants
            && problems.is_sound("redirect_uris")
        {
            problems.add::<()>(
                "redirect_uris",
                "at least one is needed to send people back to",
            );
        }
        let response_types: &[&str] = if signs_in { &["code"] } else { &[] };
        if knows_grants
            && problems.is_sound("response_types")
            && self
                .response_types
                .as_ref()
                .is_some_and(|types| types != response_types)
        {
            let reason = "is [\"code\"] with the grant type authorization_code, and [] without it";
            problems.add::<()>("response_types", reason);
        }
        let session_refresh_tokens = self.session_refresh_tokens.unwrap_or(false);
        if session_refresh_tokens && knows_grants && !grant_types.contains(&GrantType::RefreshToken)
        {
            let reason = "needs \"refresh_token\" among grant_types";
            problems.add::<()>("session_refresh_tokens", reason);
        }
        let algorithm = match self.id_token_signed_response_alg.as_deref() {
            None => SigningAlgorithm::Rs256,
            Some(name) => name.parse().unwrap_or_else(|_unknown| {
                problems.add::<()>(
                    "id_token_signed_response_alg",
                    "is RS256, ES256, PS256 or EdDSA",
                );
                SigningAlgorithm::Rs256
            }),
        };
        let scope = self
            .scope
            .as_deref()
            .and_then(|text| match text.parse::<Scope>() {
                Ok(scope) => match scope.clone().retain(|token| !known.contains(token)) {
                    unknown
                        if unknown.is_empty()
                            // What a machine may do at its APIs has names that only those know.
                            || grant_types.contains(&GrantType::ClientCredentials)
                            || problems.refused.contains("grant_types") =>
                    {
                        Some(scope)
                    }
                    unknown => {
                        let names: Vec<_> = known.names().collect();
                        let reason = format!("\"{unknown}\" is not among {}", names.join(" "));
                        problems.add("scope", reason)
                    }
                },
                Err(reason) => problems.add("scope", reason.to_string()),
            });
        let access_token_format = match self.access_token_format.as_deref() {
            None | Some("jwt") => AccessTokenFormat::Jwt,
            Some("opaque") => AccessTokenFormat::Opaque,
            Some(_) => problems
                .add("access_token_format", "is jwt or opaque")
                .unwrap_or_default(),
        };
        for (index, origin) in self.allowed_cors_origins.iter().flatten().enumerate() {
            if !is_origin(origin) {
                problems.add::<()>(
                    &format!("allowed_cors_origins[{index}]"),
                    format!("{origin:?} is not an origin such as https://app.example (or http://localhost:3000): scheme, host, port, nothing else"),
                );
            }
        }
        for (index, value) in self.default_acr_values.iter().flatten().enumerate() {
            if value.is_empty() || !value.chars().all(|c| c.is_ascii_graphic()) {
                problems.add::<()>(
                    &format!("default_acr_values[{index}]"),
                    "is printable ASCII without spaces",
                );
            }
        }
        for (field, values) in [
            ("allowed_resources", &self.allowed_resources),
            ("protected_resources", &self.protected_resources),
        ] {
            for (index, value) in values.iter().flatten().enumerate() {
                if !resource::is_valid(value) {
                    problems.add::<()>(
                        &format!("{field}[{index}]"),
                        "is an absolute URI without a fragment",
                    );
                }
            }
        }
        for (field, value) in [
            ("client_uri", &self.client_uri),
            ("policy_uri", &self.policy_uri),
            ("tos_uri", &self.tos_uri),
        ] {
            if value.as_ref().is_some_and(|value| !is_web_address(value)) {
                problems.add::<()>(
                    field,
                    "is an address that begins with https:// (or http://localhost)",
                );
            }
        }
        let tokens = self.check_lifetimes(&mut problems);
        let client = Client {
            client_id,
            client_name: self
                .client_name
                .as_deref()
                .map(plain_text)
                .filter(|name| !name.is_empty()),
            client_uri: self.client_uri.clone(),
            policy_uri: self.policy_uri.clone(),
            tos_uri: self.tos_uri.clone(),
            application_type,
            redirect_uris,
            post_logout_redirect_uris,
            grant_types,
            token_endpoint_auth_method: method.unwrap_or(AuthMethod::None),
            token_endpoint_auth_signing_alg: auth_algorithm,
            jwks,
            id_token_signed_response_alg: algorithm,
            default_max_age: self.default_max_age,
            default_acr_values: distinct(self.default_acr_values.as_deref().unwrap_or_default()),
            scope,
            require_pkce: self.require_pkce.unwrap_or(false),
            skip_consent: self.skip_consent.unwrap_or(false),
            access_token_format,
            allowed_cors_origins: distinct(
                self.allowed_cors_origins.as_deref().unwrap_or_default(),
            ),
            allowed_resources: distinct(self.allowed_resources.as_deref().unwrap_or_default()),
            protected_resources: distinct(self.protected_resources.as_deref().unwrap_or_default()),
            claims_in_id_token: self.claims_in_id_token.unwrap_or(false),
            session_refresh_tokens,
            tokens,
        };
        if problems.found.is_empty() {
            Ok(client)
        } else {
            Err(problems.found)
        }
    }

    /// Nothing when nobody knows which.
    fn check_method(&self, problems: &mut Problems) -> Option<AuthMethod> {
        let field = "token_endpoint_auth_method";
        match self.token_endpoint_auth_method.as_deref() {
            None if !problems.is_sound(field) => None,
            None | Some("client_secret_basic") => Some(AuthMethod::ClientSecretBasic),
            Some("client_secret_post") => Some(AuthMethod::ClientSecretPost),
            Some("private_key_jwt") => Some(AuthMethod::PrivateKeyJwt),
            Some("none") => Some(AuthMethod::None),
            Some(_) => problems.add(
                field,
                "is client_secret_basic, client_secret_post, private_key_jwt or none",
            ),
        }
    }

    fn check_grant_types(
        &self,
        method: Option<AuthMethod>,
        problems: &mut Problems,
    ) -> Vec<GrantType> {
        let Some(names) = &self.grant_types else {
            return vec![GrantType::AuthorizationCode];
        };
        let mut grant_types: Vec<GrantType> = Vec::new();
        for name in names {
            match name.parse() {
                Ok(grant_type) if grant_types.contains(&grant_type) => {}
                Ok(grant_type) => grant_types.push(grant_type),
                Err(_unknown) => {
                    let known = GrantType::ALL.iter().map(|known| known.as_str());
                    let known: Vec<_> = known.collect();
                    problems.add::<()>(
                        "grant_types",
                        format!("{name:?} is not among {}", known.join(", ")),
                    );
                }
            }
        }
        let has = |grant_type| grant_types.contains(&grant_type);
        if names.is_empty() && problems.is_sound("grant_types") {
            problems.add::<()>(
                "grant_types",
                "has at least one; leave it out for authorization_code",
            );
        }
        if has(GrantType::RefreshToken)
            && !has(GrantType::AuthorizationCode)
            && problems.is_sound("grant_types")
        {
            problems.add::<()>(
                "grant_types",
                "refresh_token needs authorization_code beside it",
            );
        }
        if has(GrantType::ClientCredentials) && method == Some(AuthMethod::None) {
            let reason = "client_credentials needs a client that can keep a secret (RFC 6749 §4.4)";
            problems.add::<()>("grant_types", reason);
        }
        grant_types
    }

    /// Keys, and the only algorithm if one is named; both of no use to a client that signs nothing.
    fn check_keys(
        &self,
        method: Option<AuthMethod>,
        problems: &mut Problems,
    ) -> (Vec<ClientKey>, Option<SigningAlgorithm>) {
        let signs = method.is_none_or(|method| method == AuthMethod::PrivateKeyJwt);
        let jwks = match &self.jwks {
            None if method.is_some() && signs && problems.is_sound("jwks") => {
                problems.add("jwks", "is needed for private_key_jwt")
            }
            None => None,
            Some(_) if !signs => problems.add(
                "jwks",
                "is for clients with token_endpoint_auth_method private_key_jwt",
            ),
            Some(set) => match ClientKey::read_set(set) {
                Ok(keys) => Some(keys),
                Err(reason) => problems.add("jwks", reason),
            },
        };
        let jwks = jwks.unwrap_or_default();
        let field = "token_endpoint_auth_signing_alg";
        let Some(name) = self.token_endpoint_auth_signing_alg.as_deref() else {
            return (jwks, None);
        };
        let algorithm = match name.parse() {
            _ if !signs => problems.add(field, "is for token_endpoint_auth_method private_key_jwt"),
            Ok(algorithm) if jwks.is_empty() => Some(algorithm),
            Ok(algorithm) if jwks.iter().any(|key| key.algorithms().contains(&algorithm)) => {
                Some(algorithm)
            }
            Ok(_) => problems.add(field, "no key of jwks is for it"),
            Err(_unknown) => problems.add(field, "is RS256, PS256, ES256 or EdDSA"),
        };
        (jwks, algorithm)
    }

    /// What is too large is looked at no further: each of its values could be one more problem.
    fn refuse_what_is_too_large(&mut self, problems: &mut Problems) {
        let texts = [
            ("client_name", &mut self.client_name, LONGEST_NAME),
            ("client_uri", &mut self.client_uri, LONGEST_TEXT),
            ("policy_uri", &mut self.policy_uri, LONGEST_TEXT),
            ("tos_uri", &mut self.tos_uri, LONGEST_TEXT),
            ("client_secret", &mut self.client_secret, LONGEST_TEXT),
            ("scope", &mut self.scope, LONGEST_TEXT),
        ];
        for (field, value, longest) in texts {
            if value.as_ref().is_some_and(|value| value.len() > longest) {
                problems.refuse(field, format!("has more than {longest} bytes"));
                *value = None;
            }
        }
        let lists = [
            ("redirect_uris", Some(&mut self.redirect_uris)),
            ("response_types", self.response_types.as_mut()),
            ("grant_types", self.grant_types.as_mut()),
            (
                "post_logout_redirect_uris",
                Some(&mut self.post_logout_redirect_uris),
            ),
            ("allowed_cors_origins", self.allowed_cors_origins.as_mut()),
            ("allowed_resources", self.allowed_resources.as_mut()),
            ("protected_resources", self.protected_resources.as_mut()),
            ("default_acr_values", self.default_acr_values.as_mut()),
        ];
        for (field, values) in lists {
            let Some(values) = values else { continue };
            if values.len() > MOST_VALUES || values.iter().any(|value| value.len() > LONGEST_TEXT) {
                let reason = "has more than 100 values, or one of more than 2000 characters";
                problems.refuse(field, reason);
                values.clear();
            }
        }
        if self.tokens.len() > MOST_VALUES {
            problems.refuse("tokens", "has more than 100 values");
            self.tokens.clear();
        }
    }

    fn check_lifetimes(&self, problems: &mut Problems) -> Lifetimes {
        let mut lifetimes = Lifetimes::default();
        let all = self.tokens.iter();
        let mut all: Vec<_> = all
            .map(|(name, text)| (name.as_str(), format!("tokens.{name}"), text))
            .collect();
        let window = "refresh_retry_window";
        let outside = self.refresh_retry_window.iter();
        all.extend(outside.map(|text| (window, window.to_owned(), text)));
        for (name, field, text) in all {
            let (slot, longest) = match name {
                "code" => (&mut lifetimes.code, LONGEST_CODE_LIFE),
                "access" => (&mut lifetimes.access, LONGEST_TOKEN_LIFE),
                "id" => (&mut lifetimes.id, LONGEST_TOKEN_LIFE),
                "refresh_idle" => (&mut lifetimes.refresh_idle, LONGEST_FAMILY_LIFE),
                "refresh_absolute" => (&mut lifetimes.refresh_absolute, LONGEST_FAMILY_LIFE),
                "refresh_retry_window" => {
                    (&mut lifetimes.refresh_retry_window, LONGEST_RETRY_WINDOW)
                }
                _ => {
                    problems.add::<()>(&field, UNKNOWN_LIFETIME);
                    continue;
                }
            };
            match text
                .duration()
                .filter(|life| *life <= longest)
                // Strict is a choice; a token that never lives is a mistake.
                .filter(|life| !life.is_zero() || name == "refresh_retry_window")
            {
                Some(life) if slot.is_some_and(|other| other != life) => {
                    problems.add::<()>(
                        &field,
                        "says something else than tokens.refresh_retry_window",
                    );
                }
                Some(life) => *slot = Some(life),
                None => {
                    let reason = format!(
                        "is a duration such as \"60s\" or \"10m\", at most {} minutes",
                        longest.as_secs() / 60
                    );
                    problems.add::<()>(&field, reason);
                }
            }
        }
        lifetimes
    }
}

struct Problems {
    found: Vec<Problem>,
    /// Fields whose values are not there to be judged.
    refused: BTreeSet<String>,
}

impl Problems {
    fn add<T>(&mut self, field: &str, reason: impl Into<String>) -> Option<T> {
        self.found.push(Problem::new(field, reason));
        None
    }

    fn refuse(&mut self, field: &str, reason: impl Into<String>) {
        self.add::<()>(field, reason);
        self.refused.insert(field.to_owned());
    }

    /// Whether what depends on a field can be judged.
    fn is_sound(&self, field: &str) -> bool {
        !self.refused.contains(field) && self.found.iter().all(|problem| problem.field != field)
    }

    /// Each address once, in the order in which they first come.
    fn register(&mut self, field: &str, values: &[String], native: bool) -> Vec<RedirectUri> {
        let mut uris = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match RedirectUri::register(value, native) {
                Ok(uri) if uris.contains(&uri) => {}
                Ok(uri) => uris.push(uri),
                Err(reason) => {
                    let field = format!("{field}[{index}]");
                    self.add::<()>(&field, format!("{value:?} {reason}"));
                }
            }
        }
        uris
    }
}

/// Can a client be called so?
pub fn is_client_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
    // It becomes part of addresses, where dots alone mean another place.
    (1..=255).contains(&id.len()) && id.chars().all(allowed) && id.chars().any(|c| c != '.')
}

/// Each value once, in the order in which they first come.
pub(crate) fn distinct(values: &[String]) -> Vec<String> {
    let mut once: Vec<String> = Vec::new();
    for value in values {
        if !once.contains(value) {
            once.push(value.clone());
        }
    }
    once
}

fn is_origin(value: &str) -> bool {
    Url::parse(value)
        .is_ok_and(|url| is_safe_to_fetch(&url) && url.origin().ascii_serialization() == value)
}

/// An address that people may be sent to by a link. Browsers take `https:x` and `https:\\x` for something else than programs.
fn is_web_address(value: &str) -> bool {
    let is_plain = value.chars().all(|c| c.is_ascii_graphic() && c != '\\')
        && (value.starts_with("https://") || value.starts_with("http://"));
    is_plain
        && Url::parse(value).is_ok_and(|url| {
            is_safe_to_fetch(&url) && url.username().is_empty() && url.password().is_none()
        })
}

/// Nobody on the way can change what is there.
fn is_safe_to_fetch(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")),
        _ => false,
    }
}

/// A name without control characters, without the marks that turn the reading direction round, and without what takes no
/// room: each of them could disguise one name as another.
fn plain_text(name: &str) -> String {
    let disguises = |c: char| {
        matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
    };
    name.chars()
        .filter(|c| !c.is_control() && !disguises(*c))
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> ClientMetadata {
        ClientMetadata {
            redirect_uris: vec!["https://rp.example/cb".to_owned()],
            ..ClientMetadata::default()
        }
    }

    fn problems(metadata: &ClientMetadata) -> Vec<String> {
        metadata
            .check(ClientId::from_request("c"), &KnownScopes::default())
            .expect_err("has problems")
            .into_iter()
            .map(|problem| problem.field)
            .collect()
    }

    #[test]
    fn how_a_client_refreshes_is_checked() {
        let refreshing = |grants: &[&str], tokens: &[(&str, &str)]| ClientMetadata {
            grant_types: Some(grants.iter().map(ToString::to_string).collect()),
            session_refresh_tokens: Some(true),
            tokens: tokens
                .iter()
                .map(|(name, text)| ((*name).to_owned(), DurationText::Text((*text).to_owned())))
                .collect(),
            ..metadata()
        };
        let both = ["authorization_code", "refresh_token"];
        let strict = [("refresh_retry_window", "0"), ("refresh_idle", "90d")];
        let client = refreshing(&both, &strict)
            .check(ClientId::from_request("c"), &KnownScopes::default())
            .expect("valid");
        assert!(client.may_use(GrantType::RefreshToken) && client.session_refresh_tokens);
        assert_eq!(client.tokens.refresh_retry_window, Some(Duration::ZERO));
        assert_eq!(
            problems(&refreshing(&["authorization_code"], &[])),
            ["session_refresh_tokens"]
        );
        assert_eq!(
            problems(&refreshing(&["refresh_token"], &[])),
            ["grant_types"]
        );
        let never = [("refresh_idle", "0"), ("refresh_retry_window", "11m")];
        assert_eq!(
            problems(&refreshing(&both, &never)),
            ["tokens.refresh_idle", "tokens.refresh_retry_window"]
        );
    }

    #[test]
    fn an_address_to_sign_out_to_is_judged_as_one_to_sign_in_to() {
        let leaving = |uris: &[&str]| ClientMetadata {
            post_logout_redirect_uris: uris.iter().map(ToString::to_string).collect(),
            ..metadata()
        };
        let bad = [
            "https://rp.example/bye#",
            "https://rp.example/bye",
            "http://rp.example/bye",
            "com.example.app:/bye",
        ];
        assert_eq!(
            problems(&leaving(&bad)),
            [0, 2, 3].map(|index| format!("post_logout_redirect_uris[{index}]"))
        );
        assert_eq!(
            problems(&leaving(&["https://rp.example/bye"; 101])),
            ["post_logout_redirect_uris"]
        );
    }

    #[test]
    fn every_problem_is_listed_at_once() {
        let bad = ClientMetadata {
            token_endpoint_auth_method: Some("tls_client_auth".to_owned()),
            redirect_uris: vec![
                "https://rp.example/#".to_owned(),
                "http://rp.example".to_owned(),
            ],
            grant_types: Some(vec!["password".to_owned()]),
            scope: Some("openid admin".to_owned()),
            tokens: BTreeMap::from([(
                "access".to_owned(),
                DurationText::Text("9 days".to_owned()),
            )]),
            ..ClientMetadata::default()
        };
        let expected = [
            "token_endpoint_auth_method",
            "redirect_uris[0]",
            "redirect_uris[1]",
            "grant_types",
            "scope",
            "tokens.access",
        ];
        assert_eq!(problems(&bad), expected);
    }

    #[test]
    fn a_public_client_has_no_secret_and_must_use_pkce() {
        let public = ClientMetadata {
            token_endpoint_auth_method: Some("none".to_owned()),
            ..metadata()
        };
        assert!(
            public
                .check(ClientId::from_request("c"), &KnownScopes::default())
                .expect("valid")
                .must_use_pkce()
        );
        let with_secret = ClientMetadata {
            client_secret: Some("x".repeat(43)),
            ..public
        };
        assert_eq!(problems(&with_secret), ["client_secret"]);
    }

    #[test]
    fn m4_a_name_cannot_hide_its_reading_direction() {
        let disguised = ClientMetadata {
            client_name: Some("\u{202e}elgooG\u{200b}".to_owned()),
            ..metadata()
        };
        assert_eq!(
            disguised
                .check(ClientId::from_request("c"), &KnownScopes::default())
                .expect("valid")
                .display_name(),
            "elgooG"
        );
    }

    fn named(name: &str) -> Client {
        let named = ClientMetadata {
            client_name: Some(name.to_owned()),
            ..metadata()
        };
        named
            .check(ClientId::from_request("c"), &KnownScopes::default())
            .expect("valid")
    }

    #[test]
    fn m4_a_name_has_no_character_that_nobody_sees() {
        for name in [
            "Goo\u{ad}gle",
            "Goo\u{0}gle",
            "Goo\u{1b}gle",
            "Goo\u{2029}gle",
            "Goo\u{206a}gle",
            "Goo\u{e0041}gle",
            "Goo\u{3164}gle",
            "\u{61c}Google",
            "\nGoogle\t",
            "\u{a0}Google\u{3000}",
            "Google\u{fff9}",
        ] {
            assert_eq!(named(name).display_name(), "Google", "{name:?}");
        }
        for nothing in ["", "  ", "\u{3164}\u{115f}", "\u{202e}"] {
            assert_eq!(named(nothing).display_name(), "c", "{nothing:?}");
        }
        for name in ["Bücherei", "本棚", "مكتبة", "Notes 📓"] {
            assert_eq!(named(name).display_name(), name);
        }
    }

    #[test]
    fn a3_a_client_with_one_bad_redirect_uri_is_refused() {
        let long = format!("https://rp.example/{}", "a".repeat(2_000));
        for (value, field) in [
            ("https://rp.example/*", "redirect_uris[1]"),
            (&long, "redirect_uris"),
        ] {
            let bad = ClientMetadata {
                redirect_uris: vec!["https://rp.example/cb".to_owned(), value.to_owned()],
                ..ClientMetadata::default()
            };
            assert_eq!(problems(&bad), [field]);
        }
    }

    #[test]
    fn m7_what_is_too_large_is_refused_with_one_problem_each() {
        let many = |value: &str| vec![value.to_owned(); MOST_VALUES + 1];
        let huge = ClientMetadata {
            client_name: Some("x".repeat(201)),
            scope: Some("x".repeat(2_001)),
            redirect_uris: many("https://*"),
            response_types: Some(many("code")),
            grant_types: Some(many("password")),
            default_acr_values: Some(many("")),
            allowed_cors_origins: Some(many("*")),
            allowed_resources: Some(many("*")),
            protected_resources: Some(vec!["x".repeat(2_001)]),
            tokens: (0..=MOST_VALUES)
                .map(|number| (number.to_string(), DurationText::Seconds(1)))
                .collect(),
            ..metadata()
        };
        let expected = [
            "client_name",
            "scope",
            "redirect_uris",
            "response_types",
            "grant_types",
            "allowed_cors_origins",
            "allowed_resources",
            "protected_resources",
            "default_acr_values",
            "tokens",
        ];
        assert_eq!(problems(&huge), expected);
    }

    #[test]
    fn m7_what_is_said_twice_is_registered_once() {
        let twice = |value: &str| vec![value.to_owned(), value.to_owned()];
        let client = ClientMetadata {
            redirect_uris: twice("https://rp.example/cb"),
            grant_types: Some(twice("authorization_code")),
            allowed_cors_origins: Some(twice("https://rp.example")),
            allowed_resources: Some(twice("https://api.example/")),
            protected_resources: Some(twice("https://api.example/")),
            default_acr_values: Some(twice("1")),
            ..metadata()
        }
        .check(ClientId::from_request("c"), &KnownScopes::default())
        .expect("valid");
        let lengths = [
            client.redirect_uris.len(),
            client.grant_types.len(),
            client.allowed_cors_origins.len(),
            client.allowed_resources.len(),
            client.protected_resources.len(),
            client.default_acr_values.len(),
        ];
        assert_eq!(lengths, [1; 6]);
    }

    #[test]
    fn m7_no_value_lets_a_client_do_more_than_is_known_here() {
        let text = |value: &str| Some(value.to_owned());
        let list = |value: &str| Some(vec![value.to_owned()]);
        let cases: [(&str, ClientMetadata); 16] = [
            (
                "grant_types",
                ClientMetadata {
                    grant_types: list("password"),
                    ..metadata()
                },
            ),
            (
                "grant_types",
                ClientMetadata {
                    grant_types: list("implicit"),
                    ..metadata()
                },
            ),
            (
                "grant_types",
                ClientMetadata {
                    grant_types: Some(Vec::new()),
                    ..metadata()
                },
            ),
            (
                "grant_types",
                ClientMetadata {
                    grant_types: list("client_credentials"),
                    token_endpoint_auth_method: text("none"),
                    ..ClientMetadata::default()
                },
            ),
            (
                "response_types",
                ClientMetadata {
                    response_types: list("token"),
                    ..metadata()
                },
            ),
            (
                "response_types",
                ClientMetadata {
                    response_types: list("code id_token"),
                    ..metadata()
                },
            ),
            (
                "scope",
                ClientMetadata {
                    scope: text("openid admin"),
                    ..metadata()
                },
            ),
            (
                "scope",
                ClientMetadata {
                    scope: text("openid\u{0}"),
                    ..metadata()
                },
            ),
            (
                "token_endpoint_auth_method",
                ClientMetadata {
                    token_endpoint_auth_method: text("NONE"),
                    ..metadata()
                },
            ),
            (
                "token_endpoint_auth_method",
                ClientMetadata {
                    token_endpoint_auth_method: text(""),
                    ..metadata()
                },
            ),
            (
                "client_secret",
                ClientMetadata {
                    client_secret: text("a-secret-of-more-than-thirty-two-characters"),
                    token_endpoint_auth_method: text("none"),
                    ..metadata()
                },
            ),
            (
                "client_secret",
                ClientMetadata {
                    client_secret: text("short"),
                    ..metadata()
                },
            ),
            (
                "application_type",
                ClientMetadata {
                    application_type: text("trusted"),
                    ..metadata()
                },
            ),
            (
                "id_token_signed_response_alg",
                ClientMetadata {
                    id_token_signed_response_alg: text("none"),
                    ..metadata()
                },
            ),
            (
                "id_token_signed_response_alg",
                ClientMetadata {
                    id_token_signed_response_alg: text("HS256"),
                    ..metadata()
                },
            ),
            (
                "access_token_format",
                ClientMetadata {
                    access_token_format: text("none"),
                    ..metadata()
                },
            ),
        ];
        for (field, metadata) in cases {
            assert_eq!(problems(&metadata), [field], "{metadata:?}");
        }
        let unknown =
            serde_json::json!({ "redirect_uris": ["https://rp.example/cb"], "trusted": true });
        assert!(serde_json::from_value::<ClientMetadata>(unknown).is_err());
    }

    #[test]
    fn m7_a_client_id_is_safe_in_an_address() {
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a%2fb",
            "é",
            "a\n",
            &"x".repeat(256),
        ] {
            let refused = metadata()
                .check(ClientId::from_request(id), &KnownScopes::default())
                .expect_err(id);
            assert_eq!(
                refused.first().map(|problem| problem.field.as_str()),
                Some("client_id"),
                "{id:?}"
            );
        }
        for id in ["rp", "-", "com.example.app", &"x".repeat(255)] {
            assert!(
                metadata()
                    .check(ClientId::from_request(id), &KnownScopes::default())
                    .is_ok(),
                "{id}"
            );
        }
    }

    #[test]
    fn links_and_origins_are_https_or_on_this_machine() {
        for good in [
            "https://rp.example/terms?x=1",
            "https://RP.example",
            "http://localhost:3000/",
        ] {
            assert!(is_web_address(good), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            "http://rp.example/",
            "https:rp.example",
            "https:/rp.example",
            "https:\\\\rp.example",
            "//rp.example",
            " https://rp.example",
            "https://rp.example/\n",
            "https://user@rp.example/",
            "https://rp.example/\u{202e}",
            "https://",
            "data:,x",
        ] {
            assert!(!is_web_address(bad), "{bad:?}");
        }
        for good in [
            "https://rp.example",
            "https://rp.example:8443",
            "http://localhost:3000",
            "http://127.0.0.1:3000",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "*",
            "null",
            "https://rp.example/",
            "https://RP.example",
            "https://rp.example:443",
            "http://rp.example",
            "https://*.rp.example/",
            "file://",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_written_as_in_the_configuration() {
        let text = |text: &str| DurationText::Text(text.to_owned()).duration();
        assert_eq!(text("10m"), Some(Duration::from_secs(600)));
        assert_eq!(text("+60s"), None);
    }

    #[test]
    fn two_retry_windows_are_one() {
        let both = |outside: &str, inside: &str| ClientMetadata {
            refresh_retry_window: Some(DurationText::Text(outside.to_owned())),
            tokens: BTreeMap::from([(
                "refresh_retry_window".to_owned(),
                DurationText::Text(inside.to_owned()),
            )]),
            ..metadata()
        };
        assert_eq!(problems(&both("60s", "30s")), ["refresh_retry_window"]);
        let client = both("60s", "1m").check(ClientId::from_request("c"), &KnownScopes::default());
        let window = client.expect("they agree").tokens.refresh_retry_window;
        assert_eq!(window, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_follows_from_a_mistake_is_no_other_one() {
        let unknown = ClientMetadata {
            token_endpoint_auth_method: Some("secret".to_owned()),
            client_secret: Some("x".repeat(43)),
            jwks: None,
            ..metadata()
        };
        assert_eq!(problems(&unknown), ["token_endpoint_auth_method"]);
        let misspelt = ClientMetadata {
            grant_types: Some(vec!["authorization_cod".to_owned()]),
            response_types: Some(vec!["code".to_owned()]),
            session_refresh_tokens: Some(true),
            ..metadata()
        };
        assert_eq!(problems(&misspelt), ["grant_types"]);
        let unknown = ClientMetadata {
            application_type: Some("mobile".to_owned()),
            redirect_uris: vec!["com.example.app:/callback".to_owned()],
            ..ClientMetadata::default()
        };
        assert_eq!(problems(&unknown), ["application_type"]);
        let refused = BTreeSet::from(["redirect_uris".to_owned()]);
        let absent = ClientMetadata::default();
        let known = KnownScopes::default();
        assert!(
            absent
                .check_beside(ClientId::from_request("c"), &known, refused)
                .is_ok()
        );
    }

    #[test]
    fn what_is_too_large_hides_nothing_else() {
        let both = ClientMetadata {
            client_name: Some("x".repeat(201)),
            access_token_format: Some("none".to_owned()),
            ..metadata()
        };
        assert_eq!(problems(&both), ["client_name", "access_token_format"]);
    }
}
