//! Passwords: what may be one, and how it is kept. NIST SP 800-63B-4 §3.1.1; RFC 9106 (Argon2); PHC strings.
//!
//! Hashing takes a core and megabytes for tens of milliseconds: call [`hash`] and [`verify`] through
//! `crate::hashing` only. [`Policy::judge`] takes a millisecond or two.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use unicode_normalization::UnicodeNormalization as _;

use crate::protocol::seal::constant_time_eq;
use crate::random;

const MAX_CHARS: usize = 256;
/// Four bytes a character, and three characters where NFKC makes one: longer text can't be a valid password.
const MAX_TYPED_BYTES: usize = MAX_CHARS * 4 * 3;

const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_ITERATIONS: u32 = 16;
const MAX_PARALLELISM: u32 = 16;
const HASH_BYTES: usize = 32;
const MIN_STORED_HASH_BYTES: usize = 16;
/// Of one KiB each. One dear hash from elsewhere must not hold its memory for ever.
const MOST_BLOCKS_KEPT: usize = 64 * 1024;

/// The product's own name is the first thing tried.
const PRODUCT: &str = "latchkey";
const MIN_CONTEXT_WORD_CHARS: usize = 3;
const MAX_CONTEXT_WORDS: usize = 64;

/// One word a line, lower case, eight characters and more; `#` begins a comment that names the source.
static COMMON: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    include_str!("common_passwords.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect()
});

/// A password as somebody typed it, in Unicode's NFKC form, whole.
#[derive(Clone)]
pub struct Password(String);

/// Why a password is not taken; a page has a sentence for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordProblem {
    #[error("the password has more than {MAX_CHARS} characters")]
    TooLong,
    #[error("the password contains a NUL character")]
    Nul,
    #[error("the password has less than {minimum} characters")]
    TooShort { minimum: usize },
    #[error("the password is one of the most used")]
    TooCommon,
    #[error("the password is easy to guess")]
    Guessable,
}

/// What a new password must be; an existing one is never judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub minimum_length: usize,
    /// zxcvbn's scale, 0 to 4.
    pub minimum_score: u8,
}

/// The price of one hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSettings {
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
}

/// What a stored hash says about a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    pub matches: bool,
    /// It matches, and was made with less than today's settings.
    pub needs_rehash: bool,
}

/// A fault of ours, never the person's: it must not count as a wrong password.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error(
        "the hash settings are out of range: at most {MAX_MEMORY_KIB} KiB and {MAX_ITERATIONS} iterations"
    )]
    Settings,
    #[error("the stored password hash is not usable: {0}")]
    Stored(&'static str),
    #[error("argon2 failed: {0}")]
    Argon2(argon2::Error),
}

impl Password {
    pub fn parse(typed: &str) -> Result<Self, PasswordProblem> {
        // A megabyte must not even be normalised.
        if typed.len() > MAX_TYPED_BYTES {
            return Err(PasswordProblem::TooLong);
        }
        if typed.contains('\0') {
            return Err(PasswordProblem::Nul);
        }
        // Keyboards differ in how they compose é; after NFKC they agree. Nothing is trimmed, folded or cut.
        let normal: String = typed.nfkc().collect();
        if normal.chars().count() > MAX_CHARS {
            return Err(PasswordProblem::TooLong);
        }
        Ok(Self(normal))
    }
}

impl Policy {
    /// May this become somebody's password? `context` is what a stranger knows about them: addresses, name.
    pub fn judge(&self, password: &Password, context: &[&str]) -> Result<(), PasswordProblem> {
        if password.0.chars().count() < self.minimum_length {
            return Err(PasswordProblem::TooShort {
                minimum: self.minimum_length,
            });
        }
        if COMMON.contains(password.0.to_lowercase().as_str()) {
            return Err(PasswordProblem::TooCommon);
        }
        let words = context_words(context);
        if score(&password.0, &words) < self.minimum_score {
            return Err(PasswordProblem::Guessable);
        }
        // zxcvbn calls three known words in a row strong, even when all three are the person's name. So what is left
        // without those words has to be strong alone.
        let own = without(&password.0, &words);
        if own.is_some_and(|own| score(&own, &[]) < self.minimum_score) {
            return Err(PasswordProblem::Guessable);
        }
        Ok(())
    }
}

impl HashSettings {
    pub fn new(memory_kib: u32, iterations: u32, parallelism: u32) -> Result<Self, HashError> {
        let fits = (1..=MAX_PARALLELISM).contains(&parallelism)
            && (1..=MAX_ITERATIONS).contains(&iterations)
            && (8 * parallelism..=MAX_MEMORY_KIB).contains(&memory_kib);
        if !fits {
            return Err(HashError::Settings);
        }
        Ok(Self {
            memory_kib,
            iterations,
            parallelism,
        })
    }

    fn params(&self, output_bytes: usize) -> Result<Params, HashError> {
        Params::new(
            self.memory_kib,
            self.iterations,
            self.parallelism,
            Some(output_bytes),
        )
        .map_err(HashError::Argon2)
    }
}

impl Default for HashSettings {
    /// OWASP's first choice for argon2id.
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1024,
            iterations: 2,
            parallelism: 1,
        }
    }
}

/// argon2id as a PHC string.
pub fn hash(
    password: &Password,
    salt: [u8; 16],
    settings: &HashSettings,
) -> Result<String, HashError> {
    let params = settings.params(HASH_BYTES)?;
    let mut output = [0; HASH_BYTES];
    argon2id(&params, password, &salt, &mut output)?;
    phc(&params, &salt, &output)
}

/// Compares with a stored PHC string; an error means that the stored string is of no use or memory ran out.
pub fn verify(
    password: &Password,
    stored: &str,
    settings: &HashSettings,
) -> Result<Verification, HashError> {
    let (made_with, salt, expected) = parse_stored(stored)?;
    let mut output = vec![0; expected.len()];
    let params = made_with.params(expected.len())?;
    argon2id(&params, password, salt.as_ref(), &mut output)?;
    let matches = constant_time_eq(&output, expected.as_bytes());
    // Lanes say how the work is cut, not how much it is.
    let outdated = made_with.memory_kib < settings.memory_kib
        || made_with.iterations < settings.iterations
        || expected.len() < HASH_BYTES;
    Ok(Verification {
        matches,
        needs_rehash: matches && outdated,
    })
}

/// Whether a hash from elsewhere can be used: argon2id, and not so dear that one login would stop the server.
pub fn check_stored(stored: &str) -> Result<(), HashError> {
    parse_stored(stored).map(|_usable| ())
}

/// A hash that no password has, for logins without an account: verifying against it costs what any other does.
///
/// It is drawn, not computed, so making one costs nothing.
pub fn dummy_hash(settings: &HashSettings) -> Result<String, HashError> {
    phc(
        &settings.params(HASH_BYTES)?,
        &random::bytes::<16>(),
        &random::bytes::<HASH_BYTES>(),
    )
}

fn score(text: &str, words: &[String]) -> u8 {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    zxcvbn::zxcvbn(text, &words).score().into()
}

/// The password without these words, or None when it has none of them.
fn without(password: &str, words: &[String]) -> Option<String> {
    let whole = password.to_lowercase();
    let rest = words
        .iter()
        // Three letters are in many honest words by chance.
        .filter(|word| word.chars().count() > MIN_CONTEXT_WORD_CHARS)
        .fold(whole.clone(), |rest, word| rest.replace(word, ""));
    (rest != whole).then_some(rest)
}

/// Everything that a guesser would try first: the texts, and the words that they consist of.
fn context_words(context: &[&str]) -> Vec<String> {
    let parts = context
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()).chain([*text]));
    let mut words = vec![PRODUCT.to_owned()];
    for part in parts {
        let word: String = part
            .nfkc()
            .take(MAX_CHARS)
            .collect::<String>()
            .to_lowercase();
        if word.chars().count() >= MIN_CONTEXT_WORD_CHARS && !words.contains(&word) {
            words.push(word);
        }
        // A name of a thousand words must not become a thousand dictionaries.
        if words.len() == MAX_CONTEXT_WORDS {
            break;
        }
    }
    words
}

thread_local! {
    /// What a hash works in, kept by the thread for the next one: the system would clear fresh memory page by page, a
    /// fifth of the whole work.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

fn argon2id(
    params: &Params,
    password: &Password,
    salt: &[u8],
    output: &mut [u8],
) -> Result<(), HashError> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let needed = params.block_count();
    BLOCKS.with_borrow_mut(|blocks| {
        if blocks.len() < needed {
            blocks
                .try_reserve_exact(needed - blocks.len())
                .map_err(|_cause| HashError::Argon2(argon2::Error::OutOfMemory))?;
            blocks.resize(needed, Block::new());
        }
        let memory = blocks.get_mut(..needed).unwrap_or_default();
        let hashed =
            argon2.hash_password_into_with_memory(password.0.as_bytes(), salt, output, memory);
        if needed > MOST_BLOCKS_KEPT {
            *blocks = Vec::new();
        }
        hashed.map_err(HashError::Argon2)
    })
}

fn phc(params: &Params, salt: &[u8], output: &[u8]) -> Result<String, HashError> {
    let params = ParamsString::try_from(params).map_err(|_cause| HashError::Settings)?;
    Ok(PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params,
        salt: Some(Salt::new(salt).map_err(|_cause| HashError::Settings)?),
        hash: Some(Output::new(output).map_err(|_cause| HashError::Settings)?),
    }
    .to_string())
}

/// A stored string is not trusted either: an import may have brought it, and m=4 GiB would be a denial of service.
fn parse_stored(stored: &str) -> Result<(HashSettings, Salt, Output), HashError> {
    // The cause is left out: it could quote the hash.
    let parsed =
        PasswordHash::new(stored).map_err(|_cause| HashError::Stored("not a PHC string"))?;
    if parsed.algorithm != argon2::ARGON2ID_IDENT || parsed.version != Some(Version::V0x13.into()) {
        return Err(HashError::Stored("not argon2id version 19"));
    }
    let params =
        Params::try_from(&parsed).map_err(|_cause| HashError::Stored("parameters out of range"))?;
    if !params.keyid().is_empty() || !params.data().is_empty() {
        return Err(HashError::Stored("parameters that are not ours"));
    }
    let settings = HashSettings::new(params.m_cost(), params.t_cost(), params.p_cost())
        .map_err(|_cause| HashError::Stored("costs out of range"))?;
    let salt = parsed.salt.ok_or(HashError::Stored("no salt"))?;
    let output = parsed.hash.ok_or(HashError::Stored("no hash"))?;
    if output.len() < MIN_STORED_HASH_BYTES {
        return Err(HashError::Stored("a hash that is too short"));
    }
    Ok((settings, salt, output))
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        minimum_length: 12,
        minimum_score: 3,
    };
    const CHEAP: HashSettings = HashSettings {
        memory_kib: 64,
        iterations: 2,
        parallelism: 1,
    };

    #[test]
    fn a_password_of_256_characters_is_taken_whole() {
        let longest = format!("{}x", "a".repeat(255));
        let stored = hash(&parse(&longest), [1; 16], &CHEAP).unwrap();
        assert!(matches(&longest, &stored));
        assert!(!matches(&format!("{}y", "a".repeat(255)), &stored));
        assert!(!matches(&"a".repeat(255), &stored));
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        assert!(Password::parse(&"🦀".repeat(256)).is_ok());
        assert!(Password::parse(&"e\u{308}".repeat(256)).is_ok());
    }

    #[test]
    fn a_257th_character_is_refused_and_never_cut_off() {
        for typed in ["a".repeat(257), "🦀".repeat(257), "a".repeat(1_000_000)] {
            assert_eq!(
                Password::parse(&typed).unwrap_err(),
                PasswordProblem::TooLong
            );
        }
    }

    #[test]
    fn nul_is_refused() {
        assert_eq!(
            Password::parse("correct\0horse").unwrap_err(),
            PasswordProblem::Nul
        );
    }

    #[test]
    fn one_password_in_two_unicode_forms_is_the_same_password() {
        for (set, typed) in [
            ("caf\u{e9} brewery", "cafe\u{301} brewery"),
            ("\u{fb01}ne weather", "fine weather"),
            ("ｆｕｌｌｗｉｄｔｈ", "fullwidth"),
        ] {
            let stored = hash(&parse(set), [1; 16], &CHEAP).unwrap();
            assert!(matches(typed, &stored), "{typed}");
        }
    }

    #[test]
    fn spaces_and_case_count() {
        let stored = hash(&parse(" Correct Horse "), [1; 16], &CHEAP).unwrap();
        assert!(matches(" Correct Horse ", &stored));
        for other in ["Correct Horse", " correct horse ", " Correct  Horse ", ""] {
            assert!(!matches(other, &stored), "{other:?}");
        }
    }

    #[test]
    fn good_passwords_are_taken() {
        for good in [
            "correct-horse-battery",
            "kettle umbrella fourteen",
            "tZ9!vq0-Lm2x",
            "蛍の光窓の雪書読む月日重ねつつ",
        ] {
            assert_eq!(
                POLICY.judge(&parse(good), &["alice@example.test", "Alice Example"]),
                Ok(()),
                "{good}"
            );
        }
    }

    #[test]
    fn a_short_password_is_told_the_minimum() {
        let problem = PasswordProblem::TooShort { minimum: 12 };
        assert_eq!(POLICY.judge(&parse("tZ9!vq0-Lm2"), &[]), Err(problem));
        assert_eq!(POLICY.judge(&parse(""), &[]), Err(problem));
    }

    #[test]
    fn common_passwords_are_refused_in_any_case() {
        let policy = Policy {
            minimum_length: 8,
            minimum_score: 0,
        };
        for common in [
            "password",
            "PassWord",
            "iloveyou",
            "1q2w3e4r5t",
            "qwertyuiop",
            "123456789",
        ] {
            assert_eq!(
                policy.judge(&parse(common), &[]),
                Err(PasswordProblem::TooCommon),
                "{common}"
            );
        }
    }

    #[test]
    fn what_a_guesser_tries_is_refused() {
        for weak in [
            "aaaaaaaaaaaaaaaa",
            "abcdefghijklmnop",
            "password1234!",
            "P@ssw0rd2026",
            "qwertyuiop123",
        ] {
            assert!(POLICY.judge(&parse(weak), &[]).is_err(), "{weak}");
        }
    }

    #[test]
    fn the_persons_own_words_and_the_products_name_do_not_count() {
        let context = [
            "margarethe.oldenburg@fjordwerk.test",
            "Margarethe Oldenburg",
        ];
        for weak in [
            "Margarethe2026",
            "oldenburg-1987",
            "fjordwerk1234",
            "margarethe.oldenburg",
            "latchkey2026!",
            "margaretheoldenburg",
        ] {
            assert_eq!(
                POLICY.judge(&parse(weak), &context),
                Err(PasswordProblem::Guessable),
                "{weak}"
            );
        }
        // For a stranger it is as good as any.
        assert_eq!(POLICY.judge(&parse("margarethe.oldenburg"), &[]), Ok(()));
    }

    #[test]
    fn a_name_of_a_thousand_words_is_no_burden() {
        let name: String = (0..1000).map(|n| format!("word{n} ")).collect();
        assert_eq!(context_words(&[&name]).len(), MAX_CONTEXT_WORDS);
    }

    #[test]
    fn the_list_of_common_passwords_is_large_and_in_the_form_it_is_searched_in() {
        assert!(COMMON.len() > 10_000);
        for word in COMMON.iter() {
            assert!(
                word.len() >= 8 && *word == word.to_lowercase() && *word == word.trim(),
                "{word}"
            );
        }
    }

    #[test]
    fn a_hash_is_an_argon2id_string_with_its_settings_and_salt() {
        let stored = hash(&parse("correct-horse-battery"), [1; 16], &CHEAP).unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=64,t=2,p=1$AQEBAQEBAQEBAQEBAQEBAQ$"),
            "{stored}"
        );
        assert_ne!(
            stored,
            hash(&parse("correct-horse-battery"), [2; 16], &CHEAP).unwrap()
        );
    }

    #[test]
    fn a_hash_of_the_reference_implementation_is_understood() {
        // From the test vectors of the reference implementation: m=65536, t=2, p=1.
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(matches("password", stored));
        assert!(!matches("Password", stored));
    }

    #[test]
    fn what_an_earlier_hash_left_in_memory_changes_nothing() {
        let smaller = hash(&parse("correct-horse-battery"), [1; 16], &CHEAP).unwrap();
        let larger = HashSettings::new(128, 1, 2).unwrap();
        let larger = hash(&parse("staple-battery-horse"), [2; 16], &larger).unwrap();
        assert_eq!(
            smaller,
            hash(&parse("correct-horse-battery"), [1; 16], &CHEAP).unwrap()
        );
        let elsewhere = std::thread::spawn(move || matches("staple-battery-horse", &larger));
        assert!(elsewhere.join().unwrap());
    }

    #[test]
    fn a_right_password_is_hashed_again_when_the_settings_grew() {
        let stored = hash(&parse("correct-horse-battery"), [1; 16], &CHEAP).unwrap();
        let rehash = |typed: &str, memory, iterations| {
            let settings = HashSettings::new(memory, iterations, 1).unwrap();
            verify(&parse(typed), &stored, &settings)
                .unwrap()
                .needs_rehash
        };
        assert!(!rehash("correct-horse-battery", 64, 2));
        assert!(rehash("correct-horse-battery", 128, 2));
        assert!(rehash("correct-horse-battery", 64, 3));
        assert!(
            !rehash("correct-horse-battery", 32, 1),
            "a smaller setting never weakens a hash"
        );
        assert!(!rehash("wrong", 128, 3), "a wrong password changes nothing");
    }

    #[test]
    fn stored_hashes_that_would_cost_too_much_or_are_not_ours_are_faults() {
        let tail = "$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for head in [
            "$argon2id$v=19$m=4194304,t=2,p=1",
            "$argon2id$v=19$m=65536,t=4294967295,p=1",
            "$argon2id$v=19$m=65536,t=2,p=1000",
            "$argon2id$v=19$m=1,t=2,p=1",
            "$argon2id$v=19$m=65536,t=0,p=1",
            "$argon2id$v=16$m=65536,t=2,p=1",
            "$argon2id$m=65536,t=2,p=1",
            "$argon2d$v=19$m=65536,t=2,p=1",
            "$argon2i$v=19$m=65536,t=2,p=1",
            "$2b$12",
        ] {
            let verdict = verify(&parse("password"), &format!("{head}{tail}"), &CHEAP);
            assert!(matches!(verdict, Err(HashError::Stored(_))), "{head}");
        }
        for stored in [
            "",
            "password",
            "$argon2id$v=19$m=64,t=2,p=1",
            "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ",
        ] {
            let verdict = verify(&parse("password"), stored, &CHEAP);
            assert!(matches!(verdict, Err(HashError::Stored(_))), "{stored}");
        }
    }

    #[test]
    fn settings_outside_of_the_caps_cannot_be_made() {
        for (memory, iterations, parallelism) in [
            (7, 1, 1),
            (31, 1, 4),
            (1 << 19, 1, 1),
            (64, 0, 1),
            (64, 17, 1),
            (64, 1, 0),
            (4096, 1, 17),
        ] {
            assert!(HashSettings::new(memory, iterations, parallelism).is_err());
        }
        assert!(
            HashSettings::new(19 * 1024, 2, 1)
                .is_ok_and(|settings| settings == HashSettings::default())
        );
    }

    #[test]
    fn the_dummy_hash_costs_the_same_and_matches_nothing() {
        let dummy = dummy_hash(&CHEAP).unwrap();
        let real = hash(&parse("correct-horse-battery"), [1; 16], &CHEAP).unwrap();
        let (dummy_settings, dummy_salt, dummy_output) = parse_stored(&dummy).unwrap();
        let (real_settings, real_salt, real_output) = parse_stored(&real).unwrap();
        assert_eq!(dummy_settings, real_settings);
        assert_eq!(
            (dummy_salt.len(), dummy_output.len()),
            (real_salt.len(), real_output.len())
        );
        assert!(!matches("", &dummy) && !matches("correct-horse-battery", &dummy));
    }

    #[test]
    fn a_password_hides_itself() {
        assert_eq!(
            format!("{:?}", parse("correct-horse-battery")),
            "Password(..)"
        );
    }

    fn parse(typed: &str) -> Password {
        Password::parse(typed).unwrap()
    }

    fn matches(typed: &str, stored: &str) -> bool {
        verify(&parse(typed), stored, &CHEAP).unwrap().matches
    }
}
