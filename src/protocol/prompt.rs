//! `prompt`: which pages the app wants shown. OpenID Connect Core §3.1.2.1.

use super::error::{OAuthError, invalid_request};

/// The values that are accepted.
pub const SUPPORTED: &[&str] = &["none", "login", "consent", "select_account"];

/// What the app asks to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// Whatever the policy needs.
    #[default]
    Default,
    /// No page at all: an answer or an error.
    None,
    /// At least these.
    Show {
        login: bool,
        consent: bool,
        select_account: bool,
    },
}

impl Prompt {
    /// Reads the space-separated list; `none` stands alone.
    pub fn parse(value: Option<&str>) -> Result<Self, OAuthError> {
        let Some(value) = value else {
            return Ok(Self::Default);
        };
        let (mut none, mut login, mut consent, mut select_account) = (false, false, false, false);
        for word in value.split(' ').filter(|word| !word.is_empty()) {
            match word {
                "none" => none = true,
                "login" => login = true,
                "consent" => consent = true,
                "select_account" => select_account = true,
                _ => return Err(invalid_request("prompt has a value that is not supported")),
            }
        }
        match (none, login || consent || select_account) {
            (true, true) => Err(invalid_request("prompt=none stands alone")),
            (true, false) => Ok(Self::None),
            (false, true) => Ok(Self::Show {
                login,
                consent,
                select_account,
            }),
            (false, false) => Ok(Self::Default),
        }
    }

    /// May no page be shown?
    pub fn is_none(self) -> bool {
        self == Self::None
    }

    /// Must the person prove themselves again?
    pub fn wants_login(self) -> bool {
        matches!(self, Self::Show { login: true, .. })
    }

    /// Must the person be asked again what to share?
    pub fn wants_consent(self) -> bool {
        matches!(self, Self::Show { consent: true, .. })
    }

    /// Must the person choose among accounts?
    pub fn wants_account_selection(self) -> bool {
        matches!(
            self,
            Self::Show {
                select_account: true,
                ..
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_with_anything_else_is_an_invalid_request() {
        assert!(Prompt::parse(Some("none login")).is_err());
        assert!(Prompt::parse(Some("consent none")).is_err());
        assert_eq!(Prompt::parse(Some("none")), Ok(Prompt::None));
    }

    #[test]
    fn values_combine() {
        let prompt = Prompt::parse(Some("login consent")).expect("valid");
        assert!(
            prompt.wants_login() && prompt.wants_consent() && !prompt.wants_account_selection()
        );
        assert!(Prompt::parse(Some("create")).is_err());
    }
}
