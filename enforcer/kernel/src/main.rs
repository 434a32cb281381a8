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
use core::cell::Cell;
use flow::{Direction, Packet, ParseError};
use packet::Linear;
use tables::KernelTables;
use verdict::{Effect, Hook, Looked, Mode, Reason, Room, Sheet, Tables, Verdict, abi};

/// TC_ACT_UNSPEC: whatever else is attached still runs.
const PASS: i32 = -1;
/// TC_ACT_SHOT.
const DROP: i32 = 2;

/// In an answer: the packet found no room.
const NO_ROOM: i32 = 1 << 8;

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

/// Does nothing: what the benchmark's figures are measured against.
#[classifier]
pub fn floor(_ctx: TcContext) -> i32 {
    PASS
}

#[inline(always)]
fn classify(skb: *mut __sk_buff, direction: Direction) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let (ifindex, length, segments) = unsafe { ((*skb).ifindex, (*skb).len, (*skb).gso_segs as u16) };
    let Some(endpoint) = maps::endpoint_of(ifindex) else { return unknown_pod(skb, direction) };
    let mut looked = Looked::No;
    if let Some(packet) = flow::brief(&Linear { skb }) {
        let hook = Hook { endpoint, direction, ifindex, ingress_ifindex: 0, segments, now: tables::now() };
        if verdict::established(&KernelTables { skb }, &hook, &packet).is_some() {
            report::count(abi::counter_index(Reason::Established, direction, false), length);
            return PASS;
        }
        looked = Looked::Yes;
    }
    let answer = judge(skb, direction, endpoint, looked);
    if answer == PASS || answer == DROP {
        return answer;
    }
    // Here, where the stack is still empty.
    make_room(skb);
    answer ^ NO_ROOM
}

/// For packets to come, after one that found no room.
#[inline(never)]
fn make_room(skb: *mut __sk_buff) -> i32 {
    verdict::make_room(&KernelTables { skb }, tables::now());
    0
}

/// Every packet that is not one of nearly all: what is done with it, with [`NO_ROOM`] where it found none.
#[inline(never)]
fn judge(skb: *mut __sk_buff, direction: Direction, endpoint: u32, looked: Looked) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let (ifindex, ingress_ifindex, length) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex, (*skb).len) };
    let tables = KernelTables { skb };
    // SAFETY: the context is valid for the program's run.
    let segments = unsafe { (*skb).gso_segs as u16 };
    let hook = Hook { endpoint, direction, ifindex, ingress_ifindex, segments, now: tables::now() };
    let Some(desk) = maps::desk() else { return DROP };
    let (sheet, scratch) = desk.parts();
    // The verifier then walks the same way for both.
    let looked = if maps::forget(scratch, looked as u8) == Looked::No as u8 { Looked::No } else { Looked::Yes };
    let verdict = match read(skb, scratch, &mut sheet.packet) {
        Ok(()) => verdict::decide_after(&tables, &hook, sheet, looked),
        Err(error) => {
            sheet.word = tables.word(endpoint);
            verdict::refuse(error)
        }
    };
    if matches!(verdict.reason(), Reason::Established) {
        report::count(abi::counter_index(Reason::Established, direction, false), length);
        return PASS;
    }
    conclude(&tables, &hook, sheet, Verdict::from_word(maps::forget_word(scratch, verdict.word())))
}

/// Parses the linear part; where headers reach beyond it, pulls once and parses again.
#[inline(never)]
fn read(skb: *mut __sk_buff, scratch: &Cell<u64>, packet: &mut Packet) -> Result<(), ParseError> {
    match flow::parse_into(&packet::Skb { linear: Linear { skb }, scratch }, packet) {
        Err(error) if error.is_truncation() && packet::pull(skb) => read_again(skb, scratch, packet),
        result => result,
    }
}

/// Rare, hence out of line.
#[inline(never)]
fn read_again(skb: *mut __sk_buff, scratch: &Cell<u64>, packet: &mut Packet) -> Result<(), ParseError> {
    packet.fragment = flow::Fragment::Whole;
    packet.fragment_id = 0;
    flow::parse_into(&packet::Skb { linear: Linear { skb }, scratch }, packet)
}

/// What is done about a verdict that is not `Established`: the mode, the counter, the event.
#[inline(never)]
fn conclude(tables: &KernelTables, hook: &Hook, sheet: &Sheet, verdict: Verdict) -> i32 {
    // Not read anew: a publish since then belongs to the next packet.
    let mode = verdict::mode(tables, sheet, verdict);
    // SAFETY: the context is valid for the program's run.
    let length = unsafe { (*tables.skb).len };
    let action = finish(hook, sheet, verdict, mode, length);
    match verdict.room() {
        Room::Enough => action,
        Room::Lacking => action ^ NO_ROOM,
    }
}

#[inline(always)]
fn finish(hook: &Hook, sheet: &Sheet, verdict: Verdict, mode: Mode, length: u32) -> i32 {
    let dropped = matches!(verdict::effect(mode, verdict.reason()), Effect::DropAndLog);
    let index = abi::counter_index(verdict.reason(), hook.direction, dropped);
    report::count(index, length);
    report::verdict(index, hook, sheet, verdict, mode);
    if dropped { DROP } else { PASS }
}

/// A veth whose pod is not known: the node's setting is its whole rule. The packet is parsed for the event alone.
#[inline(never)]
fn unknown_pod(skb: *mut __sk_buff, direction: Direction) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let (ifindex, ingress_ifindex, length) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex, (*skb).len) };
    let Some(desk) = maps::desk() else { return DROP };
    let hook = Hook { endpoint: u32::MAX, direction, ifindex, ingress_ifindex, segments: 1, now: tables::now() };
    let (sheet, scratch) = desk.parts();
    let _ = read(skb, scratch, &mut sheet.packet);
    sheet.word = 0;
    finish(&hook, sheet, verdict::unknown_pod(), settings::unknown_pod(), length)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// Helpers such as `bpf_skc_lookup_tcp` are offered to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
