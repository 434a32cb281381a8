//! Questions to the node's loop, from any thread.

use crate::{Answer, Error, Question, Report, gone, node::Ask};
use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    time::Duration,
};

/// An answer that takes longer is not waited for; the loop may be in a long update.
const PATIENCE: Duration = Duration::from_secs(8);

/// Who may ask.
#[derive(Clone)]
pub(crate) struct Asked(pub(crate) Sender<Ask>);

impl Asked {
    pub(crate) fn report(&self) -> Result<Report, Error> {
        self.answer(Ask::Report)?
    }

    /// What can be answered; else the sentence that says why not.
    pub(crate) fn why(&self, question: Question) -> Result<Result<Answer, String>, Error> {
        self.answer(|reply| Ask::Why { question, reply })
    }

    fn answer<T>(&self, ask: impl FnOnce(Sender<T>) -> Ask) -> Result<T, Error> {
        let (reply, answer) = channel();
        self.0.send(ask(reply)).map_err(|_| gone())?;
        answer.recv_timeout(PATIENCE).map_err(|why| match why {
            RecvTimeoutError::Disconnected => gone(),
            RecvTimeoutError::Timeout => {
                Error::Thread { what: "does not answer; it may be in a long update, ask again".to_owned() }
            }
        })
    }
}
