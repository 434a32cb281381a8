//! What a packet costs: nanoseconds of the loaded program in test runs, beside a program that only
//! returns, in one run. `./run bench datapath`.

use aya::{
    EbpfLoader,
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use flow::{Address, Direction, TCP};
use tests::{
    frame::{Frame, transport},
    privilege,
    rig::Rig,
};
use verdict::{
    Limits, Mode,
    abi::{EGRESS_ISOLATED, INGRESS_ISOLATED, RulePort, endpoint_word, rule_key, slot_number},
};

const REPEAT: u32 = 200_000;
const ROUNDS: usize = 9;
const IDENTITIES: [u32; 3] = [1, 1_000, 100_000];

struct Case {
    name: &'static str,
    direction: Direction,
    /// Put in once before it is measured.
    before: Vec<(Direction, Vec<u8>)>,
    frame: Vec<u8>,
}

fn main() {
    if !privilege::kernel("bench datapath") {
        return;
    }
    println!(
        "ns a packet: median (least) of {ROUNDS} runs of {REPEAT}; over the program that only returns: in brackets"
    );
    print!("{:>10}  {:>12}", "identities", "floor");
    for case in cases() {
        print!("  {:>26}", case.name);
    }
    println!();
    for identities in IDENTITIES {
        row(identities);
    }
}

fn row(identities: u32) {
    let rig = rig(identities);
    let cases = cases();
    for case in &cases {
        for (direction, frame) in &case.before {
            run(rig.kernel.program(*direction).expect("loaded"), frame, 1);
        }
    }
    let mut floor = Vec::new();
    let mut figures = vec![Vec::new(); cases.len()];
    let mut object = EbpfLoader::new().map_max_entries("CONNECTIONS", 1).load(datapath::OBJECT).expect("the object");
    let nothing: &mut SchedClassifier =
        object.program_mut("floor").expect("a program").try_into().expect("a classifier");
    nothing.load().expect("the program that only returns loads");
    for _ in 0..ROUNDS {
        floor.push(run(nothing, &cases[0].frame, REPEAT));
        for (case, figures) in cases.iter().zip(&mut figures) {
            figures.push(run(rig.kernel.program(case.direction).expect("loaded"), &case.frame, REPEAT));
        }
    }
    floor.sort_unstable();
    print!("{identities:>10}  {:>12}", format!("{} ({})", floor[ROUNDS / 2], floor[0]));
    for mut figures in figures {
        figures.sort_unstable();
        let (median, least) = (figures[ROUNDS / 2], figures[0]);
        print!("  {:>26}", format!("{median} ({least}) [+{}]", median as i64 - floor[ROUNDS / 2] as i64));
    }
    println!();
}

fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> u64 {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    program.test_run(options).expect("a test run").duration.as_nanos() as u64
}

fn v4(d: u8) -> Address {
    Address::v4([10, 1, 0, d])
}

fn v6(d: u8) -> Address {
    let mut octets = [0; 16];
    (octets[0], octets[15]) = (0xfd, d);
    Address::v6(octets)
}

fn cases() -> Vec<Case> {
    let frame = |from: Address, to: Address, flags: u8, ports: (u16, u16)| {
        Frame::new(from, to, TCP, transport(TCP, ports.0, ports.1, flags, 100)).bytes()
    };
    let mut cases = Vec::new();
    for (family, address) in [("4", v4 as fn(u8) -> Address), ("6", v6)] {
        let (client, server) = (address(9), address(2));
        let open = |port: u16| {
            vec![
                (Direction::Inbound, frame(client, server, 0x02, (port, 80))),
                (Direction::Outbound, frame(server, client, 0x12, (80, port))),
                (Direction::Inbound, frame(client, server, 0x10, (port, 80))),
            ]
        };
        let name = |v4: &'static str, v6: &'static str| if family == "4" { v4 } else { v6 };
        cases.push(Case {
            name: name("established IPv4", "established IPv6"),
            direction: Direction::Inbound,
            before: open(40_000),
            frame: frame(client, server, 0x10, (40_000, 80)),
        });
        cases.push(Case {
            name: name("reply IPv4", "reply IPv6"),
            direction: Direction::Outbound,
            before: open(40_001),
            frame: frame(server, client, 0x10, (80, 40_001)),
        });
        cases.push(Case {
            name: name("denied SYN IPv4", "denied SYN IPv6"),
            direction: Direction::Inbound,
            before: Vec::new(),
            frame: frame(client, server, 0x02, (40_002, 81)),
        });
    }
    cases
}

fn rig(identities: u32) -> Rig {
    let limits = Limits { half_open: 4096, established: 65_536, tombstones: 4096 };
    let mut rig = Rig::new(limits, 65_536).expect("the program loads");
    let none = Address::default();
    rig.endpoint(1, 1, [v4(2), v6(2), none, none, none]).expect("an endpoint");
    let mut x = 1u32;
    for number in 0..identities {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, b, c, d] = x.to_be_bytes();
        rig.identity(Address::v4([10, b | 2, c, d]), 128, 100 + number).expect("an identity");
    }
    for address in [v4(9), v6(9)] {
        rig.identity(address, 128, 1).expect("an identity");
    }
    let slot = slot_number(1, INGRESS_ISOLATED | EGRESS_ISOLATED);
    rig.rule(rule_key(slot, 1, Direction::Inbound, TCP, RulePort::Class(80)), 1).expect("a rule");
    rig.generation(1, slot, 0, Mode::Enforce).expect("a generation");
    rig.publish(1, endpoint_word(1, 1)).expect("a publish");
    rig
}
