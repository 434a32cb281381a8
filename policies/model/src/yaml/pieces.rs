//! Pieces of a text, read side by side on the machine's cores; what comes out is in their order.
//!
//! Always holds: no more than a batch of pieces is held at once, however long the text is.

use super::{
    ReadError,
    documents::Part,
    found::{Class, Found, Reading},
};
use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// So much text is read at once, by however many cores.
const BATCH_BYTES: usize = 1 << 20;
/// So much text is worth a thread of its own.
const THREAD_BYTES: usize = 1 << 16;

/// Text that can be read by itself.
pub(super) enum Piece<'t> {
    Yaml { part: Part<'t>, list: Option<Class> },
    Json { text: &'t str, line: u32, list: Option<Class> },
}

impl Piece<'_> {
    const fn bytes(&self) -> usize {
        match self {
            Self::Yaml { part, .. } => part.text.len(),
            Self::Json { text, .. } => text.len(),
        }
    }
}

/// What is done with each thing found.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Result<Found, ReadError>) -> ControlFlow<()>;

/// Pieces on their way.
pub(super) struct Pieces<'s, 't> {
    reading: &'s Reading,
    sink: Sink<'s>,
    waiting: Vec<Piece<'t>>,
    bytes: usize,
}

impl<'s, 't> Pieces<'s, 't> {
    pub(super) const fn new(reading: &'s Reading, sink: Sink<'s>) -> Self {
        Self { reading, sink, waiting: Vec::new(), bytes: 0 }
    }

    /// Adds one; breaks when nobody wants more.
    pub(super) fn add(&mut self, piece: Piece<'t>) -> ControlFlow<()> {
        self.bytes += piece.bytes();
        self.waiting.push(piece);
        if self.bytes < BATCH_BYTES { ControlFlow::Continue(()) } else { self.finish() }
    }

    /// What comes after those that wait cannot be read.
    pub(super) fn fail(&mut self, error: ReadError) -> ControlFlow<()> {
        self.finish()?;
        (self.sink)(Err(error))
    }

    /// Reads those that wait.
    pub(super) fn finish(&mut self) -> ControlFlow<()> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(self.waiting.len()).min(self.bytes / THREAD_BYTES);
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let mut found = waiting.iter().map(|piece| self.reading.piece(piece));
        let mut side_by_side = Vec::new();
        let all: &mut dyn Iterator<Item = _> = match threads {
            0 | 1 => &mut found,
            _ => {
                side_by_side.extend(side_by_side_in_order(threads, &waiting, |piece| self.reading.piece(piece)));
                &mut side_by_side.into_iter()
            }
        };
        all.flatten().try_for_each(&mut *self.sink)
    }
}

/// Does the work for each, and gives the results in the order of what was given.
fn side_by_side_in_order<T: Sync, R: Send>(threads: usize, all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let one = || {
        let mine = std::iter::from_fn(|| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            all.get(index).map(|item| (index, work(item)))
        });
        mine.collect::<Vec<_>>()
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let mut done = one();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
