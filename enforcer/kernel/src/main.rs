//! The classifier on the host side of a pod's veth, both directions: packets and maps, given to
//! `verdict::decide`. There is no decision here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod maps;
mod packet;
mod report;
mod settings;
mod tables;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use flow::{Direction, Packet, ParseError};
use tables::KernelTables;
use verdict::{Decision, Effect, Hook, News, Reason, Staged, Tables, Verdict, abi};

/// TC_ACT_UNSPEC: whatever else is attached still runs.
const PASS: i32 = -1;
/// TC_ACT_SHOT.
const DROP: i32 = 2;

/// Packets that leave the node towards the pod: egress of the host side.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    classify(ctx.skb.skb, Direction::Inbound)
}

/// Packets from the pod: ingress of the host side.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    classify(ctx.skb.skb, Direction::Outbound)
}

#[inline(always)]
fn classify(skb: *mut __sk_buff, direction: Direction) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let (ifindex, ingress_ifindex, length) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex, (*skb).len) };
    // SAFETY: the value is copied at once.
    let Some(endpoint) = unsafe { maps::LINKS.get(&ifindex) }.copied() else {
        return unknown_pod(ifindex, direction, length);
    };
    let tables = KernelTables { skb };
    let hook = Hook { endpoint, direction, ifindex, ingress_ifindex, now: tables::now() };
    let parsed = match flow::parse(&packet::Skb::new(skb)) {
        Err(error) if error.is_truncation() && packet::pull(skb) => parse_again(skb),
        parsed => parsed,
    };
    match parsed {
        Ok(packet) => {
            let decision = verdict::decide(&tables, &hook, &packet);
            if matches!(decision.verdict.reason, Reason::Established) {
                report::count(abi::counter_index(Reason::Established, direction, false), length);
                return PASS;
            }
            conclude(&tables, &hook, Some(&packet), &decision)
        }
        Err(error) => conclude(&tables, &hook, None, &verdict::refuse(error)),
    }
}

/// Rare, hence out of line.
#[inline(never)]
fn parse_again(skb: *mut __sk_buff) -> Result<Packet, ParseError> {
    flow::parse(&packet::Skb::new(skb))
}

/// What is done about a verdict that is not `Established`: the mode, the counter, the event.
#[inline(never)]
fn conclude(tables: &KernelTables, hook: &Hook, packet: Option<&Packet>, decision: &Decision) -> i32 {
    let word = tables.word(hook.endpoint);
    let mode = verdict::mode(tables, word);
    let effect = verdict::effect(mode, decision.verdict.reason);
    let dropped = matches!(effect, Effect::DropAndLog);
    // SAFETY: the context is valid for the program's run.
    let length = unsafe { (*tables.skb).len };
    report::count(abi::counter_index(decision.verdict.reason, hook.direction, dropped), length);
    report::verdict(hook, packet, decision, word, mode, effect);
    if dropped { DROP } else { PASS }
}

/// A veth whose pod is not known: the node's setting is its whole rule.
#[inline(never)]
fn unknown_pod(ifindex: u32, direction: Direction, length: u32) -> i32 {
    let mode = settings::unknown_pod();
    let decision = Decision {
        verdict: Verdict { reason: Reason::UnknownPod, rule: 0, staged: Staged::None, staged_rule: 0 },
        news: News::Event,
    };
    let effect = verdict::effect(mode, Reason::UnknownPod);
    let dropped = matches!(effect, Effect::DropAndLog);
    report::count(abi::counter_index(Reason::UnknownPod, direction, dropped), length);
    let hook = Hook { endpoint: u32::MAX, direction, ifindex, ingress_ifindex: 0, now: tables::now() };
    report::verdict(&hook, None, &decision, 0, mode, effect);
    if dropped { DROP } else { PASS }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// Helpers such as `bpf_skc_lookup_tcp` are offered to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
