//! `completion` and `man`: the command line described to a shell and to a reader, from the one description there is.

use crate::{
    ending::{Ending, Failure},
    files, output,
    typed::{Command, Completion, Man},
};
use clap::CommandFactory as _;
use miette::Result;
use std::io::Write as _;

pub(crate) fn completion(typed: &Completion) -> Result<Ending> {
    let mut script = Vec::new();
    clap_complete::generate(typed.shell, &mut Command::command(), "podfence", &mut script);
    print(&script)
}

pub(crate) fn man(typed: &Man) -> Result<Ending> {
    let command = Command::command();
    let Some(folder) = &typed.out else { return print(&page(command)?) };
    files::make_folder(folder)?;
    clap_mangen::generate_to(command, folder).map_err(|why| {
        Failure::of(format!("cannot write the manual to {}", folder.display()), why).hint("choose another folder")
    })?;
    Ok(Ending::Done)
}

fn page(command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|e| Failure::of("cannot write the manual", e))?;
    Ok(page)
}

fn print(bytes: &[u8]) -> Result<Ending> {
    let mut out = output::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(output::failed)?;
    Ok(Ending::Done)
}
