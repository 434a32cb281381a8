//! Epochs: one counter of the node, never used twice, pinned so that it outlives the agent.

use crate::{Error, pins::Pins};
use aya::maps::{Array, MapData};
use verdict::abi::EPOCH_BITS;

/// The pin of the counter.
pub(crate) const EPOCHS: &str = "epochs";

/// Gives epochs.
pub(crate) struct Epochs {
    last: u64,
    kept: Option<Array<MapData, u64>>,
}

impl Epochs {
    /// The pinned counter, which goes on where it stood; without pins it lives as long as the connection
    /// table of this process, which is all that remembers epochs then.
    pub(crate) fn open(pins: Option<&Pins>) -> Result<Self, Error> {
        let kept = pins.map(|pins| pins.array(EPOCHS, 1)).transpose()?;
        let mut epochs = Self { last: 0, kept };
        epochs.read()?;
        Ok(epochs)
    }

    /// Goes on where another agent stopped by now: the last epoch it gave.
    pub(crate) fn read(&mut self) -> Result<u64, Error> {
        if let Some(kept) = &self.kept {
            self.last = kept.get(&0, 0).map_err(Error::table("read", EPOCHS))?;
        }
        Ok(self.last)
    }

    /// The next epoch, kept before it is used.
    pub(crate) fn next(&mut self) -> Result<u64, Error> {
        self.last = (self.last + 1) & ((1 << EPOCH_BITS) - 1);
        if let Some(kept) = &mut self.kept {
            kept.set(0, self.last, 0).map_err(Error::table("write", EPOCHS))?;
        }
        Ok(self.last)
    }
}
