//! What a class is: one way round a policy that worked somewhere once.

use crate::{error::Stop, range::Layout, trial::Trial};
use lab::Family;
use serde::Serialize;

/// At which end the policy stands that the class goes round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// The server's ingress alone.
    Server,
    /// The client's egress alone.
    Client,
    /// Both.
    Both,
}

impl Ends {
    /// Where policy at either end must stop it.
    pub(crate) const ALL: &'static [Self] = &[Self::Server, Self::Client, Self::Both];
    /// Where the class is about the server's end.
    pub(crate) const SERVER: &'static [Self] = &[Self::Server, Self::Both];
    /// Where the class is about the client's end.
    pub(crate) const CLIENT: &'static [Self] = &[Self::Client, Self::Both];
    /// Where the class is about policies of its own.
    pub(crate) const ONCE: &'static [Self] = &[Self::Both];

    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Both => "both",
        }
    }
}

/// One way round a policy.
#[derive(Clone, Copy)]
pub struct Class {
    /// Its name, stable.
    pub name: &'static str,
    /// Its number in the corpus; several classes may share one.
    pub number: u8,
    /// Where it was seen.
    pub reference: &'static str,
    /// What it tries, in a sentence.
    pub tries: &'static str,
    /// The line of defence it leans on.
    pub defence: &'static str,
    pub(crate) layout: Layout,
    pub(crate) families: &'static [Family],
    pub(crate) ends: &'static [Ends],
    pub(crate) run: fn(&mut Trial<'_>) -> Result<(), Stop>,
}

impl Class {
    /// A class over both families, on routed links, with policies of its own.
    pub(crate) const fn new(
        (name, number, reference): (&'static str, u8, &'static str),
        tries: &'static str,
        defence: &'static str,
        run: fn(&mut Trial<'_>) -> Result<(), Stop>,
    ) -> Self {
        let (layout, families, ends) = (Layout::Routed, &Family::BOTH, Ends::ONCE);
        Self { name, number, reference, tries, defence, layout, families, ends, run }
    }

    pub(crate) const fn ends(self, ends: &'static [Ends]) -> Self {
        Self { ends, ..self }
    }

    pub(crate) const fn bridged(self) -> Self {
        Self { layout: Layout::Bridged, ..self }
    }

    pub(crate) const fn only(self, families: &'static [Family]) -> Self {
        Self { families, ..self }
    }
}

pub(crate) const V6: &[Family] = &[Family::V6];
pub(crate) const V4: &[Family] = &[Family::V4];
