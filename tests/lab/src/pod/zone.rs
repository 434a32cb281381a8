//! The DNS server's names: one zone for everything, read from a file and read again when told to, so that a pod that
//! died is gone from the answers before its address is given away.

use hickory_server::{
    proto::rr::{LowerName, Name, RData, Record, RecordSet, RrKey, rdata::SOA},
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use std::{collections::BTreeMap, io, net::IpAddr, path::PathBuf, str::FromStr, sync::Arc};

/// Nobody may keep an answer: an address changes hands within seconds.
const TTL: u32 = 0;

type Records = BTreeMap<RrKey, RecordSet>;

/// The zone, shared by every listener.
#[derive(Clone)]
pub(super) struct Zone {
    file: Arc<PathBuf>,
    handler: Arc<InMemoryZoneHandler>,
}

impl Zone {
    pub(super) fn read(file: PathBuf) -> io::Result<Self> {
        let records = records_of(&file)?;
        let handler = InMemoryZoneHandler::new(Name::root(), records, ZoneType::Primary, AxfrPolicy::Deny);
        let handler = Arc::new(handler.map_err(io::Error::other)?);
        Ok(Self { file: Arc::new(file), handler })
    }

    /// Replaces all names at once.
    pub(super) async fn reload(&self) -> io::Result<()> {
        let fresh = records_of(&self.file)?.into_iter().map(|(key, set)| (key, Arc::new(set))).collect();
        *self.handler.records_mut().await = fresh;
        Ok(())
    }

    pub(super) fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::from(Name::root()), vec![Arc::clone(&self.handler) as _]);
        catalog
    }
}

/// The records of a file that says `{name: [address, …], …}`.
fn records_of(file: &PathBuf) -> io::Result<Records> {
    let names: BTreeMap<String, Vec<IpAddr>> = serde_json::from_slice(&std::fs::read(file)?)?;
    let mut records = Records::new();
    let soa = SOA::new(Name::root(), Name::root(), 1, 7200, 1800, 86400, TTL);
    insert(&mut records, Name::root(), RData::SOA(soa));
    for (name, addresses) in names {
        let mut name = Name::from_str(&name).map_err(io::Error::other)?;
        name.set_fqdn(true);
        for ip in addresses {
            insert(&mut records, name.clone(), RData::from(ip));
        }
    }
    Ok(records)
}

fn insert(records: &mut Records, name: Name, data: RData) {
    let record = Record::from_rdata(name.clone(), TTL, data);
    let kind = record.record_type();
    let set = records.entry(RrKey::new(name.clone().into(), kind)).or_insert_with(|| RecordSet::new(name, kind, 1));
    set.insert(record, 1);
}
