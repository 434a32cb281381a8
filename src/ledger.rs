//! `ledger`: what a flow log teaches as one small file, and such files read back and merged.
//!
//! A ledger is JSON, one line a thing (the model says which), compressed with zstd: agents will push it to a controller
//! piece by piece, so it must be readable from its beginning on, and look the same to a program of another version.
//! Parquet needs its end first, and a table for what is a handful of small ones.

use crate::{
    ending::{Ending, Failure},
    files,
    learned::{self, Learned},
    output,
    output::Table,
    typed,
};
use model::{
    ledger::{Ledger, LinesError, Tally},
    routes::Routes,
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

/// As the log's segments have it.
const LEVEL: i32 = 3;
/// Memory for what a frame refers back to: 8 MiB, more than any writer of ours asks for.
const WINDOW_LOG: u32 = 23;
/// RFC 8878, 3.1.1.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

pub(crate) fn run(typed: &typed::Ledger) -> miette::Result<Ending> {
    let ledger = learned(&typed.learned)?.ledger;
    let bytes = compressed(&ledger).map_err(|why| Failure::new(format!("no ledger was made: {why}"), "try again"))?;
    files::replace(&typed.out, &bytes)?;
    let mut table = Table::new(["LEDGER", "EDGES", "OBSERVERS", "GAPS", "BYTES"]);
    let counts = [ledger.edges.len(), ledger.watched.len(), ledger.gaps.len(), bytes.len()];
    table.row([typed.out.display().to_string()].into_iter().chain(counts.map(|n| n.to_string())));
    let mut out = output::stdout();
    table.write(&mut out).and_then(|()| out.flush()).map_err(output::failed)?;
    Ok(Ending::Done)
}

/// What a log and ledgers teach together; the ways that clients took are those of the log alone.
pub(crate) fn learned(typed: &typed::Learned) -> Result<Learned, Failure> {
    let mut all = Learned { ledger: read(&typed.ledger)?, routes: Routes::default(), rows: 0 };
    if let Some(log) = &typed.log {
        let Learned { ledger, routes, rows } = learned::read(log)?;
        all.ledger.merge(ledger);
        (all.routes, all.rows) = (routes, rows);
    }
    if !all.ledger.watched.is_empty() {
        return Ok(all);
    }
    let from = typed.log.iter().chain(&typed.ledger).map(|path| path.display().to_string());
    let from = from.collect::<Vec<_>>().join(", ");
    Err(Failure::new(format!("{from} holds no flows, so every workload would be closed"), "observe for a while first"))
}

fn compressed(ledger: &Ledger) -> io::Result<Vec<u8>> {
    let mut to = zstd::Encoder::new(Vec::new(), LEVEL)?;
    ledger.write_lines(&mut to)?;
    to.finish()
}

/// Reads ledgers on every core and merges them, in whatever order.
fn read(paths: &[PathBuf]) -> Result<Ledger, Failure> {
    let waiting = Mutex::new(paths.iter());
    let next = || waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let some = || {
        let mut all = Tally::default();
        while let Some(path) = next() {
            all = read_one(all, path)?;
        }
        Ok::<_, Failure>(all.finish())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(paths.len());
    let parts: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        running.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut all = Ledger::default();
    for part in parts {
        all.merge(part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    Ok(all)
}

fn read_one(all: Tally, path: &Path) -> Result<Tally, Failure> {
    let file = File::open(path).map_err(LinesError::Io);
    let read = file.and_then(|file| read_from(all, BufReader::with_capacity(1 << 16, file)));
    read.map_err(|why| {
        Failure::new(
            format!("{}: {why}", path.display()),
            "give files that `podfence ledger` wrote; if one was cut short, have it written again",
        )
    })
}

fn read_from(all: Tally, mut file: impl BufRead) -> Result<Tally, LinesError> {
    if !file.fill_buf()?.starts_with(&MAGIC) {
        return all.read_lines(&mut file);
    }
    let mut decoder = zstd::Decoder::with_buffer(file)?;
    decoder.window_log_max(WINDOW_LOG)?;
    all.read_lines(&mut BufReader::with_capacity(1 << 16, decoder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_read_compressed_and_plain() {
        let mut ledger = Ledger::default();
        ledger.watch(&"n@0".into(), &"n".into(), 1, 2);
        let mut plain = Vec::new();
        ledger.write_lines(&mut plain).unwrap();
        for bytes in [plain, compressed(&ledger).unwrap()] {
            assert_eq!(read_from(Tally::default(), &bytes[..]).unwrap().finish(), ledger);
        }
    }
}
