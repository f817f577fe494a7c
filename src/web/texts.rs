//! The words of every page, from the message files, in the languages we ship.

use std::fmt;
use std::sync::LazyLock;

use chrono::{DateTime, Datelike};
use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource, FluentValue};
use unic_langid::LanguageIdentifier;

use crate::protocol::time::Timestamp;

/// A language that has a message file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    English,
    German,
}

impl Language {
    /// Every shipped language, in the order of the language links.
    pub(super) const ALL: [Self; 2] = [Self::English, Self::German];

    /// The BCP 47 tag, as in `lang` and in the cookie.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// The language's name in itself: somebody who can't read this page must still find it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::German => "Deutsch",
        }
    }

    const fn messages(self) -> &'static str {
        match self {
            Self::English => include_str!("../../templates/messages/en.ftl"),
            Self::German => include_str!("../../templates/messages/de.ftl"),
        }
    }

    /// By primary language alone: `de-AT` reads German better than English.
    fn matching(tag: &str) -> Option<Self> {
        let primary = tag.trim().split(['-', '_']).next()?;
        Self::ALL
            .into_iter()
            .find(|language| language.code().eq_ignore_ascii_case(primary))
    }
}

/// The first of these that we ship: the app's `ui_locales` (OpenID Connect Core §3.1.2.1), the person's earlier choice,
/// what the browser accepts, English. A value that makes no sense is skipped.
pub(super) fn negotiate(
    ui_locales: Option<&str>,
    cookie: Option<&str>,
    accept_language: Option<&str>,
) -> Language {
    ui_locales
        .and_then(|tags| tags.split_ascii_whitespace().find_map(Language::matching))
        .or_else(|| cookie.and_then(Language::matching))
        .or_else(|| accept_language.and_then(accepted))
        .unwrap_or(Language::English)
}

/// RFC 9110 §12.5.4; equal weights keep the order of the header.
fn accepted(header: &str) -> Option<Language> {
    let mut best: Option<(f32, Language)> = None;
    for item in header.split(',') {
        let (tag, parameters) = item.split_once(';').unwrap_or((item, "q=1"));
        let weight = parameters
            .trim()
            .strip_prefix("q=")
            .and_then(|q| q.trim().parse::<f32>().ok())
            .unwrap_or(0.0);
        let Some(language) = Language::matching(tag) else {
            continue;
        };
        if weight > best.map_or(0.0, |(highest, _)| highest) {
            best = Some((weight, language));
        }
    }
    best.map(|(_, language)| language)
}

/// One language's words, as the templates ask for them.
pub(super) struct Texts {
    language: Language,
    bundle: FluentBundle<FluentResource>,
}

/// A sentence around one part that the page sets apart, such as a name in `<strong><bdi>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) before: String,
    pub(super) after: String,
}

/// A time for a person to read and, beside it, for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) iso: String,
    pub(super) words: String,
}

static ALL: LazyLock<Vec<Texts>> =
    LazyLock::new(|| Language::ALL.into_iter().map(Texts::load).collect());

impl Texts {
    /// Built once for the process.
    pub(super) fn of(language: Language) -> &'static Self {
        ALL.iter()
            .find(|texts| texts.language == language)
            .expect("every language of Language::ALL was loaded")
    }

    /// The language these words are in.
    pub(super) const fn language(&self) -> Language {
        self.language
    }

    /// For the `lang` attribute.
    pub(super) const fn lang(&self) -> &'static str {
        self.language.code()
    }

    /// For the `dir` attribute.
    pub(super) const fn dir(&self) -> &'static str {
        match self.language {
            Language::English | Language::German => "ltr",
        }
    }

    /// A text without values.
    pub(super) fn get(&self, key: &str) -> String {
        self.format(key, None)
    }

    /// A text with one value.
    pub(super) fn with(&self, key: &str, name: &str, value: &str) -> String {
        self.format(
            key,
            Some(&FluentArgs::from_iter([(name, FluentValue::from(value))])),
        )
    }

    /// A text with a number, which also picks singular or plural.
    pub(super) fn count(&self, key: &str, name: &str, number: u64) -> String {
        self.format(
            key,
            Some(&FluentArgs::from_iter([(name, FluentValue::from(number))])),
        )
    }

    /// A text cut at its one value.
    pub(super) fn around(&self, key: &str, name: &str) -> Around {
        // Private use: no message and no name contains it.
        const CUT: char = '\u{e000}';
        let whole = self.with(key, name, CUT.encode_utf8(&mut [0; 4]));
        match whole.split_once(CUT) {
            Some((before, after)) => Around {
                before: before.to_owned(),
                after: after.to_owned(),
            },
            None => Around {
                before: whole,
                after: String::new(),
            },
        }
    }

    /// Date and time in UTC: a page without script can't know the reader's zone.
    pub(super) fn moment(&self, time: Timestamp) -> Moment {
        let Some(utc) = DateTime::from_timestamp(time.seconds(), 0) else {
            return Moment {
                iso: String::new(),
                words: time.seconds().to_string(),
            };
        };
        let mut values = FluentArgs::new();
        values.set("day", utc.day().to_string());
        values.set("month", utc.month());
        values.set("year", utc.year().to_string());
        values.set("time", utc.format("%H:%M").to_string());
        Moment {
            iso: utc.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            words: self.format("moment", Some(&values)),
        }
    }

    fn load(language: Language) -> Self {
        let locale: LanguageIdentifier = language
            .code()
            .parse()
            .expect("our codes are well-formed tags");
        let mut bundle = FluentBundle::new_concurrent(vec![locale]);
        // The pages isolate names with <bdi>; invisible marks would travel along when a text is copied.
        bundle.set_use_isolating(false);
        let resource = FluentResource::try_new(language.messages().to_owned())
            .expect("the tests parse every message file");
        bundle
            .add_resource(resource)
            .expect("the tests refuse a key that occurs twice");
        Self { language, bundle }
    }

    fn format(&self, key: &str, values: Option<&FluentArgs<'_>>) -> String {
        let pattern = self
            .bundle
            .get_message(key)
            .and_then(|message| message.value());
        // The tests know every key that is used; a page with a bare key still beats no page.
        let Some(pattern) = pattern else {
            return key.to_owned();
        };
        self.bundle
            .format_pattern(pattern, values, &mut Vec::new())
            .into_owned()
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Texts({})", self.lang())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_app_decides_before_the_cookie_and_the_cookie_before_the_browser() {
        assert_eq!(
            negotiate(Some("fr de-AT en"), Some("en"), Some("en")),
            Language::German
        );
        assert_eq!(
            negotiate(Some("fr"), Some("de"), Some("en")),
            Language::German
        );
        assert_eq!(negotiate(None, Some("xx"), Some("de")), Language::German);
    }

    #[test]
    fn the_browser_is_heard_by_weight() {
        assert_eq!(
            negotiate(None, None, Some("fr, en;q=0.5, de-CH;q=0.8")),
            Language::German
        );
        assert_eq!(
            negotiate(None, None, Some("de;q=0, en;q=0.1")),
            Language::English
        );
        assert_eq!(negotiate(None, None, Some("en,de")), Language::English);
    }

    #[test]
    fn nonsense_is_english() {
        for header in ["", ";;;", "de;q=", "de;q=NaN", "de;q=-1", "*", "日本語"] {
            assert_eq!(
                negotiate(Some(header), Some(header), Some(header)),
                Language::English,
                "{header}"
            );
        }
    }

    #[test]
    fn a_number_picks_singular_or_plural() {
        let english = Texts::of(Language::English);
        assert!(
            english
                .count("sign-in-slowed", "minutes", 1)
                .contains("1 minute.")
        );
        assert!(
            english
                .count("sign-in-slowed", "minutes", 7)
                .contains("7 minutes.")
        );
    }

    #[test]
    fn a_sentence_is_cut_at_its_value() {
        let around = Texts::of(Language::English).around("to-continue-to", "app");
        assert_eq!(
            around,
            Around {
                before: "to continue to ".to_owned(),
                after: String::new()
            }
        );
    }

    #[test]
    fn a_moment_is_written_as_the_language_writes_it() {
        let time = Timestamp::from_seconds(1_795_457_040);
        assert_eq!(
            Texts::of(Language::English).moment(time).words,
            "23 November 2026, 18:04 UTC"
        );
        assert_eq!(
            Texts::of(Language::German).moment(time).words,
            "23. November 2026, 18:04 UTC"
        );
        assert_eq!(
            Texts::of(Language::German).moment(time).iso,
            "2026-11-23T18:04:00Z"
        );
    }

    #[test]
    fn every_language_has_the_same_keys_with_the_same_variables() {
        for language in Language::ALL {
            assert_eq!(
                messages(language),
                messages(Language::English),
                "{language:?}"
            );
        }
    }

    #[test]
    fn every_key_in_use_exists_and_every_key_is_in_use() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut templates = String::new();
        read_all(&root.join("templates"), "html", &mut templates);
        let mut code = String::new();
        read_all(&root.join("src/web"), "rs", &mut code);
        let known: BTreeSet<String> = messages(Language::English).into_keys().collect();

        let mut asked = BTreeSet::new();
        for call in ["get(\"", "with(\"", "count(\"", "around(\""] {
            let in_templates = templates.split(call).skip(1);
            // `.get("…")` also reads maps and headers; ours is called on texts.
            let pieces: Vec<_> = code.split(call).collect();
            let in_code = pieces
                .windows(2)
                .filter(|pair| {
                    let before = pair[0].trim_end();
                    before.ends_with("texts.") || before.ends_with("texts().")
                })
                .map(|pair| pair[1]);
            let keys = in_templates
                .chain(in_code)
                .filter_map(|rest| rest.split_once('"'));
            asked.extend(keys.map(|(key, _)| key.to_owned()));
        }
        // Keys that reach a lookup by another way.
        for call in ["Key(\"", "detail(\""] {
            asked.extend(
                code.split(call)
                    .skip(1)
                    .filter_map(|rest| rest.split_once('"'))
                    .map(|(key, _)| key.to_owned()),
            );
        }
        let missing: Vec<_> = asked.iter().filter(|key| !known.contains(*key)).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        let quoted = |key: &&String| {
            templates.contains(&format!("\"{key}\"")) || code.contains(&format!("\"{key}\""))
        };
        let unused: Vec<_> = known
            .iter()
            .filter(|key| key.as_str() != "moment" && !quoted(key))
            .collect();
        assert!(unused.is_empty(), "unused: {unused:?}");
    }

    /// Key to variables, read from the text so that a file can't hide what the bundle would drop.
    fn messages(language: Language) -> BTreeMap<String, BTreeSet<String>> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut key = String::new();
        for line in language
            .messages()
            .lines()
            .filter(|line| !line.starts_with('#'))
        {
            if !line.starts_with([' ', '}']) {
                let Some((name, _)) = line.split_once(" =") else {
                    continue;
                };
                key = name.to_owned();
                assert!(
                    found.insert(key.clone(), BTreeSet::new()).is_none(),
                    "{key} occurs twice"
                );
            }
            for rest in line.split('$').skip(1) {
                let variable = rest
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                    .next()
                    .unwrap_or_default();
                found
                    .entry(key.clone())
                    .or_default()
                    .insert(variable.to_owned());
            }
        }
        found
    }

    fn read_all(folder: &Path, extension: &str, into: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read_all(&path, extension, into);
            } else if path.extension().is_some_and(|found| found == extension) {
                into.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
}
