//! From reachability of ends to rows of parties.

use super::{
    Asked, Client, Map, Newcomers, Open, Options, Party, PartyId, Targets,
    chosen::{Side, is_on_host_network},
    nobody, notes,
    outside::Outside,
};
use crate::{EndId, Family, Reach, SetId, why::Problem};
use model::cluster::WorkloadKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};

impl<'u> Map<'u> {
    /// The rows of a reach's input.
    pub fn new(reach: &Reach<'u, '_>, options: &Options) -> Result<Self, Problem> {
        let universe = reach.universe();
        let clients = Side::of(universe, options.by, options.from.as_ref())?;
        let servers = Side::of(universe, options.by, options.to.as_ref())?;
        let notes = notes::all(universe, options, &clients, &servers);
        let build = Build {
            reach,
            families: universe.ends().map(|(id, _)| universe.family(id)).collect(),
            newcomers: universe.nobody().map(|(id, _)| id).filter(|_| options.exposure).collect(),
            client_groups: Groups::of(&clients),
            server_groups: Groups::of(&servers),
            clients,
            servers,
            is_disjoint: options.disjoint,
        };
        Ok(build.finish(notes))
    }
}

/// Members of a side that stand for the same ends, once.
struct Groups {
    ends: Vec<Vec<EndId>>,
    /// By member of the side, in its order.
    of: Vec<usize>,
}

impl Groups {
    fn of(side: &Side) -> Self {
        let mut known: HashMap<Vec<EndId>, usize> = HashMap::new();
        let mut groups = Self { ends: Vec::new(), of: Vec::with_capacity(side.pods.len()) };
        for ends in side.pods.values() {
            let mut ends = ends.clone();
            ends.sort_unstable();
            ends.dedup();
            let group = *known.entry(ends).or_insert_with_key(|ends| {
                groups.ends.push(ends.clone());
                groups.ends.len() - 1
            });
            groups.of.push(group);
        }
        groups
    }
}

struct Build<'a, 'u, 'c> {
    reach: &'a Reach<'u, 'c>,
    families: Vec<Family>,
    newcomers: Vec<EndId>,
    clients: Side,
    servers: Side,
    client_groups: Groups,
    server_groups: Groups,
    is_disjoint: bool,
}

/// What a group may open at every address and newcomer, or these at it.
#[derive(Default)]
struct Beyond {
    blocks: Vec<Open>,
    newcomers: Vec<Open>,
}

impl<'u> Build<'_, 'u, '_> {
    fn finish(self, notes: Vec<String>) -> Map<'u> {
        let universe = self.reach.universe();
        let (groups, out): (Vec<_>, Vec<_>) = self.client_groups.ends.iter().map(|ends| self.outgoing(ends)).unzip();
        let from_newcomers: Vec<Vec<SetId>> = match self.clients.is_everyone {
            true => self.newcomers.iter().map(|id| self.reach.row(*id)).collect(),
            false => Vec::new(),
        };
        let into: Vec<Beyond> =
            self.server_groups.ends.iter().map(|ends| self.incoming(ends, &from_newcomers)).collect();
        let mut outside = Outside::new(universe, self.is_disjoint);
        outside.tell_apart(out.iter().chain(&into).map(|beyond| beyond.blocks.as_slice()));

        let mut incoming: BTreeMap<Party, Vec<(usize, Open)>> = BTreeMap::new();
        for (group, beyond) in into.iter().enumerate() {
            for (party, open) in self.others(&mut outside, &self.clients, beyond) {
                incoming.entry(party).or_default().push((group, open));
            }
        }
        let outgoing: Vec<Vec<(Party, Open)>> =
            out.iter().map(|beyond| self.others(&mut outside, &self.servers, beyond)).collect();

        let mut known: BTreeSet<Party> = incoming.keys().cloned().collect();
        known.extend(outgoing.iter().flatten().map(|(party, _)| party.clone()));
        known.extend(self.clients.pods.keys().chain(self.servers.pods.keys()).cloned().map(Party::Pods));
        let parties: Vec<Party> = known.into_iter().collect();
        let ids: HashMap<&Party, PartyId> = parties.iter().zip((0..).map(PartyId)).collect();
        let pods = |key: &WorkloadKey| ids[&Party::Pods(key.clone())];

        let numbered = |others: Vec<(Party, Open)>| {
            let mut others: Vec<(PartyId, Open)> = others.iter().map(|(party, open)| (ids[party], *open)).collect();
            others.sort_unstable_by_key(|(party, _)| *party);
            others
        };
        let mut targets: Vec<Targets> = groups
            .into_iter()
            .zip(outgoing)
            .map(|(groups, others)| Targets { groups, others: numbered(others) })
            .collect();
        let members = self.clients.pods.keys().zip(&self.client_groups.of);
        let mut clients: Vec<Client> =
            members.map(|(key, group)| Client { party: pods(key), targets: *group }).collect();
        for (party, groups) in incoming {
            clients.push(Client { party: ids[&party], targets: targets.len() });
            targets.push(Targets { groups, others: Vec::new() });
        }
        let mut servers = vec![Vec::new(); self.server_groups.ends.len()];
        for (key, group) in self.servers.pods.keys().zip(&self.server_groups.of) {
            servers[*group].push(pods(key));
        }
        let on_host = self.clients.pods.iter().chain(&self.servers.pods);
        let on_host = on_host.filter(|(_, ends)| is_on_host_network(universe, ends)).map(|(key, _)| pods(key));
        let host_network: BTreeSet<PartyId> = on_host.collect();
        let asked = |side: &Side| Asked {
            pods: side.pods.keys().map(pods).collect(),
            outside: !side.outside.is_empty(),
            newcomers: side.is_everyone && !self.newcomers.is_empty(),
        };
        let asked = [asked(&self.clients), asked(&self.servers)];
        drop(ids);
        let host_network = host_network.into_iter().collect();
        Map { sets: self.reach.sets(), parties, host_network, clients, servers, targets, asked, notes }
    }

    /// What a group of clients may open: at groups of servers, and beyond.
    fn outgoing(&self, ends: &[EndId]) -> (Vec<(usize, Open)>, Beyond) {
        let rows: Vec<(EndId, Vec<SetId>)> = ends.iter().map(|end| (*end, self.reach.row(*end))).collect();
        let at = |servers: &[EndId]| {
            let pairs = rows.iter().flat_map(|(from, row)| {
                let meeting = servers.iter().filter(|to| self.meet(*from, **to));
                meeting.map(|to| row[to.index()])
            });
            Open::of(self.reach.sets(), pairs)
        };
        let groups = self.server_groups.ends.iter().map(|servers| at(servers)).enumerate();
        let groups = groups.filter(|(_, open)| *open != Open::NOTHING).collect();
        let blocks = self.reach.universe().blocks().iter().filter(|_| !self.servers.outside.is_empty());
        let newcomers = self.newcomers.iter().filter(|_| self.servers.is_everyone);
        let beyond = Beyond {
            blocks: blocks.map(|block| at(&[*block])).collect(),
            newcomers: newcomers.map(|end| at(&[*end])).collect(),
        };
        (groups, beyond)
    }

    /// What addresses and newcomers may open at a group of servers.
    fn incoming(&self, ends: &[EndId], from_newcomers: &[Vec<SetId>]) -> Beyond {
        let sets = self.reach.sets();
        let meeting = |from: EndId| ends.iter().copied().filter(move |to| self.meet(from, *to));
        let blocks = self.reach.universe().blocks().iter().filter(|_| !self.clients.outside.is_empty());
        let newcomers = self.newcomers.iter().zip(from_newcomers);
        Beyond {
            blocks: blocks.map(|from| Open::of(sets, meeting(*from).map(|to| self.reach.allowed(*from, to)))).collect(),
            newcomers: newcomers.map(|(from, row)| Open::of(sets, meeting(*from).map(|to| row[to.index()]))).collect(),
        }
    }

    /// The parties beyond pods on a side, with what may be opened.
    fn others(&self, outside: &mut Outside<'_, '_>, side: &Side, beyond: &Beyond) -> Vec<(Party, Open)> {
        let mut others = outside.parties(&beyond.blocks, &side.outside);
        let newcomers = nobody::fewest(self.reach, &self.newcomers, &beyond.newcomers);
        others.extend(newcomers.into_iter().map(|(who, open): (Newcomers, Open)| (Party::Nobody(who), open)));
        others
    }

    fn meet(&self, from: EndId, to: EndId) -> bool {
        self.families[from.index()].meets(self.families[to.index()])
    }
}
