//! Test runs: a packet put into the loaded program again and again.

use aya::{
    EbpfLoader,
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use flow::{Address, Direction, TCP, UDP};
use tests::{
    frame::{Frame, transport},
    rig::Rig,
};
use verdict::{
    Limits, Mode,
    abi::{
        EGRESS_ISOLATED, FRONTENDS, HAS_BACKENDS, INGRESS_ISOLATED, RulePort, endpoint_word, frontend_key, rule_key,
        slot_number,
    },
};

const REPEAT: u32 = 100_000;
const ROUNDS: usize = 9;
/// Packets of which each is put in once.
const ONCE: u16 = 2_000;
/// Identities, and rules in the pod's slot.
const SIZES: [(u32, u32); 4] = [(1, 1), (1_000, 1_000), (100_000, 1), (100_000, 70_000)];
const SLOT: u32 = slot_number(1, INGRESS_ISOLATED | EGRESS_ISOLATED);

/// One figure.
struct Case {
    direction: Direction,
    /// Put in once before it is measured.
    before: Vec<(Direction, Vec<u8>)>,
    /// One frame again and again, or each of many once.
    frames: Vec<Vec<u8>>,
}

pub(crate) fn main() {
    println!(
        "The program alone: ns a packet over a program that only returns, median (least) of {ROUNDS} runs of {REPEAT}"
    );
    print!("{:>10} {:>7} {:>6}", "identities", "rules", "floor");
    for (_, name) in KINDS {
        for family in ["v4", "v6"] {
            print!(" {:>15}", format!("{name} {family}"));
        }
    }
    println!();
    for (identities, rules) in SIZES {
        row(identities, rules);
    }
}

fn row(identities: u32, rules: u32) {
    let mut rig = rig(identities, rules);
    let cases = cases();
    for case in &cases {
        for (direction, frame) in &case.before {
            run(rig.kernel.program(*direction).expect("loaded"), frame, 1);
        }
    }
    let mut object = EbpfLoader::new().map_max_entries("CONNECTIONS", 1).load(datapath::OBJECT).expect("the object");
    let nothing: &mut SchedClassifier =
        object.program_mut("floor").expect("a program").try_into().expect("a classifier");
    nothing.load().expect("the program that only returns loads");
    let (mut floor, mut floor_once) = (Vec::new(), Vec::new());
    let mut figures = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        floor.push(run(nothing, &cases[0].frames[0], REPEAT));
        floor_once.push(once(nothing, &cases[4].frames));
        for (case, figures) in cases.iter().zip(&mut figures) {
            let figure = match &case.frames[..] {
                [frame] => run(rig.kernel.program(case.direction).expect("loaded"), frame, REPEAT),
                frames => {
                    let figure = once(rig.kernel.program(case.direction).expect("loaded"), frames);
                    // The next round's are new again.
                    let (sweep, tables) = rig.kernel.sweep();
                    sweep.drain(tables).expect("the connections go");
                    for (direction, frame) in cases.iter().flat_map(|case| &case.before) {
                        run(rig.kernel.program(*direction).expect("loaded"), frame, 1);
                    }
                    figure
                }
            };
            figures.push(figure);
        }
    }
    floor.sort_unstable();
    floor_once.sort_unstable();
    print!("{identities:>10} {rules:>7} {:>6}", floor[ROUNDS / 2]);
    for (case, mut figures) in cases.iter().zip(figures) {
        figures.sort_unstable();
        let floor = if case.frames.len() == 1 { floor[ROUNDS / 2] } else { floor_once[ROUNDS / 2] } as i64;
        let (median, least) = (figures[ROUNDS / 2] as i64 - floor, figures[0] as i64 - floor);
        print!(" {:>15}", format!("+{median} (+{least})"));
    }
    println!();
}

fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> u64 {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    program.test_run(options).expect("a test run").duration.as_nanos() as u64
}

/// Each frame once: the median.
fn once(program: &SchedClassifier, frames: &[Vec<u8>]) -> u64 {
    let mut all: Vec<u64> = frames.iter().map(|frame| run(program, frame, 1)).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

fn v4(d: u8) -> Address {
    Address::v4([10, 1, 0, d])
}

fn v6(d: u8) -> Address {
    let mut octets = [0; 16];
    (octets[0], octets[15]) = (0xfd, d);
    Address::v6(octets)
}

/// What is measured.
#[derive(Clone, Copy)]
enum Kind {
    Established,
    Reply,
    NewAllowed,
    Denied,
    LaterPiece,
    ToService,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::Established, "established"),
    (Kind::Reply, "reply"),
    (Kind::NewAllowed, "new allowed"),
    (Kind::Denied, "denied"),
    (Kind::LaterPiece, "later piece"),
    (Kind::ToService, "to a Service"),
];

fn cases() -> Vec<Case> {
    let families = [v4 as fn(u8) -> Address, v6];
    KINDS.iter().flat_map(|(kind, _)| families.map(|address| case(*kind, address))).collect()
}

fn tcp(from: Address, to: Address, flags: u8, ports: (u16, u16)) -> Vec<u8> {
    Frame::new(from, to, TCP, transport(TCP, ports.0, ports.1, flags, 100)).bytes()
}

fn case(kind: Kind, address: fn(u8) -> Address) -> Case {
    let (client, server) = (address(9), address(2));
    let inbound = |frame| Case { direction: Direction::Inbound, before: Vec::new(), frames: vec![frame] };
    match kind {
        Kind::Established => {
            Case { before: opened(client, server, 40_000), ..inbound(tcp(client, server, 0x10, (40_000, 80))) }
        }
        Kind::Reply => Case {
            direction: Direction::Outbound,
            before: opened(client, server, 40_001),
            frames: vec![tcp(server, client, 0x10, (80, 40_001))],
        },
        Kind::NewAllowed => Case {
            direction: Direction::Inbound,
            before: Vec::new(),
            frames: (0..ONCE).map(|port| tcp(client, server, 2, (10_000 + port, 80))).collect(),
        },
        Kind::Denied => inbound(tcp(client, server, 2, (40_002, 81))),
        Kind::LaterPiece => {
            let whole = Frame::new(client, server, UDP, transport(UDP, 4000, 80, 0, 1200));
            let piece = |offset, more| Frame { fragment: Some((7, offset, more)), ..whole.clone() }.bytes();
            Case { before: vec![(Direction::Inbound, piece(0, true))], ..inbound(piece(1208, false)) }
        }
        Kind::ToService => Case {
            direction: Direction::Outbound,
            before: Vec::new(),
            frames: vec![tcp(server, address(96), 2, (40_003, 80))],
        },
    }
}

/// A handshake.
fn opened(client: Address, server: Address, port: u16) -> Vec<(Direction, Vec<u8>)> {
    vec![
        (Direction::Inbound, tcp(client, server, 0x02, (port, 80))),
        (Direction::Outbound, tcp(server, client, 0x12, (80, port))),
        (Direction::Inbound, tcp(client, server, 0x10, (port, 80))),
    ]
}

fn rig(identities: u32, rules: u32) -> Rig {
    let limits = Limits { half_open: 65_536, established: 65_536, tombstones: 65_536 };
    let mut rig = Rig::new(limits, 262_144).expect("the program loads");
    let none = Address::default();
    rig.endpoint(1, 1, [v4(2), v6(2), none, none, none]).expect("an endpoint");
    let mut x = 1u32;
    for number in 0..identities {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, b, c, d] = x.to_be_bytes();
        rig.identity(Address::v4([10, b | 2, c, d]), 128, 100 + number).expect("an identity");
    }
    for number in 1..rules {
        let key = rule_key(SLOT, 100 + number, Direction::Inbound, TCP, RulePort::Class(80));
        rig.rule(key, number).expect("a rule");
    }
    for family in [v4 as fn(u8) -> Address, v6] {
        rig.identity(family(9), 128, 1).expect("an identity");
        rig.identity(family(96), 128, FRONTENDS | 2).expect("an identity");
    }
    for (protocol, rule) in [(TCP, 1), (UDP, 2)] {
        let key = rule_key(SLOT, 1, Direction::Inbound, protocol, RulePort::Class(80));
        rig.rule(key, rule).expect("a rule");
    }
    rig.rule(frontend_key(FRONTENDS | 2, TCP, 80), HAS_BACKENDS).expect("a frontend");
    let to_service = rule_key(SLOT, FRONTENDS | 2, Direction::Outbound, TCP, RulePort::Frontend(80));
    rig.rule(to_service, 3).expect("a rule");
    rig.generation(1, SLOT, 0, Mode::Enforce).expect("a generation");
    rig.publish(1, endpoint_word(1, 1)).expect("a publish");
    rig
}
