//! The secrets of apps as a file carries them from one installation to another: never the secret itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::client_secret::{ClientSecret, MOST_SECRETS, PREFIX_LENGTH};
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// One secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// In base64url.
    sha256: String,
    /// How the secret begins, by which an operator recognises it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    prefix: String,
    /// When it ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// Reads the member `client_secret_hashes`, or lists everything that is wrong with it.
pub(super) fn read(hashes: &[Value]) -> Result<Vec<ClientSecret>, Vec<String>> {
    let mut problems = Vec::new();
    let mut secrets: Vec<ClientSecret> = Vec::new();
    if hashes.len() > MOST_SECRETS {
        problems.push(format!(
            "client_secret_hashes: has more than {MOST_SECRETS} secrets"
        ));
    }
    for (index, value) in hashes.iter().enumerate() {
        let place = format!("client_secret_hashes[{index}]");
        match read_one(value) {
            Ok(secret) if secrets.iter().any(|other| other.hash == secret.hash) => {
                problems.push(format!("{place}.sha256: is there twice"));
            }
            Ok(secret) => secrets.push(secret),
            Err(problem) => problems.push(format!("{place}{problem}")),
        }
    }
    if problems.is_empty() {
        Ok(secrets)
    } else {
        Err(problems)
    }
}

fn read_one(value: &Value) -> Result<ClientSecret, String> {
    // An object first: serde would also read a list as the members in their order.
    let members = value.as_object().ok_or(": is no object")?;
    let entry: Entry = serde_json::from_value(Value::Object(members.clone()))
        .map_err(|error| format!(": {error}"))?;
    let bytes = URL_SAFE_NO_PAD.decode(&entry.sha256).ok();
    let hash = bytes.and_then(|bytes| TokenHash::from_slice(&bytes));
    let prefix = entry.prefix;
    if prefix.chars().count() > PREFIX_LENGTH || !prefix.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            ".prefix: is at most {PREFIX_LENGTH} characters of printable ASCII"
        ));
    }
    let expires_at = match entry
        .expires_at
        .as_deref()
        .map(DateTime::parse_from_rfc3339)
    {
        None => None,
        Some(Ok(time)) => Some(Timestamp::from_seconds(time.timestamp())),
        Some(Err(_unreadable)) => {
            return Err(".expires_at: is a time such as 2030-01-31T12:00:00Z".to_owned());
        }
    };
    Ok(ClientSecret {
        // Each row gets its own when it is written.
        id: String::new(),
        hash: hash.ok_or(".sha256: is 32 bytes in base64url, which are 43 characters")?,
        prefix,
        from_file: true,
        created_at: Timestamp::from_seconds(0),
        last_used_at: None,
        expires_at,
    })
}

/// A secret as a file has it.
pub(super) fn write(secret: &ClientSecret) -> Value {
    let entry = Entry {
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
        assert_eq!(read(&[write(&secret)]), Ok(vec![secret]));
    }

    #[test]
    fn each_mistake_names_its_place() {
        let good = "A".repeat(43);
        let problems = read(&[
            json!({ "sha256": "AA" }),
            json!({ "sha256": good, "expires_at": "tomorrow" }),
            json!({ "sha256": good, "prefix": "1234567" }),
            json!({ "sha256": good, "secret": "x" }),
            json!([good]),
            json!({ "sha256": good }),
            json!({ "sha256": good }),
        ])
        .expect_err("six mistakes");
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(
            problems[0].starts_with("client_secret_hashes[0].sha256: "),
            "{problems:?}"
        );
        assert_eq!(
            problems[5],
            "client_secret_hashes[6].sha256: is there twice"
        );
    }
}
