//! Which name led a client to an address: answers of DNS as they pass in a capture.
//!
//! Always holds: a name is given only to a flow that the same client began after the answer and not long
//! after it ran out; what the network says is data, so a name that is none is not kept; memory is bounded.
//!
//! Answers over UDP only, and as far as the capture holds them: a live one keeps the first bytes of each packet.
//! What answers over TCP or encrypted is not heard, and the kernel program looks at no payload.

use model::record::UnixNanos;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

const SECOND: UnixNanos = 1_000_000_000;

/// Clients use an answer longer than it says: runtimes and pools keep addresses.
const AT_LEAST: UnixNanos = 600 * SECOND;

/// Answers kept at once; while all are in use, further ones are not.
const MOST: usize = 1 << 16;

/// The longest name, in text (RFC 1035, 2.3.4).
const LONGEST: usize = 253;

/// What was answered to whom.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Client and address to the name asked for.
    answers: HashMap<(IpAddr, IpAddr), Answer>,
}

#[derive(Debug)]
struct Answer {
    name: Arc<str>,
    from: UnixNanos,
    until: UnixNanos,
}

impl Names {
    /// Keeps what a DNS message (RFC 1035, 4) tells a client; of one that is cut, as much as is there.
    pub(crate) fn hear(&mut self, at: UnixNanos, client: IpAddr, message: &[u8]) {
        let Some((name, addresses)) = answers_in(message) else { return };
        for (address, seconds) in addresses {
            let lasts = UnixNanos::from(seconds).saturating_mul(SECOND).max(AT_LEAST);
            let until = at.saturating_add(lasts);
            if self.answers.len() >= MOST && !self.answers.contains_key(&(client, address)) {
                self.answers.retain(|_, answer| answer.until >= at);
                if self.answers.len() >= MOST {
                    return;
                }
            }
            let known = self.answers.get(&(client, address)).filter(|old| *old.name == *name && old.until >= at);
            let from = known.map_or(at, |old| old.from.min(at));
            self.answers.insert((client, address), Answer { name: name.clone(), from, until });
        }
    }

    /// The name that led a client to an address in a flow that began then.
    pub(crate) fn of(&self, client: IpAddr, address: IpAddr, begun: UnixNanos) -> Option<Arc<str>> {
        let answer = self.answers.get(&(client, address))?;
        (answer.from..=answer.until).contains(&begun).then(|| answer.name.clone())
    }
}

/// A name, and its addresses with how many seconds each lasts.
type Answered = (Arc<str>, Vec<(IpAddr, u32)>);

/// The name that was asked for, and the addresses answered with how many seconds they last.
fn answers_in(message: &[u8]) -> Option<Answered> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let (flags, questions, answers) = (word(2)?, word(4)?, word(6)?);
    // A response without error, to one question.
    if flags & 0x800f != 0x8000 || questions != 1 || answers == 0 {
        return None;
    }
    let (name, mut at) = name_at(message, 12)?;
    at += 4;
    let mut addresses = Vec::new();
    for _ in 0..answers {
        let Some(next) = skipped_name(message, at) else { break };
        at = next;
        let Some(fixed) = message.get(at..at + 10) else { break };
        let (kind, class) = (u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[2], fixed[3]]));
        let seconds = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let Some(data) = message.get(at + 10..at + 10 + length) else { break };
        at += 10 + length;
        let address = match (kind, class) {
            (1, 1) => <[u8; 4]>::try_from(data).ok().map(|octets| IpAddr::from(Ipv4Addr::from(octets))),
            (28, 1) => <[u8; 16]>::try_from(data).ok().map(|octets| IpAddr::from(Ipv6Addr::from(octets))),
            _ => None,
        };
        addresses.extend(address.map(|address| (address.to_canonical(), seconds)));
    }
    Some((name, addresses))
}

/// A name in full, in lower case, and where what follows it begins. Names of hosts and services only.
fn name_at(message: &[u8], mut at: usize) -> Option<(Arc<str>, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return (!name.is_empty()).then(|| (name.as_str().into(), at));
        }
        // The first name has nothing before it that it could point to.
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !label.iter().all(is_fit) || name.len() + length + 1 > LONGEST {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
}

/// Where what follows a name begins; a pointer ends a name.
fn skipped_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length < 64 => at += 1 + length,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 5));
    const API: [u8; 4] = [203, 0, 113, 9];

    /// A response to one question: an alias, then addresses, each with its seconds.
    fn response(name: &str, addresses: &[([u8; 4], u32)]) -> Vec<u8> {
        let answers = u8::try_from(addresses.len() + 1).unwrap();
        let mut out = vec![0, 7, 0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0];
        for label in name.split('.') {
            out.push(u8::try_from(label.len()).unwrap());
            out.extend(label.bytes());
        }
        out.extend([0, 0, 1, 0, 1]);
        let alias = [3, b'c', b'd', b'n', 0xc0, 12];
        out.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 6]);
        out.extend(alias);
        for (address, seconds) in addresses {
            out.extend([0xc0, 40, 0, 1, 0, 1]);
            out.extend(seconds.to_be_bytes());
            out.extend([0, 4]);
            out.extend(address);
        }
        out
    }

    fn of(names: &Names, address: [u8; 4], at: UnixNanos) -> Option<String> {
        names.of(CLIENT, address.into(), at).map(|name| name.to_string())
    }

    #[test]
    fn every_address_of_an_answer_has_the_name_that_was_asked_for() {
        let mut names = Names::default();
        let other = [203, 0, 113, 10];
        names.hear(SECOND, CLIENT, &response("API.example.com", &[(API, 30), (other, 30)]));
        assert_eq!(of(&names, API, 2 * SECOND).as_deref(), Some("api.example.com"));
        assert_eq!(of(&names, other, 2 * SECOND).as_deref(), Some("api.example.com"));
        assert_eq!(names.of([10, 1, 0, 6].into(), API.into(), 2 * SECOND), None, "another client asked nothing");
        assert_eq!(of(&names, API, 0), None, "begun before the answer");
        assert_eq!(of(&names, API, SECOND + AT_LEAST + 1), None, "long after it ran out");
    }

    #[test]
    fn an_answer_that_is_renewed_goes_on_and_one_of_another_name_takes_its_place() {
        let mut names = Names::default();
        names.hear(SECOND, CLIENT, &response("a.example", &[(API, 3600)]));
        names.hear(100 * SECOND, CLIENT, &response("a.example", &[(API, 3600)]));
        assert_eq!(of(&names, API, 50 * SECOND).as_deref(), Some("a.example"));
        assert_eq!(of(&names, API, 3650 * SECOND).as_deref(), Some("a.example"));
        names.hear(200 * SECOND, CLIENT, &response("b.example", &[(API, 3600)]));
        assert_eq!(of(&names, API, 150 * SECOND), None, "of which of the two nobody knows any more");
        assert_eq!(of(&names, API, 250 * SECOND).as_deref(), Some("b.example"));
    }

    #[test]
    fn what_is_no_answer_names_nothing() {
        let whole = response("api.example.com", &[(API, 30)]);
        let heard = |message: &[u8]| {
            let mut names = Names::default();
            names.hear(SECOND, CLIENT, message);
            of(&names, API, SECOND)
        };
        assert!(heard(&whole).is_some());
        let with = |at: usize, byte: u8| {
            let mut changed = whole.clone();
            changed[at] = byte;
            changed
        };
        assert_eq!(heard(&with(2, 0x01)), None, "a question");
        assert_eq!(heard(&with(3, 0x83)), None, "no such name");
        assert_eq!(heard(&with(5, 2)), None, "two questions");
        assert_eq!(heard(&with(13, 0x1b)), None, "a name that a terminal would obey");
        assert_eq!(heard(&whole[..whole.len() - 1]), None, "cut before the address ends");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in prop::collection::vec(any::<u8>(), 0..120), cut in 0..80usize) {
            let mut names = Names::default();
            names.hear(0, CLIENT, &message);
            let whole = response("api.example.com", &[(API, 30), (API, 40)]);
            names.hear(0, CLIENT, &whole[..cut.min(whole.len())]);
            let mut changed = whole.clone();
            for (place, byte) in message.iter().enumerate() {
                changed[(place * 7 + cut) % whole.len()] ^= byte;
            }
            names.hear(0, CLIENT, &changed);
        }
    }
}
