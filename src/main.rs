use clap::Parser;
use ntm::{cli::Cli, commands, terminal::say};
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::from(if error.is::<commands::Usage>() { 2 } else { 1 })
        }
    }
}
