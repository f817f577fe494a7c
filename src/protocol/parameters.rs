//! Request parameters as they arrive, read strictly. RFC 6749 §3.1, §3.2, Appendix B; RFC 8707 §2.
//!
//! Lenient form parsers turn broken UTF-8 into U+FFFD and let the last of two values win, so that two requests which
//! differ on the wire look alike to the rules. Here a request is either understood exactly or refused.

use std::collections::BTreeSet;

/// Unique, non-empty parameters of one request, in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
    repeated: BTreeSet<String>,
}

/// Why a request could not be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    PercentEncoding,
    Utf8,
    ControlCharacter,
    TooMany,
}

impl Malformed {
    /// In words fit for an `error_description`.
    pub fn description(self) -> &'static str {
        match self {
            Self::PercentEncoding => "the request has a broken percent-encoding",
            Self::Utf8 => "the request is not valid UTF-8",
            Self::ControlCharacter => "the request has a control character",
            Self::TooMany => "the request has too many parameters",
        }
    }
}

const MOST_PARAMETERS: usize = 100;

impl Parameters {
    /// Reads `application/x-www-form-urlencoded` bytes: a query or a body.
    pub fn parse(encoded: &[u8]) -> Result<Self, Malformed> {
        let mut parameters = Self::default();
        for pair in encoded
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
        {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = decode(halves.next().unwrap_or_default())?;
            let value = decode(halves.next().unwrap_or_default())?;
            parameters.add(name, value)?;
        }
        Ok(parameters)
    }

    /// The value of a parameter that may come once; of one that was repeated, nothing.
    pub fn get(&self, name: &str) -> Option<&str> {
        if self.repeated.contains(name) {
            return None;
        }
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of `resource`, the one parameter that may be repeated (RFC 8707 §2).
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.pairs
            .iter()
            .filter(|(key, _)| key == "resource")
            .map(|(_, value)| value.as_str())
    }

    /// A parameter that came more than once, if there is one.
    pub fn repeated(&self) -> Option<&str> {
        self.repeated.first().map(String::as_str)
    }

    /// Whether this parameter came more than once.
    pub fn is_repeated(&self, name: &str) -> bool {
        self.repeated.contains(name)
    }

    /// Back into the form they came in.
    pub fn to_query(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.pairs)
            .finish()
    }

    fn add(&mut self, name: String, value: String) -> Result<(), Malformed> {
        if self.pairs.len() >= MOST_PARAMETERS {
            return Err(Malformed::TooMany);
        }
        if name != "resource" && self.pairs.iter().any(|(key, _)| *key == name) {
            self.repeated.insert(name.clone());
        }
        self.pairs.push((name, value));
        Ok(())
    }

    /// Drops parameters without a value: they count as omitted (RFC 6749 §3.1).
    pub fn without_empty(mut self) -> Self {
        self.pairs.retain(|(_, value)| !value.is_empty());
        self
    }
}

/// Undoes form-urlencoding of one name or value, as client credentials in Basic need it too (RFC 6749 §2.3.1).
pub fn decode(encoded: &[u8]) -> Result<String, Malformed> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = rest
                    .next()
                    .and_then(hex)
                    .ok_or(Malformed::PercentEncoding)?;
                let low = rest
                    .next()
                    .and_then(hex)
                    .ok_or(Malformed::PercentEncoding)?;
                high << 4 | low
            }
            other => other,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_not_utf8| Malformed::Utf8)?;
    // NUL breaks PostgreSQL's text, CR and LF split headers and logs; the rest have no business here either.
    if text.chars().any(char::is_control) {
        return Err(Malformed::ControlCharacter);
    }
    Ok(text)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Parameters {
        Parameters::parse(text.as_bytes()).expect("well-formed")
    }

    #[test]
    fn a_repeated_parameter_has_no_value_and_is_named() {
        let parameters = parse("scope=openid&state=a&state=b");
        assert_eq!(parameters.repeated(), Some("state"));
        assert_eq!(parameters.get("state"), None);
        assert_eq!(parameters.get("scope"), Some("openid"));
    }

    #[test]
    fn a_parameter_repeated_without_a_value_is_still_repeated() {
        assert_eq!(
            parse("state=&state=b").without_empty().repeated(),
            Some("state")
        );
    }

    #[test]
    fn resource_may_be_repeated() {
        let parameters = parse("resource=https://a&resource=https://b");
        assert_eq!(parameters.repeated(), None);
        assert_eq!(
            parameters.resources().collect::<Vec<_>>(),
            ["https://a", "https://b"]
        );
    }

    #[test]
    fn broken_encodings_are_refused() {
        for (input, expected) in [
            ("a=%", Malformed::PercentEncoding),
            ("a=%f", Malformed::PercentEncoding),
            ("a=%zz", Malformed::PercentEncoding),
            ("a=%+1", Malformed::PercentEncoding),
            ("a=%ff", Malformed::Utf8),
            ("a=%c0%80", Malformed::Utf8),
            ("a=%00", Malformed::ControlCharacter),
            ("%00=a", Malformed::ControlCharacter),
            ("a=b%0d%0aSet-Cookie:x", Malformed::ControlCharacter),
        ] {
            assert_eq!(
                Parameters::parse(input.as_bytes()),
                Err(expected),
                "{input}"
            );
        }
    }

    #[test]
    fn what_was_read_can_be_written_and_read_again() {
        let parameters = parse("a=1%202+3&b=%C3%BC&resource=x&resource=y");
        assert_eq!(parse(&parameters.to_query()), parameters);
        assert_eq!(parameters.get("a"), Some("1 2 3"));
    }
}
