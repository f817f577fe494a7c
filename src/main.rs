//! The `latchkey` program; [`latchkey::cli`] is its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    latchkey::cli::run()
}
