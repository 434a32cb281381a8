//! The write-ahead file: an Arrow IPC stream that is only ever appended to, one `write` a batch.
//!
//! A stream may end anywhere, since its writer may be killed in the middle of a batch or be writing at this
//! moment. So it is measured first, message by message, and only what is whole is decoded: a torn tail is
//! neither an error nor forgotten.

use crate::error::surviving;
use arrow::{
    error::ArrowError,
    ipc::{
        MessageHeader, MetadataVersion, RecordBatch as BatchHeader,
        reader::StreamReader,
        root_as_message,
        writer::{IpcWriteOptions, StreamWriter},
    },
    record_batch::RecordBatch,
};
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// Turns batches into the bytes to append.
pub(crate) struct Encoder {
    stream: StreamWriter<Vec<u8>>,
}

impl Encoder {
    pub(crate) fn new() -> Result<Self, ArrowError> {
        // 8 is enough for reading from a file, and spares most of the padding of many small columns.
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
        Ok(Self { stream: StreamWriter::try_new_with_options(Vec::new(), &crate::schema(), options)? })
    }

    /// The bytes of one batch; with the first, those of the schema.
    pub(crate) fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        self.stream.write(batch)?;
        Ok(std::mem::take(self.stream.get_mut()))
    }
}

/// How much of a write-ahead file is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes up to the end of the last whole batch.
    pub(crate) whole: u64,
    /// Rows in whole batches.
    pub(crate) rows: u64,
    /// Bytes after that.
    pub(crate) torn: u64,
    /// Rows in the torn batch, where its header survived.
    pub(crate) torn_rows: u64,
}

/// Larger metadata than this is not ours.
const MAX_METADATA: u32 = 1 << 20;

/// Measures a stream of `length` bytes.
pub(crate) fn measure<R: Read + Seek>(stream: R, length: u64) -> io::Result<Extent> {
    let mut stream = BufReader::new(stream);
    stream.seek(SeekFrom::Start(0))?;
    let mut extent = Extent::default();
    while let Some(message) = next_message(&mut stream)? {
        let end = extent.whole.saturating_add(message.length);
        if end > length {
            extent.torn_rows = message.rows;
            break;
        }
        extent.whole = end;
        extent.rows += message.rows;
        stream.seek(SeekFrom::Start(end))?;
    }
    extent.torn = length.saturating_sub(extent.whole);
    Ok(extent)
}

struct Message {
    /// Prefix, metadata and body.
    length: u64,
    rows: u64,
}

/// The next message's header, `None` where there is none that can be believed.
fn next_message(stream: &mut impl Read) -> io::Result<Option<Message>> {
    let mut prefix = [0; 8];
    if !filled(stream, &mut prefix)? || prefix[..4] != [0xff; 4] {
        return Ok(None);
    }
    let size = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
    if size == 0 || size > MAX_METADATA {
        return Ok(None);
    }
    let mut metadata = vec![0; size as usize];
    if !filled(stream, &mut metadata)? {
        return Ok(None);
    }
    let Ok(message) = root_as_message(&metadata) else { return Ok(None) };
    let Ok(body) = u64::try_from(message.bodyLength()) else { return Ok(None) };
    let rows = match message.header_type() {
        MessageHeader::Schema => Some(0),
        MessageHeader::RecordBatch => message.header_as_record_batch().and_then(|batch| rows_within(&batch, body)),
        _ => None,
    };
    Ok(rows.map(|rows| Message { length: (8 + u64::from(size)).saturating_add(body), rows }))
}

/// The rows of a batch whose buffers lie within its body: the decoder trusts them to.
fn rows_within(batch: &BatchHeader<'_>, body: u64) -> Option<u64> {
    for buffer in batch.buffers()? {
        let (offset, length) = (u64::try_from(buffer.offset()).ok()?, u64::try_from(buffer.length()).ok()?);
        if offset.checked_add(length)? > body {
            return None;
        }
    }
    u64::try_from(batch.length()).ok()
}

/// Fills the buffer, or says that the stream ended before.
fn filled(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match stream.read_exact(buffer) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// The batches in the first `whole` bytes.
pub(crate) fn batches<R: Read + Seek>(
    mut stream: R,
    whole: u64,
) -> Result<impl Iterator<Item = Result<RecordBatch, String>>, String> {
    stream.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
    let mut reader = surviving(|| StreamReader::try_new(BufReader::new(stream.take(whole)), None))?;
    Ok(std::iter::from_fn(move || surviving(|| reader.next().transpose()).transpose()))
}
