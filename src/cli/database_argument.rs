//! A database's address on the command line, which may hold a password: what is wrong with it is told, never what it is.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

use crate::config::DatabaseUrl;

/// clap's own parsers repeat what was typed.
#[derive(Clone, Copy)]
pub(super) struct DatabaseArgument;

impl TypedValueParser for DatabaseArgument {
    type Value = DatabaseUrl;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<DatabaseUrl, Error> {
        let refused = |problem: String| {
            let name = argument.map_or_else(String::new, |argument| format!("{argument} "));
            Error::raw(ErrorKind::ValueValidation, format!("{name}{problem}\n")).with_cmd(command)
        };
        let text = value
            .to_str()
            .ok_or_else(|| refused("must be UTF-8 text".to_owned()))?;
        text.parse::<DatabaseUrl>()
            .map_err(|error| refused(error.to_string()))
    }
}
