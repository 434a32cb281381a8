//! The client's own policy, asked once more at the server's hook.
//!
//! At the client's hook the address of a Service is not translated yet. Where the client's policy allows some of the
//! backends and refuses others, that hook lets the opening pass if every refused backend is a covered pod of this node
//! (the compiler says so, and names the client in [`maps::PEERS`](crate::abi::maps::PEERS)). The hook of the backend it
//! comes to then asks the client's policy about that backend, as the client's hook would have been asked had the client
//! opened to the backend itself. Both hooks read the client's word, so that one store publishes to both.

use crate::{
    Hook, Reason, Refuser, Sheet, Staged, Tables, Verdict,
    abi::client_of,
    policy::{Asked, judge},
};
use flow::{Address, Direction};

/// The sheet's verdict with what the client's own policy says, where it is to be asked. Out of line: the stack of the
/// caller is full.
#[inline(never)]
pub(crate) fn ask_client<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> u64 {
    let client = client_of(sheet.peer as u32);
    if client == 0 || client == hook.endpoint {
        return sheet.verdict;
    }
    let k = &sheet.packet.key;
    let own = match hook.direction {
        Direction::Inbound => k.destination,
        Direction::Outbound => k.source,
    };
    let Asked { protocol, port, .. } = sheet.asked;
    sheet.of_client = Asked { endpoint: client, opened: Direction::Outbound, protocol, port, peer: own };
    // Of one that nothing is published for, its own hook has let no opening pass by this.
    if tables.word(client) == 0 {
        return sheet.verdict;
    }
    let says = judge(tables, &sheet.of_client, &mut sheet.client_word).verdict();
    both(Verdict(sheet.verdict), says).0
}

/// Policy's whole answer on an opening at an endpoint's own address: [`judge`], and the client's policy where the hook
/// would ask it too. For entries that are judged apart from packets.
pub fn judge_both<T: Tables>(tables: &T, asked: &Asked, own: Address) -> Verdict {
    let server = judge(tables, asked, &mut 0).verdict();
    let client = match asked.opened {
        Direction::Inbound => client_of(tables.peer(asked.peer)),
        Direction::Outbound => 0,
    };
    if client == 0 || client == asked.endpoint || tables.word(client) == 0 {
        return server;
    }
    let of_client = Asked { endpoint: client, opened: Direction::Outbound, peer: own, ..*asked };
    both(server, judge(tables, &of_client, &mut 0).verdict())
}

/// The server's own verdict, and the client's beside it. The server's reason comes first.
#[inline(always)]
fn both(server: Verdict, client: Verdict) -> Verdict {
    let verdict = match (server.allows(), client.allows()) {
        (_, true) => server,
        (true, false) => server.with_reason(Reason::RefusedByClient).without_rule().refused_by(Refuser::Client),
        (false, false) => server.refused_by(Refuser::Both),
    };
    if matches!((server.staged(), client.staged()), (Staged::None, Staged::None)) {
        return verdict;
    }
    verdict.with_staged(if would_allow(server) && would_allow(client) { Staged::Allow } else { Staged::Deny })
}

/// What would hold were everything staged applied; where nothing is staged, what is in force.
#[inline(always)]
const fn would_allow(verdict: Verdict) -> bool {
    match verdict.staged() {
        Staged::None => verdict.allows(),
        Staged::Allow => true,
        Staged::Deny => false,
    }
}
