//! The words of `selftest`.

use clap::{Args, ValueEnum};

/// Try every known way round a policy on this node.
///
/// On namespaces of its own, with an agent of its own, against the program that enforces here: each class sends what
/// once went round a real enforcer, over IPv4 and IPv6, with policy at the server, at the client and at both. A class
/// holds only if the same packets arrive where policy allows them, left the attacker, were dropped for a reason of the
/// class, and the far end counted none. Nothing else on the node is touched, nothing is pinned, nothing stays.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 all held; 1 a class was passed by; 2 no answer for one at least.")]
pub(crate) struct Selftest {
    /// These classes alone; `--list` prints their names
    #[arg(value_name = "CLASS")]
    pub(crate) classes: Vec<String>,
    /// One address family alone: 4 or 6
    #[arg(long, value_name = "4|6", value_parser = family)]
    pub(crate) family: Option<lab::Family>,
    /// Policy at these ends alone; at `both`, each class is tried once a family
    #[arg(long, value_name = "ENDS", value_enum)]
    pub(crate) policy_at: Option<SelftestEnds>,
    /// Print every class with its number in the corpus, its line of defence, what it tries and where it was seen
    #[arg(long)]
    pub(crate) list: bool,
    /// Classes that cannot be run here are no missing answer
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = SelftestOutput::Table)]
    pub(crate) output: SelftestOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SelftestEnds {
    /// The server's ingress
    Server,
    /// The client's egress
    Client,
    /// Both
    Both,
}

impl From<SelftestEnds> for selftest::Ends {
    fn from(ends: SelftestEnds) -> Self {
        match ends {
            SelftestEnds::Server => Self::Server,
            SelftestEnds::Client => Self::Client,
            SelftestEnds::Both => Self::Both,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SelftestOutput {
    /// A row a class and family
    Table,
    /// A row also for each end that policy stands at, with line of defence and reference
    Wide,
    /// For programs: every shot with its counters
    Json,
}

fn family(word: &str) -> Result<lab::Family, String> {
    let number: u8 = word.parse().map_err(|_| format!("`{word}` is no address family; write 4 or 6"))?;
    lab::Family::try_from(number)
}
