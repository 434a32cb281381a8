//! Rows for programs: JSON, YAML, CSV. `schemas/reach.schema.json` says what each field means.
//!
//! Always holds: a row is written from texts made once for each party and each set of ports.

use super::{Map, Newcomers, Party, PartyId, Row};
use crate::{Allowed, SetId, ports_text};
use model::policy::Protocol;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{self, Write},
};

/// Texts of sets of ports, each made once.
pub(super) struct Texts<F> {
    known: HashMap<SetId, String>,
    make: F,
}

impl<F: Fn(&Allowed) -> String> Texts<F> {
    pub(super) fn new(make: F) -> Self {
        Self { known: HashMap::new(), make }
    }

    pub(super) fn of(&mut self, map: &Map<'_>, id: SetId) -> &str {
        self.known.entry(id).or_insert_with(|| (self.make)(&map.sets.get(id)))
    }
}

impl Map<'_> {
    /// `{"connections": […], "hostNetwork": […], "notes": […]}`, a row a line.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let parties: Vec<String> = self.parties.iter().map(|party| json_object(&end(party))).collect();
        let mut allowed = Texts::new(|set| list_of(&allowed(set), json_object, ","));
        let mut is_first = true;
        out.write_all(b"{\"connections\":[")?;
        self.for_each(|Row { from, to, open }| {
            let comma: &[u8] = if std::mem::take(&mut is_first) { b"\n" } else { b",\n" };
            out.write_all(comma)?;
            let parts = ["{\"from\":", &parties[from.index()], ",\"to\":", &parties[to.index()], ",\"allowed\":"];
            parts.iter().try_for_each(|part| out.write_all(part.as_bytes()))?;
            out.write_all(allowed.of(self, open.allowed).as_bytes())?;
            out.write_all(if open.partial { b",\"partial\":true}" } else { b"}" })
        })?;
        let on_host: Vec<&str> = self.host_network.iter().map(|id| parties[id.index()].as_str()).collect();
        writeln!(out, "\n],\n\"hostNetwork\":[{}],\n\"notes\":{}}}", on_host.join(","), json!(self.notes))
    }

    /// The same as YAML.
    pub fn write_yaml(&self, out: &mut impl Write) -> io::Result<()> {
        let parties: Vec<String> = self.parties.iter().map(|party| yaml_object(&end(party))).collect();
        let mut allowed = Texts::new(|set| list_of(&allowed(set), yaml_object, ", "));
        let mut is_empty = true;
        out.write_all(b"connections:")?;
        self.for_each(|Row { from, to, open }| {
            is_empty = false;
            let (from, to) = (&parties[from.index()], &parties[to.index()]);
            write!(out, "\n- from: {from}\n  to: {to}\n  allowed: {}", allowed.of(self, open.allowed))?;
            out.write_all(if open.partial { b"\n  partial: true" } else { b"" })
        })?;
        out.write_all(if is_empty { b" []\n" } else { b"\n" })?;
        list(out, "hostNetwork", self.host_network.iter().map(|id| parties[id.index()].clone()))?;
        list(out, "notes", self.notes.iter().map(|note| json!(note).to_string()))
    }

    /// `from,to,protocol,ports,partial`, a line for each protocol of a row.
    pub fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        let parties: Vec<String> = self.parties.iter().map(|party| cell(&party.to_string())).collect();
        out.write_all(b"from,to,protocol,ports,partial\n")?;
        let mut allowed = Texts::new(|set| {
            let line = |(protocol, ports): (Protocol, &[(u16, u16)])| {
                format!("{},{}", protocol.name(), cell(&ports_text(ports)))
            };
            set.by_protocol().map(line).collect::<Vec<_>>().join("\n")
        });
        self.for_each(|Row { from, to, open }| {
            let (from, to) = (&parties[from.index()], &parties[to.index()]);
            let mut lines = allowed.of(self, open.allowed).lines();
            lines.try_for_each(|line| writeln!(out, "{from},{to},{line},{}", open.partial))
        })
    }

    pub(super) fn is_on_host_network(&self, party: PartyId) -> bool {
        self.host_network.binary_search(&party).is_ok()
    }
}

fn list(out: &mut impl Write, name: &str, items: impl Iterator<Item = String>) -> io::Result<()> {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        return writeln!(out, "{name}: []");
    }
    writeln!(out, "{name}:")?;
    items.iter().try_for_each(|item| writeln!(out, "- {item}"))
}

/// An object's fields in order, each value as JSON.
type Fields = Vec<(&'static str, String)>;

/// Who, as documents have it.
fn end(party: &Party) -> Fields {
    let text = |text: &str| Value::from(text).to_string();
    match party {
        Party::Pods(key) => {
            vec![("namespace", text(&key.namespace)), ("kind", text(&key.kind)), ("name", text(&key.name))]
        }
        Party::Outside(nets) => match nets.as_slice() {
            [net] => vec![("cidr", text(&net.to_string()))],
            nets => vec![("cidrs", nets.iter().map(|net| Value::from(net.to_string())).collect::<Value>().to_string())],
        },
        Party::Nobody(newcomers) => {
            let (place, pods) = match newcomers {
                Newcomers::Anywhere => (None, None),
                Newcomers::In { namespace, pods } => (Some(("namespace", namespace)), pods.as_ref()),
                Newcomers::New { namespaces, pods } => (Some(("namespaces", namespaces)), pods.as_ref()),
            };
            let mut fields = vec![("nobody", true.to_string())];
            fields.extend(place.map(|(key, value)| (key, text(value))));
            fields.extend(pods.map(|pods| ("pods", text(pods))));
            fields
        }
    }
}

/// By protocol, ports as `80,8000-8010`.
fn allowed(set: &Allowed) -> Vec<Fields> {
    let one = |(protocol, ports): (Protocol, &[(u16, u16)])| {
        vec![("protocol", format!("\"{}\"", protocol.name())), ("ports", format!("\"{}\"", ports_text(ports)))]
    };
    set.by_protocol().map(one).collect()
}

fn json_object(fields: &Fields) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// YAML in flow style: keys bare, texts quoted as in JSON, which every reader takes as they are.
fn yaml_object(fields: &Fields) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

fn list_of(items: &[Fields], object: impl Fn(&Fields) -> String, separator: &str) -> String {
    format!("[{}]", items.iter().map(object).collect::<Vec<_>>().join(separator))
}

/// A cell of CSV (RFC 4180).
fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
