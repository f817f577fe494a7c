//! How one raw value becomes a typed one, and the words for what is allowed.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::duration;
use super::issuer::Issuer;
use super::values::{Described, Words};

/// A value as it was written, before anyone asked what it means.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// From a variable or a flag, where everything is text: a number and a list may be written here too.
    Word(String),
    /// A TOML string.
    Text(String),
    Integer(i64),
    List(Vec<Raw>),
    /// A TOML value that no key takes, as it should be shown.
    Other(String),
}

/// One kind of setting. The error completes "KEY = VALUE …".
pub(super) trait Rule {
    type Value;
    fn allowed(&self) -> String;
    fn read(&self, raw: &Raw) -> Result<Self::Value, String>;

    fn refusal(&self) -> String {
        format!("must be {}", self.allowed())
    }
}

/// A text that its own type parses.
pub(super) fn text<T: Described>() -> Text<T> {
    Text(PhantomData)
}

/// One of the words of an enum.
pub(super) fn one_of<T: Words>() -> OneOf<T> {
    OneOf(PhantomData)
}

/// A whole number, both ends included.
pub(super) fn number<N: TryFrom<i64>>(least: i64, most: i64) -> Number<N> {
    Number {
        least,
        most,
        kind: PhantomData,
    }
}

/// A duration in seconds, both ends included.
pub(super) fn lasting(least: u64, most: u64) -> Lasting {
    Lasting {
        least: Duration::from_secs(least),
        most: Duration::from_secs(most),
    }
}

/// Several of another kind, none twice.
pub(super) fn list<R: Rule<Value: PartialEq>>(item: R, least: usize) -> List<R> {
    List { item, least }
}

pub(super) struct Text<T>(PhantomData<T>);
pub(super) struct OneOf<T>(PhantomData<T>);
pub(super) struct Number<N> {
    least: i64,
    most: i64,
    kind: PhantomData<N>,
}
pub(super) struct Lasting {
    least: Duration,
    most: Duration,
}
pub(super) struct List<R> {
    item: R,
    least: usize,
}
/// An address range whose proxies are believed.
pub(super) struct Network;

impl<T: Described> Rule for Text<T> {
    type Value = T;

    fn allowed(&self) -> String {
        T::ALLOWED.to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<T, String> {
        let text = raw.text().ok_or_else(|| self.refusal())?;
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

impl Described for Issuer {
    const ALLOWED: &'static str = "an https URL, or an http one on loopback, in normal form, without user, query, fragment or trailing slash";
}

impl<T: Words> Rule for OneOf<T> {
    type Value = T;

    fn allowed(&self) -> String {
        format!("one of {}", join(T::ALL.iter().map(|choice| choice.word())))
    }

    fn read(&self, raw: &Raw) -> Result<T, String> {
        let choice = raw
            .text()
            .and_then(|text| T::ALL.iter().find(|choice| choice.word() == text));
        choice.copied().ok_or_else(|| self.refusal())
    }
}

impl<N: TryFrom<i64>> Rule for Number<N> {
    type Value = N;

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.least, self.most)
    }

    fn read(&self, raw: &Raw) -> Result<N, String> {
        let number = match raw {
            Raw::Integer(number) => Some(*number),
            Raw::Word(word) => word.parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| (self.least..=self.most).contains(number));
        number
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| self.refusal())
    }
}

impl Rule for Lasting {
    type Value = Duration;

    fn allowed(&self) -> String {
        format!(
            "a duration from {} to {}",
            duration::print(self.least),
            duration::print(self.most)
        )
    }

    fn read(&self, raw: &Raw) -> Result<Duration, String> {
        let lasting = match raw {
            Raw::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            _ => raw.text().and_then(duration::parse),
        };
        lasting
            .filter(|lasting| (self.least..=self.most).contains(lasting))
            .ok_or_else(|| self.refusal())
    }
}

impl<R: Rule<Value: PartialEq>> Rule for List<R> {
    type Value = Vec<R::Value>;

    fn allowed(&self) -> String {
        let size = if self.least > 0 {
            "a list that is not empty, "
        } else {
            "a list, "
        };
        format!("{size}each {}", self.item.allowed())
    }

    fn read(&self, raw: &Raw) -> Result<Vec<R::Value>, String> {
        let items = match raw {
            Raw::List(items) => items.clone(),
            Raw::Word(word) if word.trim().is_empty() => Vec::new(),
            Raw::Word(word) => word
                .split(',')
                .map(|item| Raw::Word(item.trim().to_owned()))
                .collect(),
            _ => return Err(self.refusal()),
        };
        if items.len() < self.least {
            return Err(self.refusal());
        }
        let (mut values, mut wrong) = (Vec::with_capacity(items.len()), Vec::new());
        for item in &items {
            match self.item.read(item) {
                Ok(value) if values.contains(&value) => {
                    wrong.push(format!("names {} twice", item.show()));
                }
                Ok(value) => values.push(value),
                Err(problem) => {
                    wrong.push(format!("is wrong at {}, which {problem}", item.show()));
                }
            }
        }
        if wrong.is_empty() {
            Ok(values)
        } else {
            Err(wrong.join("; "))
        }
    }
}

impl Rule for Network {
    type Value = IpNet;

    fn allowed(&self) -> String {
        "an IP address or an address range such as \"10.0.0.0/8\"".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<IpNet, String> {
        let text = raw.text().ok_or_else(|| self.refusal())?;
        let network = text.parse::<IpNet>().ok();
        let network = network
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .ok_or_else(|| self.refusal())?;
        // Whoever trusts everybody lets any client choose the address that throttling and the audit log see.
        if network.prefix_len() == 0 {
            return Err("must not cover every address: anybody could then forge theirs".to_owned());
        }
        Ok(network.trunc())
    }
}

impl Raw {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value for a finding: on one line, short, and without a password that a URL may carry.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Word(text) | Self::Text(text) => quote(text),
            Self::Integer(number) => number.to_string(),
            Self::List(items) => format!("[{}]", join(items.iter().map(Self::show))),
            Self::Other(shown) => shown.clone(),
        }
    }

    /// The value as JSON. `like` is another one of the same key, which says what a word from a variable stands for.
    pub(super) fn to_json(&self, like: Option<&Raw>) -> Value {
        match (self, like) {
            (Self::Word(word), Some(Self::Integer(_))) if word.parse::<i64>().is_ok() => {
                word.parse::<i64>().unwrap_or_default().into()
            }
            (Self::Word(word), Some(Self::List(_))) => {
                let items = word.split(',').map(str::trim);
                items.filter(|item| !item.is_empty()).map(masked).collect()
            }
            (Self::Word(text) | Self::Text(text) | Self::Other(text), _) => masked(text).into(),
            (Self::Integer(number), _) => (*number).into(),
            (Self::List(items), _) => items.iter().map(|item| item.to_json(None)).collect(),
        }
    }
}

/// Without a password that a URL may carry.
fn masked(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://(hidden)@{host}"),
        _ => text.to_owned(),
    }
}

fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    let text = masked(text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?} and more", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

fn join(items: impl Iterator<Item = impl Display>) -> String {
    items
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
