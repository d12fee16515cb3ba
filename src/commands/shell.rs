//! What a shell and `man` know of the program, written from its command line.

use crate::cli::{Cli, Completions, Man};
use crate::terminal::{print, say, shell_path};
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::fs;

pub fn completions(flags: Completions) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(flags.shell, &mut Cli::command(), "ntm", &mut script);
    print(&String::from_utf8(script)?)
}

/// A page for the program and one for each subcommand.
pub fn man(flags: Man) -> Result<()> {
    let directory = &flags.directory;
    let cannot = || format!("cannot write man pages into `{}`", directory.display());
    fs::create_dir_all(directory).with_context(cannot)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    for command in std::iter::once(&program).chain(program.get_subcommands()) {
        let page = clap_mangen::Man::new(command.clone());
        let mut text = vec![];
        page.render(&mut text).with_context(cannot)?;
        // lines of examples stay lines, which `man` would fill and justify
        let text = String::from_utf8(text)?.replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n.nf\n");
        fs::write(directory.join(page.get_filename()), text).with_context(cannot)?;
    }
    say(&format!("wrote ntm.1 and a page for each subcommand into {}", shell_path(directory)));
    Ok(())
}
