//! What a development server begins with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Format, Seed, SeedError};
use crate::config::Config;
use crate::protocol::seal::{RootKey, mac};
use crate::protocol::time::Timestamp;
use crate::store::Store;

/// The built-in relying party's own credentials.
#[derive(Clone)]
pub struct DevApp {
    pub client_id: String,
    pub client_secret: String,
    /// The secret of `demo-web`, which the start prints.
    pub demo_secret: String,
}

/// The people and apps of a development server. Secrets follow from its key, so that they are the same after a restart.
pub(crate) fn development(
    store: &Store,
    root: &RootKey,
    config: &Config,
    now: Timestamp,
) -> Result<DevApp, SeedError> {
    let secret_of =
        |client: &str| URL_SAFE_NO_PAD.encode(mac(root, "development client", client.as_bytes()));
    let (web_secret, app_secret) = (secret_of("demo-web"), secret_of("dev-app"));
    let text = serde_json::json!({
        "users": [
            {
                "email": "alice@example.test", "password": "correct-horse-battery", "email_verified": true, "groups": ["members"],
                "claims": { "name": "Alice Archer", "given_name": "Alice", "family_name": "Archer", "locale": "en-GB" }
            },
            {
                "email": "admin@example.test", "password": "battery-staple-correct", "email_verified": true, "admin": true,
                "groups": ["admins", "members"], "claims": { "name": "Ada Admin" }
            }
        ],
        "clients": [
            {
                "client_id": "demo-web", "client_name": "Demo web app", "client_secret": web_secret,
                "redirect_uris": ["http://localhost:3000/callback"], "post_logout_redirect_uris": ["http://localhost:3000/"]
            },
            {
                "client_id": "demo-spa", "client_name": "Demo single-page app", "token_endpoint_auth_method": "none",
                "redirect_uris": ["http://localhost:5173/callback"], "post_logout_redirect_uris": ["http://localhost:5173/"],
                "allowed_cors_origins": ["http://localhost:5173"]
            },
            {
                "client_id": "dev-app", "client_name": "Test app", "client_secret": app_secret, "require_pkce": true,
                "redirect_uris": [format!("{}/dev/app/callback", config.issuer)],
                "post_logout_redirect_uris": [format!("{}/dev/app/signed-out", config.issuer)],
                "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true
            }
        ]
    });
    Seed::parse(&text.to_string(), Format::Json, config)?.apply(store, config, now)?;
    Ok(DevApp {
        client_id: "dev-app".to_owned(),
        client_secret: app_secret,
        demo_secret: web_secret,
    })
}
