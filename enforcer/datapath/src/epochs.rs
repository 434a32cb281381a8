//! Epochs: one counter of the node, never used twice, pinned so that it outlives the agent.

use crate::Error;
use aya::maps::{Array, Map, MapData};
use std::path::Path;
use verdict::abi::EPOCH_BITS;

const TABLE: &str = "EPOCHS";

/// Gives epochs.
pub(crate) struct Epochs {
    last: u64,
    kept: Option<Array<MapData, u64>>,
}

impl Epochs {
    /// A counter pinned at `path`, which goes on where it stood; without a path it lives as long as
    /// the connection table of this process, which is all that remembers epochs then.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self { last: 0, kept: None }) };
        let pinned = |source| Error::Pin { doing: "open the pinned counter", path: path.to_owned(), source };
        let kept: Array<MapData, u64> = if path.exists() {
            let data = MapData::from_pin(path).map_err(|e| pinned(Box::new(e)))?;
            Array::try_from(Map::Array(data)).map_err(|e| pinned(Box::new(e)))?
        } else {
            let array: Array<MapData, u64> = Array::create(1, 0).map_err(|e| pinned(Box::new(e)))?;
            array.pin(path).map_err(|e| pinned(Box::new(e)))?;
            let data = MapData::from_pin(path).map_err(|e| pinned(Box::new(e)))?;
            Array::try_from(Map::Array(data)).map_err(|e| pinned(Box::new(e)))?
        };
        let last = kept.get(&0, 0).map_err(Error::table("read", TABLE))?;
        Ok(Self { last, kept: Some(kept) })
    }

    /// The next epoch, kept before it is used.
    pub(crate) fn next(&mut self) -> Result<u64, Error> {
        self.last = (self.last + 1) & ((1 << EPOCH_BITS) - 1);
        if let Some(kept) = &mut self.kept {
            kept.set(0, self.last, 0).map_err(Error::table("write", TABLE))?;
        }
        Ok(self.last)
    }
}
