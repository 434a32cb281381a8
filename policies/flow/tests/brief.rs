//! Where `brief` answers, it says what `parse` says.

use flow::{Brief, Fragment, Kind, SCTP, TCP, brief, parse};

/// xorshift64 (Marsaglia 2003).
fn bits(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A frame that is near to one that `brief` reads: right, but for a few bytes and its length.
fn frame(state: &mut u64) -> Vec<u8> {
    let v4 = bits(state) & 1 == 0;
    let protocol = [TCP, TCP, 17, SCTP, 1][(bits(state) % 5) as usize];
    let mut out = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let payload = [8, 19, 20, 32, 60][(bits(state) % 5) as usize];
    if v4 {
        out.extend([8, 0, 0x45, 0, 0, 20 + payload, 0, 9, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    } else {
        out.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, payload, protocol, 64]);
        out.extend([0xfd; 32]);
    }
    out.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    out.resize(out.len() + usize::from(payload), 7);
    for _ in 0..bits(state) % 3 {
        let at = 12 + (bits(state) % 50) as usize;
        if let Some(byte) = out.get_mut(at) {
            *byte = bits(state) as u8;
        }
    }
    if bits(state).is_multiple_of(4) {
        out.truncate((bits(state) % 90) as usize);
    }
    out
}

#[test]
fn where_brief_answers_it_says_what_parse_says() {
    let (mut state, mut answered, mut not) = (0x5eed, [0, 0], 0);
    for _ in 0..300_000 {
        let bytes = frame(&mut state);
        let Some(Brief { key, tcp_flags, ip_length, headers }) = brief(&bytes[..]) else {
            not += 1;
            continue;
        };
        let whole = parse(&bytes[..]).unwrap_or_else(|error| panic!("{error:?}: {bytes:02x?}"));
        assert_eq!((whole.key, whole.tcp_flags), (key, tcp_flags), "{bytes:02x?}");
        assert_eq!((whole.ip_length, whole.headers), (ip_length, headers), "{bytes:02x?}");
        assert_eq!((whole.kind, whole.fragment), (Kind::Transport, Fragment::Whole), "{bytes:02x?}");
        answered[usize::from(whole.key.source.is_v4())] += 1;
    }
    assert!(answered[0] > 10_000 && answered[1] > 10_000 && not > 10_000, "{answered:?} {not}");
}
