//! The program: one subcommand, from its flags to an exit code. How a batch goes through the library is at the top of
//! `lib.rs`.

use ntm::{cli::Cli, commands, terminal::say};
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(Cli::read().command) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::from(if error.is::<commands::Usage>() { 2 } else { 1 })
        }
    }
}
