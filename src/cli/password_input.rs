//! A password for a command: never an argument, since arguments stand in the process list and in the shell's history.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use super::failure::Failure;

/// Longer than any password, so that a file given by mistake is not read whole.
const LONGEST_LINE: u64 = 8 * 1024;

/// One line of standard input; asked for twice, without echo, where that is a terminal.
pub(super) fn read() -> Result<String, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        if rpassword::prompt_password("Again: ")? != password {
            return Err(Failure::new("the two passwords differ"));
        }
        return Ok(password);
    }
    let mut line = Vec::new();
    stdin
        .lock()
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    // A mark that some editors put before a text is not what anybody types at the sign-in.
    if let Some(text) = line.strip_prefix("\u{feff}".as_bytes()) {
        line = text.to_vec();
    }
    if line.is_empty() {
        return Err(Failure::new(
            "the password is read from standard input, as one line, and there was none",
        ));
    }
    String::from_utf8(line).map_err(|_holds_the_password| {
        Failure::new("the password on standard input is not UTF-8 text")
    })
}
