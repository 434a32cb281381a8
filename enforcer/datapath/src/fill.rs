//! How much the kernel's tables hold room for, and the memory they take.

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

/// One table of the loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// Its name in the object.
    pub name: String,
    /// Entries it has room for; of a ring buffer, bytes.
    pub room: u64,
    /// Memory that the kernel accounts to it, in bytes; `None` where it does not say.
    pub bytes: Option<u64>,
}

/// Every table, held open to be asked again.
pub(crate) struct Sizes(Vec<(String, u64, OwnedFd)>);

impl Sizes {
    /// Of a loaded object, before its maps are taken out. A table that cannot be asked is left out.
    pub(crate) fn of(ebpf: &Ebpf) -> Self {
        let maps = ebpf.maps().filter_map(|(name, map)| {
            // Names with a dot are the program's constants.
            let data = data(map).filter(|_| !name.starts_with('.'))?;
            let room = data.info().ok()?.max_entries();
            Some((name.to_owned(), u64::from(room), data.fd().as_fd().try_clone_to_owned().ok()?))
        });
        let mut maps: Vec<_> = maps.collect();
        maps.sort_by(|a, b| a.0.cmp(&b.0));
        Self(maps)
    }

    pub(crate) fn now(&self) -> Vec<TableSize> {
        let size = |(name, room, fd): &(String, u64, OwnedFd)| TableSize {
            name: name.clone(),
            room: *room,
            bytes: memory(fd.as_raw_fd()),
        };
        self.0.iter().map(size).collect()
    }
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// `memlock` of proc(5), fdinfo: since 6.4 what a map takes now, before that what it was made with.
fn memory(fd: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}
