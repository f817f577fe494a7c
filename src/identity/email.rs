//! E-mail addresses. RFC 5321 §4.1.2, §4.5.3.1; RFC 6531; UTS 46.
//!
//! An address has two forms: the one that mail goes to, as its owner wrote it, and the key under which it is unique,
//! looked up and throttled. Mail always goes to the *stored* form, never to what somebody typed at the login page: two
//! addresses with one key may be two mailboxes.

use std::borrow::Cow;
use std::str::FromStr;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization as _;

const MAX_LOCAL_BYTES: usize = 64;
const MAX_BYTES: usize = 254;
/// No valid address can come from a longer text, since normalising shrinks it to a third at most.
const MAX_LOGIN_CHARS: usize = 1024;

/// An address that mail can be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    display: String,
    key: String,
}

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmailProblem {
    #[error("an e-mail address has one @ with a name before it and a domain after it")]
    Shape,
    #[error("the e-mail address is too long")]
    TooLong,
    #[error("the e-mail address has a character that is not allowed before the @")]
    Local,
    #[error("the e-mail address has a domain that cannot exist")]
    Domain,
}

impl Email {
    /// As its owner wrote it: for showing and for sending.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// For comparing and looking up; equal to [`canonical_login`] of every spelling of this address.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The part before the @, in the key's form.
    pub fn local(&self) -> &str {
        self.key.rsplit_once('@').map_or("", |(local, _)| local)
    }

    /// The domain in ASCII and lower case.
    pub fn domain(&self) -> &str {
        self.key.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl FromStr for Email {
    type Err = EmailProblem;

    fn from_str(typed: &str) -> Result<Self, EmailProblem> {
        let typed = trimmed(typed);
        // Before any work: nobody's address needs four times the limit, in whatever Unicode form.
        if typed.len() > 4 * MAX_BYTES {
            return Err(EmailProblem::TooLong);
        }
        let display: String = typed.nfc().collect();
        let compatible: String = typed.nfkc().collect();
        // Both forms are checked: mail goes to one and uniqueness rests on the other, and only the second shows that a
        // fullwidth ＠ or an unusual space is hidden in the first.
        check_local(local_of(&display)?)?;
        check_local(local_of(&compatible)?)?;
        let (_, domain) = compatible.split_once('@').ok_or(EmailProblem::Shape)?;
        ascii_domain(domain).ok_or(EmailProblem::Domain)?;

        let key = canonical_login(typed);
        if display.len() > MAX_BYTES || key.len() > MAX_BYTES {
            return Err(EmailProblem::TooLong);
        }
        check_local(local_of(&key)?)?;
        Ok(Self { display, key })
    }
}

/// The one key for whatever was typed as a login: lookup and throttling both use it, so that no variant in case,
/// surrounding spaces, Unicode form, domain spelling or trailing dot meets a fresh counter. Never fails.
pub fn canonical_login(typed: &str) -> String {
    let compatible: String = trimmed(typed)
        .chars()
        .take(MAX_LOGIN_CHARS)
        .nfkc()
        .collect();
    let compatible = trimmed(&compatible);
    let Some((local, domain)) = compatible.rsplit_once('@') else {
        return fold(compatible);
    };
    // UTS 46 folds the domain by its own table, in which ß is a letter and not ss.
    let domain = ascii_domain(domain)
        .unwrap_or_else(|| fold(domain.trim_end_matches(|c| c == '.' || is_margin(c))));
    format!("{}@{domain}", fold(local))
}

/// Spaces around an address, and what copying brings along unseen.
fn trimmed(typed: &str) -> &str {
    typed.trim_matches(is_margin)
}

fn is_margin(c: char) -> bool {
    c.is_whitespace() || c.is_control() || is_invisible(c)
}

fn local_of(address: &str) -> Result<&str, EmailProblem> {
    match address.split_once('@') {
        Some((local, domain))
            if !local.is_empty() && !domain.is_empty() && !domain.contains('@') =>
        {
            Ok(local)
        }
        _ => Err(EmailProblem::Shape),
    }
}

/// RFC 5321's dot-string, with RFC 6531's wider letters. Quoted names are refused: nobody has one, and every place
/// that prints an address would have to quote it again.
fn check_local(local: &str) -> Result<(), EmailProblem> {
    if local.len() > MAX_LOCAL_BYTES {
        return Err(EmailProblem::TooLong);
    }
    let well_formed = local
        .split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atom_character));
    if well_formed {
        Ok(())
    } else {
        Err(EmailProblem::Local)
    }
}

fn is_atom_character(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    }
    !is_margin(c)
}

/// Characters that take no room or turn the direction of writing: two addresses would look the same.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// UTS 46, non-transitional (`faß.de` is not `fass.de`); None when DNS could not hold the name.
fn ascii_domain(domain: &str) -> Option<String> {
    let ascii: Cow<'_, str> = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::VerifyAllowRootDot,
        )
        .ok()?;
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Unicode's compatibility case folding, done twice as its definition asks: normalising may bring up new capitals.
fn fold(text: &str) -> String {
    let once: String = text.nfkc().flat_map(fold_char).collect();
    let twice: String = once.nfkc().flat_map(fold_char).collect();
    twice.nfkc().collect()
}

fn fold_char(c: char) -> impl Iterator<Item = char> {
    // Up and down again joins what has several small forms (σ and ς, ß and ss), whatever stands around it. The dotless ı
    // stays apart from i, as in Unicode's own table; ẞ and friends follow from the two mappings. Control characters can't
    // be part of any stored key, and PostgreSQL refuses NUL in a parameter.
    let c = if c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    };
    let upper: Vec<char> = if c == 'ı' {
        vec![c]
    } else {
        c.to_uppercase().collect()
    };
    upper.into_iter().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn variants_of_one_login_meet_one_key() {
        for (key, variants) in [
            (
                "alice@example.test",
                &[
                    "alice@example.test",
                    "Alice@Example.TEST",
                    "  alice@example.test\t\r\n",
                    "\u{a0}alice@example.test\u{3000}",
                    "\u{feff}alice@example.test\u{200b}",
                    "alice@example.test.",
                    "alice@example。test",
                    "alice@example.test。",
                    "alice@example\u{ff0e}test",
                    "ａｌｉｃｅ@example.test",
                    "alice＠example.test",
                    "alice@ｅｘａｍｐｌｅ.test",
                    "ALICE@EXAM\u{ad}PLE.TEST",
                ][..],
            ),
            (
                "zoë@xn--bcher-kva.example",
                &[
                    "zoë@bücher.example",
                    "zoe\u{308}@bu\u{308}cher.example",
                    "ZOË@BÜCHER.EXAMPLE",
                    "zoë@xn--bcher-kva.example",
                    "ZOË@XN--BCHER-KVA.example.",
                ][..],
            ),
            (
                "strasse@example.test",
                &[
                    "straße@example.test",
                    "STRASSE@example.test",
                    "STRAẞE@example.test",
                ][..],
            ),
            (
                "οδυσσευσ@example.test",
                &["ΟΔΥΣΣΕΥΣ@example.test", "οδυσσευς@example.test"][..],
            ),
            ("first+tag@example.test", &["First+Tag@example.test"][..]),
            // No address, but a login that somebody typed all the same.
            ("alice", &["Alice", " ALICE ", "ａｌｉｃｅ"][..]),
            ("", &["", " ", "\u{200b}"][..]),
            (
                "alice@not a domain",
                &["Alice@Not a Domain.", "alice@NOT A DOMAIN"][..],
            ),
        ] {
            for variant in variants {
                assert_eq!(canonical_login(variant), key, "{variant:?}");
            }
        }
    }

    #[test]
    fn different_addresses_keep_different_keys() {
        for (one, other) in [
            ("alice@example.test", "alice+x@example.test"),
            ("al.ice@example.test", "alice@example.test"),
            ("alıce@example.test", "alice@example.test"),
            ("alice@faß.example", "alice@fass.example"),
            ("alice@example.test", "alice@example.test.evil.test"),
            ("аlice@example.test", "alice@example.test"), // the first letter is Cyrillic
            ("ali\0ce@example.test", "alice@example.test"),
        ] {
            assert_ne!(canonical_login(one), canonical_login(other), "{one:?}");
        }
    }

    #[test]
    fn an_address_keeps_its_spelling_and_has_the_key_of_its_login() {
        let email: Email = " Zoe\u{308}@Bücher.Example ".parse().unwrap();
        assert_eq!(email.display(), "Zoë@Bücher.Example");
        assert_eq!(email.key(), "zoë@xn--bcher-kva.example");
        assert_eq!(
            (email.local(), email.domain()),
            ("zoë", "xn--bcher-kva.example")
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (typed, problem) in [
            ("", EmailProblem::Shape),
            ("alice", EmailProblem::Shape),
            ("@example.test", EmailProblem::Shape),
            ("alice@", EmailProblem::Shape),
            ("alice@evil.test@example.test", EmailProblem::Shape),
            ("alice＠example.test", EmailProblem::Shape),
            ("alice@evil.test＠example.test", EmailProblem::Shape),
            ("al ice@example.test", EmailProblem::Local),
            ("al\u{a0}ice@example.test", EmailProblem::Local),
            ("al\u{200b}ice@example.test", EmailProblem::Local),
            ("al\u{202e}ice@example.test", EmailProblem::Local),
            ("al\0ice@example.test", EmailProblem::Local),
            ("alice\r\nBcc: bob@example.test", EmailProblem::Local),
            ("\"alice\"@example.test", EmailProblem::Local),
            ("Alice <alice@example.test", EmailProblem::Local),
            ("a,b@example.test", EmailProblem::Local),
            (".alice@example.test", EmailProblem::Local),
            ("al..ice@example.test", EmailProblem::Local),
            ("alice.@example.test", EmailProblem::Local),
            ("alice@exam ple.test", EmailProblem::Domain),
            ("alice@example..test", EmailProblem::Domain),
            ("alice@.", EmailProblem::Domain),
            ("alice@-example.test", EmailProblem::Domain),
            ("alice@[127.0.0.1]", EmailProblem::Domain),
            ("alice@example.test>", EmailProblem::Domain),
            ("alice@xn--a.test", EmailProblem::Domain),
        ] {
            assert_eq!(typed.parse::<Email>(), Err(problem), "{typed:?}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_mail_protocol() {
        let local = |n: usize| format!("{}@example.test", "a".repeat(n));
        assert!(local(64).parse::<Email>().is_ok());
        assert_eq!(local(65).parse::<Email>(), Err(EmailProblem::TooLong));
        let label = "d".repeat(61);
        let whole = |n: usize| format!("{}@{label}.{label}.{label}.test", "a".repeat(n));
        assert_eq!(whole(63).len(), 254);
        assert!(whole(63).parse::<Email>().is_ok());
        assert_eq!(whole(64).parse::<Email>(), Err(EmailProblem::TooLong));
        assert_eq!(
            "a".repeat(100_000).parse::<Email>(),
            Err(EmailProblem::TooLong)
        );
    }

    #[test]
    fn an_endless_login_has_a_short_key_that_no_account_has() {
        let key = canonical_login(&format!("{}@example.test", "a".repeat(1_000_000)));
        assert!(key.len() > MAX_BYTES && key.len() < 20 * MAX_LOGIN_CHARS);
    }

    #[test]
    fn normalising_that_brings_up_a_space_leaves_one_key_all_the_same() {
        for typed in [
            "\u{b4}alice@example.test",
            "alice@b \u{b4}c .",
            "x@b .",
            "x@. .",
            "\u{b4}",
            "@\u{fe52}@",
        ] {
            let key = canonical_login(typed);
            assert_eq!(canonical_login(&key), key, "{typed:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_its_own_key(typed in "\\PC{0,40}") {
            let key = canonical_login(&typed);
            prop_assert_eq!(canonical_login(&key), key);
        }

        #[test]
        fn an_address_is_found_by_what_its_owner_wrote(typed in "\\PC{1,20}@\\PC{1,20}") {
            if let Ok(email) = typed.parse::<Email>() {
                prop_assert_eq!(email.key(), canonical_login(email.display()));
            }
        }
    }
}
