//! The secrets of apps as a file carries them from one installation to another: never the secret itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{self, Entry};
use super::mistakes::{Mistake, Place};
use crate::protocol::client_secret::{ClientSecret, MOST_SECRETS, PREFIX_LENGTH};
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// One secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hash {
    /// In base64url.
    sha256: String,
    /// How the secret begins, by which an operator recognises it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    prefix: String,
    /// When it ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// Reads the member `client_secret_hashes`, and says everything that is wrong with it.
pub(super) fn read(
    client: &Place,
    hashes: &[Value],
    mistakes: &mut Vec<Mistake>,
) -> Vec<ClientSecret> {
    let mut secrets: Vec<ClientSecret> = Vec::new();
    if hashes.len() > MOST_SECRETS {
        let problem = format!("has more than {MOST_SECRETS} secrets");
        mistakes.push(client.mistake("client_secret_hashes", problem));
        return secrets;
    }
    for (index, value) in hashes.iter().enumerate() {
        let place = Place {
            path: client.field(&format!("client_secret_hashes[{index}]")),
            entry: client.entry.clone(),
        };
        let Some(secret) = read_one(place.clone(), value, mistakes) else {
            continue;
        };
        if secrets.iter().any(|other| other.hash == secret.hash) {
            mistakes.push(place.mistake("sha256", "is there twice"));
        } else {
            secrets.push(secret);
        }
    }
    secrets
}

fn read_one(place: Place, value: &Value, mistakes: &mut Vec<Mistake>) -> Option<ClientSecret> {
    let Entry {
        place,
        value: secret,
        refused,
    } = fields::entry::<Hash>(place, value, &fields::SECRET_HASH, mistakes)?;
    let before = mistakes.len();
    let prefix = secret.prefix;
    if prefix.chars().count() > PREFIX_LENGTH || !prefix.chars().all(|c| c.is_ascii_graphic()) {
        let problem = format!("is at most {PREFIX_LENGTH} characters of printable ASCII");
        mistakes.push(place.mistake("prefix", problem));
    }
    let expires_at = secret.expires_at.as_deref();
    let expires_at = expires_at.map(DateTime::parse_from_rfc3339).transpose();
    if expires_at.is_err() {
        let problem = "is a time such as 2030-01-31T12:00:00Z";
        mistakes.push(place.mistake("expires_at", problem));
    }
    let bytes = URL_SAFE_NO_PAD.decode(&secret.sha256).ok();
    let hash = bytes.and_then(|bytes| TokenHash::from_slice(&bytes));
    if hash.is_none() && !refused.contains("sha256") {
        let problem = "is 32 bytes in base64url, which are 43 characters";
        mistakes.push(place.mistake("sha256", problem));
    }
    if mistakes.len() > before {
        return None;
    }
    Some(ClientSecret {
        // Each row gets its own when it is written.
        id: String::new(),
        hash: hash?,
        prefix,
        from_file: true,
        created_at: Timestamp::from_seconds(0),
        last_used_at: None,
        expires_at: expires_at
            .ok()?
            .map(|time| Timestamp::from_seconds(time.timestamp())),
    })
}

/// A secret as a file has it.
pub(super) fn write(secret: &ClientSecret) -> Value {
    let entry = Hash {
        sha256: URL_SAFE_NO_PAD.encode(secret.hash.as_bytes()),
        prefix: secret.prefix.clone(),
        expires_at: secret.expires_at.map(Timestamp::to_rfc3339),
    };
    serde_json::to_value(entry).expect("texts have a JSON form")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_read_as_the_same() {
        let secret = ClientSecret {
            id: String::new(),
            from_file: true,
            created_at: Timestamp::from_seconds(0),
            expires_at: Some(Timestamp::from_seconds(1_900_000_000)),
            ..ClientSecret::new(
                "",
                "a-secret-of-more-than-thirty-two-characters",
                Timestamp::from_seconds(0),
            )
        };
        let mut mistakes = Vec::new();
        let read = read(&Place::default(), &[write(&secret)], &mut mistakes);
        assert_eq!((read, mistakes), (vec![secret], Vec::new()));
    }

    #[test]
    fn each_mistake_names_its_place() {
        let good = "A".repeat(43);
        let mut mistakes = Vec::new();
        let hashes = [
            json!({ "sha256": "AA" }),
            json!({ "sha256": good, "expires_at": "tomorrow" }),
            json!({ "sha256": good, "prefix": "1234567" }),
            json!({ "sha256": good, "secret": "x" }),
            json!([good]),
            json!({ "sha256": good }),
            json!({ "sha256": good }),
            json!({ "sha256": 5, "expires_at": true }),
        ];
        read(&Place::at("clients[0]"), &hashes, &mut mistakes);
        let paths = mistakes.iter().map(|mistake| mistake.path.as_str());
        let expected = [
            "[0].sha256",
            "[1].expires_at",
            "[2].prefix",
            "[3].secret",
            "[4]",
            "[5].sha256",
            "[6].sha256",
            "[7].sha256",
            "[7].expires_at",
        ];
        let expected = expected.map(|place| format!("clients[0].client_secret_hashes{place}"));
        assert_eq!(paths.collect::<Vec<_>>(), expected);
    }
}
